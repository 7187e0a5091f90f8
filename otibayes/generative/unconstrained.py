"""A model's parameters without bounds, as one flat vector; its density there, and the Gaussian about its maximum."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from numpyro import factor, handlers
from numpyro.infer import init_to_feasible
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from threadpoolctl import threadpool_limits

from ..base.parameters import Parameter
from ..dynamics import MassModel
from .data import Data
from .model import GaussianField, Model, check_model

__all__ = ["Gaussian", "Unconstrained", "from_unbounded", "laplace", "slope_of", "to_unbounded"]

_STEP = 1e-3  # of central differences of the gradient, in unbounded coordinates
_GRADIENT = 1e-2  # at the maximum, in units of the Gaussian that starts the search
_LEAST_CURVATURE = 0.25  # a direction that the data tell nothing of is as wide as its prior, about 2

LogLikelihood = Callable[[Any, GaussianField], Any]  # of theta and the field that the model assumes


def to_unbounded(theta: Any, model: MassModel) -> jax.Array:
    """The logit of each parameter's place between its bounds (P,): where any prior has no edge."""

    def logit(p: Parameter) -> Any:
        low, high = model.range(p, theta)
        value = getattr(theta, p.name)
        return jnp.log(value - low) - jnp.log(high - value)

    return jnp.stack([logit(p) for p in model.parameters])


def from_unbounded(u: Any, model: MassModel) -> Any:
    """The inverse of `to_unbounded`."""
    theta = model.Parameters()
    for limited in (False, True):  # limits depend on the others
        for i, p in enumerate(model.parameters):
            if (p.name in model.limits) == limited:
                low, high = model.range(p, theta)
                theta = theta._replace(**{p.name: low + (high - low) * jax.nn.sigmoid(u[i])})
    return theta


