"""A model's density over its unbounded parameters as one flat vector, and where it is largest."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer import init_to_feasible
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from tqdm.auto import tqdm

from ..base.errors import InputError
from ..base.parallel import Map
from ..dynamics import MassModel
from .basis import Basis
from .checkpoint import FORGETFUL, Checkpoint
from .data import Calls, Data, from_unbounded
from .density import variance_ratio
from .likelihood import Likelihood, Recorder
from .sums import moments_at
from .surface import Exact, passes

__all__ = ["BASIS_THETAS", "Model", "Space", "peak", "space_of"]

BASIS_THETAS = 8  # at which stars show which combinations of a basis matter
_STEP = 1e-3  # of central differences of the gradient, in unbounded coordinates
_MODE_GRADIENT = 1e-2

Model = Callable[[Likelihood], None]


@dataclass(frozen=True)
class Space:
    """The unbounded parameters of a model as one flat vector (P,), sites in the order of their names.

    `start` (P,): the fiducial mass model, and hyperparameters in the middle of their ranges; `constrain` gives every
    site's value; `theta` (d,), where the mass model's parameters are, in the order of their table.
    """

    model: Model
    start: np.ndarray
    unravel: Callable[[Any], Any]
    constrain: Callable[[Any], Any]
    theta: np.ndarray

    def parameters(self, flat: Any, mass_model: MassModel) -> Any:
        """theta (..., d) in flat vectors (..., P)."""
        return jnp.stack([*from_unbounded(jnp.moveaxis(flat[..., self.theta], -1, 0), mass_model)], -1)

    def potential(self, likelihood: Likelihood) -> Callable[[Any], Any]:
        """-ln(prior x likelihood) of a flat vector, with the Jacobian of the transformation."""
        return lambda flat: potential_energy(self.model, (likelihood,), {}, self.unravel(flat))

    def exact(self, data: Data, map: Map | None = None) -> Exact:
        """The density of the stars, on the basis of `data` and on its finer one."""

        def given(data: Data) -> Callable[[Any, Any], Any]:
            def potential(flat: Any, found: Any) -> Any:
                return self.potential(Likelihood(data, source=lambda theta: (found, 0.0)))(flat)

            return potential

        return Exact(data, given(data), given(replace(data, basis=data.finer)), self.theta, map)

    def prior(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """Where hyperparameters are likeliest before any star is seen, the fiducial theta, and the prior's covariance
        (P, P)."""
        slope = jax.jit(jax.value_and_grad(self.potential(Likelihood(data, "none"))))
        mode, covariance = peak(slope, self.start)
        mode[self.theta] = self.start[self.theta]
        return mode, covariance

    def resolving(
        self,
        data: Data,
        draws: np.ndarray,
        thetas: np.ndarray | None = None,
        size: int | None = None,
        map: Map | None = None,
        checkpoint: Checkpoint = FORGETFUL,
        name: str = "",
    ) -> Data:
        """With bases of `size` cosines (None: as many as it takes) for what the model calls its likelihood with at
        `draws` (S, P), by passes at `thetas` (T, d), by default of the first draws.

        Kept in a checkpoint under a name: another number of cores could turn a basis' vectors about.
        """
        calls = self.calls(data, draws)
        thetas = self.parameters(draws[:BASIS_THETAS], data.model) if thetas is None else thetas
        data = data.on_box(calls, size)

        def bases() -> tuple[Basis, Basis]:
            degrees = tuple(int(d) for d in data.finer.degrees.max(0))
            found = passes(map, data, degrees)(partial(moments_at, data, degrees=degrees), list(thetas))
            resolved = data.resolving(calls, found)
            return resolved.basis, resolved.finer

        like = Basis._make([np.empty(0)] * len(Basis._fields))
        basis, finer = checkpoint.keep(f"basis-{name}", bases, (like, like))
        return replace(data, basis=basis, finer=finer)

    def calls(self, data: Data, draws: np.ndarray) -> Calls:
        """What the model calls its likelihood with, at flat vectors (S, P)."""
        kernels: list[str] = []

        def called(flat: Any) -> Any:
            recorder = Recorder(data, "none")
            self.potential(recorder)(flat)
            if not recorder.called:
                raise InputError("the model never calls its likelihood, so that the abundances tell it nothing")
            kernels[:] = [kernel for kernel, _ in recorder.called]
            every = [(c.lengths, variance_ratio(c.amplitude, c.scatter_cholesky)) for _, c in recorder.called]
            return jax.tree.map(lambda *values: jnp.stack(values), *every)

        one = jax.jit(called)
        several = [one(flat) for flat in draws]
        lengths, variance = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
        return Calls(tuple(kernels), lengths, variance)


def space_of(model: Model, data: Data) -> Space:
    """Of a model, for stars like these."""
    prior, table = Likelihood(data, "none"), data.model.parameters
    fiducial = {p.name: p.fiducial for p in table}

    @jax.jit
    def start() -> dict[str, Any]:
        def value(site: Any) -> Any:
            return jnp.asarray(fiducial[site["name"]]) if site["name"] in fiducial else init_to_feasible(site)

        seeded = handlers.seed(model, 0)
        sites = handlers.trace(handlers.substitute(seeded, substitute_fn=value)).get_trace(prior).values()
        values = {s["name"]: s["value"] for s in sites if s["type"] == "sample" and not s["is_observed"]}
        return unconstrain_fn(seeded, (prior,), {}, values)

    flat, unravel = ravel_pytree(start())
    places = {name: np.asarray(place) for name, place in unravel(jnp.arange(flat.size, dtype=float)).items()}

    def constrain(flat: Any) -> Any:
        return constrain_fn(handlers.seed(model, 0), (prior,), {}, unravel(flat), return_deterministic=True)

    return Space(model, np.asarray(flat), unravel, jax.jit(constrain), np.array([int(places[p.name]) for p in table]))


def peak(
    slope: Callable[[Any], Any], start: np.ndarray, covariance: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of the density in unbounded coordinates (P,), and the covariance (P, P) of the curvature there.

    `slope(flat)` is the potential and its gradient; `covariance`, if there is a guess, whitens the way.
    """
    mode = _maximum(slope, start, np.eye(start.size) if covariance is None else np.linalg.cholesky(covariance))
    steps = _STEP * np.eye(mode.size)
    points = [mode + sign * step for step in steps for sign in (1, -1)]
    slopes = np.array(
        [np.asarray(slope(point)[1]) for point in tqdm(points, "curvature", unit="gradient", disable=None)]
    )
    hessian = (slopes[::2] - slopes[1::2]) / (2 * _STEP)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    # a direction that the data say nothing of is as wide as its prior, about 2 in unbounded coordinates
    return mode, (vectors / np.maximum(values, 0.25)) @ vectors.T


def _maximum(slope: Callable[[Any], Any], start: np.ndarray, scale: np.ndarray) -> np.ndarray:
    with tqdm(desc="maximum", unit="gradient", disable=None) as bar:

        def whitened(z: np.ndarray) -> tuple[float, np.ndarray]:
            bar.update()
            value, gradient = slope(start + scale @ z)
            if not np.isfinite(value):
                return 1e30, np.zeros_like(z)
            return float(value), scale.T @ np.asarray(gradient)

        z, gtol = np.zeros(start.size), {"gtol": _MODE_GRADIENT}
        for method in ("BFGS", "L-BFGS-B", "BFGS"):  # the first is quick; a wall of the prior can stop it short
            z = scipy.optimize.minimize(whitened, z, jac=True, method=method, options=gtol).x
            if np.abs(whitened(z)[1]).max() < 10 * _MODE_GRADIENT:
                break
    return start + scale @ z