class Gaussian(NamedTuple):
    """An approximation to the posterior of flat vectors: `mean` (P,), `covariance` (P, P)."""

    mean: np.ndarray
    covariance: np.ndarray

    def wider(self, factor: float) -> "Gaussian":
        """Of so many times the standard deviations."""
        return self._replace(covariance=factor**2 * self.covariance)

    def draws(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """(number, P)."""
        return rng.multivariate_normal(self.mean, self.covariance, number)


@dataclass(frozen=True, eq=False)
class Unconstrained:
    """The unbounded parameters of a `model` of the stars in `data`: a flat vector (P,), sites in order of their names.

    `start` (P,): the fiducial mass model, and hyperparameters in the middle of their ranges; `places` (d,) of the mass
    model's parameters, in the order of their table.
    """

    model: Model
    data: Data
    start: np.ndarray
    unravel: Callable[[Any], Any]
    places: np.ndarray

    def joint(self, log_likelihood: LogLikelihood) -> None:
        """The numpyro model: prior and likelihood."""
        theta, field = self.model(self.data)
        factor("abundances", log_likelihood(theta, field))

    def potential(self, log_likelihood: LogLikelihood) -> Callable[[Any], Any]:
        """-ln(prior x likelihood) of a flat vector, with the Jacobian of the transformation."""
        return lambda flat: potential_energy(self.joint, (log_likelihood,), {}, self.unravel(flat))

    def constrain(self, flat: Any) -> dict[str, Any]:
        """Every site's value, deterministic ones included."""
        seeded = handlers.seed(self.joint, 0)
        return constrain_fn(seeded, (no_likelihood,), {}, self.unravel(flat), return_deterministic=True)

    def field(self, sites: Mapping[str, Any]) -> GaussianField:
        """What the model assumes of the field, at one value of every site."""
        return handlers.substitute(handlers.seed(self.model, 0), data=dict(sites))(self.data)[1]

    def theta(self, flat: Any) -> jax.Array:
        """Parameters (d,) of the mass model in a flat vector (P,)."""
        return jnp.stack([*from_unbounded(flat[self.places], self.data.model)])

    def thetas(self, flat: np.ndarray) -> np.ndarray:
        """Parameters (..., d) in flat vectors (..., P)."""
        return np.asarray(self._thetas(flat))

    @functools.cached_property
    def _thetas(self) -> Callable[[np.ndarray], jax.Array]:
        return jax.jit(jnp.vectorize(self.theta, signature="(p)->(d)"))

    def fields(self, draws: np.ndarray) -> GaussianField:
        """The fields (S) at flat vectors (S, P)."""
        return jax.tree.map(np.asarray, self._fields(draws))

    @functools.cached_property
    def _fields(self) -> Callable[[np.ndarray], GaussianField]:
        return jax.jit(jax.vmap(lambda flat: self.field(self.constrain(flat))))

    def prior(self) -> Gaussian:
        """The Gaussian about the prior's maximum in the hyperparameters, and the fiducial theta."""
        mean, covariance = laplace(
            jax.jit(jax.value_and_grad(self.potential(no_likelihood))), Gaussian(self.start, np.eye(self.start.size))
        )
        mean[self.places] = self.start[self.places]
        return Gaussian(mean, covariance)

    @classmethod
    def of(cls, model: Model, data: Data) -> "Unconstrained":
        """Raises `InputError` as `check_model`."""
        check_model(model, data)
        fiducial = {p.name: p.fiducial for p in data.model.parameters}
        seeded = handlers.seed(model, 0)

        def value(site: Any) -> Any:
            return jnp.asarray(fiducial[site["name"]]) if site["name"] in fiducial else init_to_feasible(site)

        def start() -> dict[str, Any]:
            with handlers.trace() as sites, handlers.substitute(substitute_fn=value):
                seeded(data)
            values = {n: s["value"] for n, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
            return unconstrain_fn(seeded, (data,), {}, values)

        flat, unravel = ravel_pytree(jax.jit(start)())  # one program; each operation would be one by itself
        places = {name: np.asarray(place) for name, place in unravel(jnp.arange(flat.size, dtype=float)).items()}
        return cls(model, data, np.asarray(flat), unravel, np.array([int(places[name]) for name in fiducial]))


def no_likelihood(theta: Any, field: GaussianField) -> float:
    """ln L = 0, which leaves the prior alone."""
    return 0.0


@functools.lru_cache(maxsize=1)  # more would keep catalogues in memory
def slope_of(potential: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Value and gradient by its first argument of a potential: one program for all that need it."""
    return jax.jit(jax.value_and_grad(potential))


# ---- the maximum


Slope = Callable[[np.ndarray], tuple[Any, Any]]  # value and gradient (P,) at a flat vector (P,)


# The matrices are small: BLAS threads would spend many times the work in waiting for one another.
@threadpool_limits.wrap(limits=1, user_api="blas")
def laplace(slope: Slope, start: Gaussian) -> Gaussian:
    """The Gaussian about the minimum of -ln density. `start`, near it, sets the units of the search."""
    mode = _minimum(slope, start)
    steps = _STEP * np.eye(mode.size)
    hessian = np.array([np.subtract(slope(mode + step)[1], slope(mode - step)[1]) / (2 * _STEP) for step in steps])
    hessian = np.nan_to_num(hessian, posinf=0.0, neginf=0.0)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return Gaussian(mode, (vectors / np.maximum(values, _LEAST_CURVATURE)) @ vectors.T)


def _minimum(slope: Slope, start: Gaussian) -> np.ndarray:
    """Where a function is least: by BFGS in units of the Gaussian `start`."""
    scale = np.linalg.cholesky(start.covariance)

    def whitened(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, change = slope(start.mean + scale @ z)
        if not np.isfinite(value):
            return 1e30, np.zeros_like(z)
        return float(value), scale.T @ np.asarray(change)

    z = np.zeros(start.mean.size)
    for method in ("BFGS", "L-BFGS-B", "BFGS"):  # the first is quick; a wall of the prior can stop it short
        end = scipy.optimize.minimize(whitened, z, jac=True, method=method, options={"gtol": _GRADIENT})
        z = end.x
        if np.abs(end.jac).max() < 10 * _GRADIENT:
            break
    return start.mean + scale @ z
