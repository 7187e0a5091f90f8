"""NUTS: find the maximum, whiten by the curvature there, expand the response surface, sample, check."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from arviz_stats.base import array_stats
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import initialize_model, potential_energy
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import surface as response
from ..dynamics import MassModel
from ..errors import InputError
from .data import Data, from_unbounded, inputs_at, to_unbounded
from .likelihood import Likelihood, Statistic, statistic

__all__ = ["Posterior", "SurfaceReport", "sample_posterior"]

_SIGMAS = 6.0  # radius of the surface's region
_WITHIN = 0.9999  # of the rim
_ATTEMPTS = 2
_DEGREES = (4, 5, 6)
_HELD_OUT_MOST = 0.1  # rms error in ln L over the region
_CHECKED = 100  # posterior draws at which the surface is compared with the plain likelihood
_STEP = 1e-3  # of central differences of the gradient, in unbounded coordinates
_MODE_GRADIENT = 1e-2
_STATISTICS = {  # numpyro's names to ArviZ's
    "potential_energy": "lp",
    "diverging": "diverging",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
    "energy": "energy",
    "adapt_state.step_size": "step_size",
}

Model = Callable[[Likelihood], None]


class SurfaceReport(NamedTuple):
    """How far the response surface can be trusted, in ln L (differences from the plain likelihood).

    `degree` of the polynomials; `size` of the region and `farthest` draw's distance from its centre, in posterior
    sigmas; `attempts` at placing it; `held_out` and `radius` (H,): error at points that were not fitted and their
    distance from the centre; `posterior` (S,): error at posterior draws, less its mean; `khat`: Pareto k of the
    importance weights that would correct the draws.
    """

    degree: int
    size: float
    farthest: float
    attempts: int
    radius: np.ndarray
    held_out: np.ndarray
    posterior: np.ndarray
    khat: float


class Posterior(NamedTuple):
    """Draws (chain, draw, ...) of every site, sampler statistics (chain, draw), the mode, and the surface's report."""

    draws: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    mode: dict[str, np.ndarray]
    report: SurfaceReport | None


class _Space(NamedTuple):
    """The unbounded parameters of a model as one flat vector, sites in the order of their names."""

    start: np.ndarray
    unravel: Callable[[Any], Any]
    constrain: Callable[[Any], Any]
    theta: np.ndarray  # where the mass model's parameters are, in the order of their table


def _space(model: Model, data: Data, seed: int) -> _Space:
    prior, table = Likelihood(data, "none"), data.model.parameters
    fiducial = {p.name: p.fiducial for p in table}
    info = initialize_model(
        jax.random.key(seed), model, model_args=(prior,), init_strategy=init_to_value(values=fiducial)
    )
    start, unravel = ravel_pytree(info.param_info.z)
    places = {k: np.asarray(v) for k, v in unravel(jnp.arange(start.size, dtype=float)).items()}
    return _Space(
        np.asarray(start),
        unravel,
        jax.jit(lambda flat: info.postprocess_fn(unravel(flat))),
        np.array([int(places[p.name]) for p in table]),
    )


def _potential(model: Model, likelihood: Likelihood, space: _Space) -> Callable[[Any], Any]:
    """-ln(prior x likelihood) of the flat vector, with the Jacobian of the transformation."""
    return lambda flat: potential_energy(model, (likelihood,), {}, space.unravel(flat))


def _find_mode(potential: Callable[[Any], Any], start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of the density in unbounded coordinates, and the covariance from its curvature."""
    value_and_grad = jax.jit(jax.value_and_grad(potential))
    with tqdm(desc="maximum", unit="gradient", disable=None) as bar:

        def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
            bar.update()
            value, gradient = value_and_grad(flat)
            if not np.isfinite(value):
                return 1e30, np.zeros_like(flat)
            return float(value), np.asarray(gradient)

        mode = scipy.optimize.minimize(evaluate, start, jac=True, method="BFGS", options={"gtol": _MODE_GRADIENT}).x
        steps = _STEP * np.eye(mode.size)
        hessian = np.stack([(evaluate(mode + step)[1] - evaluate(mode - step)[1]) / (2 * _STEP) for step in steps])
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    # a direction that the data say nothing of is as wide as its prior, about 2 in unbounded coordinates
    return mode, (vectors / np.maximum(values, 0.25)) @ vectors.T


def _region(centre: np.ndarray, covariance: np.ndarray, size: float, model: MassModel) -> response.Region:
    """A ball of `size` posterior sigmas in unbounded theta, where no prior has an edge."""
    unlimited = np.full(centre.size, np.inf)
    return response.Region(
        centre=centre,
        whitening=np.linalg.inv(np.linalg.cholesky(covariance)),
        size=size,
        low=-unlimited,
        high=unlimited,
        allowed=lambda u: model.allowed(from_unbounded(u, model)),
    )


def _on_both_cores(description: str, unit: str) -> response.Map:
    """A parallel map with a progress bar; compiled code and BLAS leave Python's lock."""

    def parallel(function: Callable, points: Iterable) -> list[Any]:
        points = list(points)
        with ThreadPoolExecutor(2) as pool:
            return list(tqdm(pool.map(function, points), total=len(points), desc=description, unit=unit, disable=None))

    return parallel


class _Nuts(NamedTuple):
    """Settings of a NUTS run."""

    chains: int
    warmup: int
    draws: int
    seed: int
    progress: bool

    def run(
        self, potential: Callable[[Any], Any], centre: np.ndarray, covariance: np.ndarray
    ) -> tuple[np.ndarray, Any]:
        """Draws (chain, draw, parameter) and numpyro's fields, from starts and a metric of this mean and covariance."""
        kernel = NUTS(
            potential_fn=potential, inverse_mass_matrix=jnp.asarray(covariance), dense_mass=True, target_accept_prob=0.9
        )
        mcmc = MCMC(
            kernel,
            num_warmup=self.warmup,
            num_samples=self.draws,
            num_chains=self.chains,
            progress_bar=self.progress,
            chain_method="parallel" if jax.local_device_count() >= self.chains else "vectorized",
        )
        rng = np.random.default_rng([self.seed, 0x6E757473])
        spread = rng.standard_normal((self.chains, centre.size)) @ np.linalg.cholesky(covariance).T
        starts = jnp.asarray(centre + spread)
        key = jax.random.key(self.seed)
        mcmc.run(key, init_params=starts if self.chains > 1 else starts[0], extra_fields=tuple(_STATISTICS))
        return np.asarray(mcmc.get_samples(group_by_chain=True)), mcmc.get_extra_fields(group_by_chain=True)


# The sampler's matrices are small: BLAS threads would spend many times its work in waiting for one another.
@threadpool_limits.wrap(limits=1, user_api="blas")
def sample_posterior(
    data: Data,
    model: Model,
    kind: str = "hilbert",
    surface: bool = True,
    seed: int = 0,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 500,
    progress: bool = True,
) -> Posterior:
    """Sample `model` given `data` with NUTS; see `otibayes.sample` for the arguments.

    The maximum and its curvature give the metric. With `surface`, the statistic is expanded about the maximum; where
    draws leave the region it is placed anew, by the draws' own mean and covariance, and they are drawn again.
    """
    if surface and kind == "dense":
        raise InputError("the response surface carries the 'hilbert' statistic; use likelihood 'hilbert' or no surface")
    space, plain, nuts = _space(model, data, seed), Likelihood(data, kind), _Nuts(chains, warmup, draws, seed, progress)
    potential = _potential(model, plain, space)
    centre, covariance = _find_mode(potential, space.start)
    mode = centre
    report = None
    if not surface:
        flat, fields = nuts.run(potential, centre, covariance)
    else:
        exact = _Exact(model, data, kind, space)
        size = _SIGMAS
        for attempt in range(1, _ATTEMPTS + 1):
            block = covariance[np.ix_(space.theta, space.theta)]
            region = _region(centre[space.theta], block, size, data.model)
            expanded, held_out = _expand(exact, region, centre, seed)
            on_surface = _potential(model, Likelihood(data, kind, partial(_from_surface, expanded, data.model)), space)
            flat, fields = nuts.run(on_surface, centre, covariance)
            every = flat.reshape(-1, centre.size)
            farthest = float(jax.vmap(partial(response.radius, region))(every[:, space.theta]).max())
            if attempt == _ATTEMPTS or farthest < 1:
                break
            centre, covariance = every.mean(0), np.cov(every.T)
        report = _report(exact, on_surface, expanded, held_out, region, farthest, attempt, every, seed)
    values = jax.jit(jax.vmap(jax.vmap(space.constrain)))(flat)
    return Posterior(
        {name: np.asarray(value) for name, value in values.items()},
        {ours: np.asarray(fields[theirs]) for theirs, ours in _STATISTICS.items()},
        {name: np.asarray(value) for name, value in space.constrain(mode).items()},
        report,
    )


class _Exact:
    """The plain potential at single points, for nodes and checks: two small programs, whatever the number of points."""

    def __init__(self, model: Model, data: Data, kind: str, space: _Space) -> None:
        self.data, self._theta = data, space.theta
        self._gram = jax.jit(lambda x: statistic(data.basis, x, data.Y))
        self._potential = jax.jit(
            lambda flat, found: _potential(model, Likelihood(data, kind, lambda theta: (found, 0.0)), space)(flat)
        )

    def statistic(self, u: np.ndarray) -> Statistic:
        """Of the stars, at unbounded theta."""
        data = self.data
        x = inputs_at(from_unbounded(u, data.model), data.stars, data.delta, data.model)
        return jax.tree.map(np.asarray, self._gram(x))

    def potential(self, flat: np.ndarray, found: Statistic | None = None) -> float:
        """At a flat vector, from the stars or from a given statistic."""
        return float(self._potential(flat, self.statistic(flat[self._theta]) if found is None else found))

    def with_theta(self, flat: np.ndarray, u: np.ndarray) -> np.ndarray:
        """The flat vector with its theta replaced."""
        flat = flat.copy()
        flat[self._theta] = u
        return flat


def _expand(
    exact: _Exact, region: response.Region, centre: np.ndarray, seed: int
) -> tuple[response.Surface, np.ndarray]:
    """The surface of least degree whose held-out error in ln L is small; and that error at each held-out point."""
    for degree in _DEGREES:
        surface = response.expand(
            lambda u: _packed(exact.statistic(u)),
            region,
            degree=degree,
            seed=seed,
            map=_on_both_cores(f"surface, degree {degree}", "node"),
        )
        points = [exact.with_theta(centre, u) for u in surface.held_out.theta]
        approximate = jax.jit(lambda theta: _from_surface(surface, exact.data.model, theta))  # noqa: B023 (used here)
        found = [approximate(from_unbounded(u, exact.data.model))[0] for u in surface.held_out.theta]
        error = np.array([exact.potential(p) - exact.potential(p, f) for p, f in zip(points, found, strict=True)])
        if np.sqrt(np.mean(error**2)) < _HELD_OUT_MOST:
            break
    return surface, error


def _report(
    exact: _Exact,
    on_surface: Callable[[Any], Any],
    surface: response.Surface,
    held_out: np.ndarray,
    region: response.Region,
    farthest: float,
    attempts: int,
    draws: np.ndarray,
    seed: int,
) -> SurfaceReport:
    rng = np.random.default_rng([seed, 0x636865636B])
    checked = rng.choice(draws, min(_CHECKED, len(draws)), replace=False)
    approximate = jax.jit(on_surface)
    error = np.array(
        _on_both_cores("check", "draw")(lambda flat: exact.potential(flat) - float(approximate(flat)), checked)
    )
    error = error - error.mean()
    return SurfaceReport(
        degree=surface.degree,
        size=float(region.size),
        farthest=farthest * float(region.size),
        attempts=attempts,
        radius=surface.held_out.radius * float(region.size),
        held_out=held_out,
        posterior=error,
        khat=float(array_stats.psislw(-error)[1]),
    )


def _packed(found: Statistic) -> Statistic:
    """With the upper triangle of the Gram matrix only: a surface is read as fast as memory gives it."""
    return found._replace(gram=np.asarray(found.gram)[np.triu_indices(len(found.gram))])


def _from_surface(expanded: response.Surface, model: MassModel, theta: Any) -> tuple[Statistic, Any]:
    """The statistic of the surface, and what to add to ln L.

    Beyond the rim, where no draw should be, the statistic is that of the rim's nearest point and ln L falls as it does
    for the Gaussian whose sigmas are the region's unit: chains come back, and the report says how far they were.
    """
    u, region = to_unbounded(theta, model), expanded.region
    r = response.radius(region, u)
    inside = jnp.minimum(1.0, _WITHIN / jnp.maximum(r, 1e-9))
    extra = -0.5 * region.size**2 * (jnp.maximum(r, _WITHIN) ** 2 - _WITHIN**2)
    found = response.evaluate(expanded, region.centre + inside * (u - region.centre))
    size = found.projection.shape[0]
    place = np.zeros((size, size), int)
    place[np.triu_indices(size)] = np.arange(size * (size + 1) // 2)
    return found._replace(gram=found.gram[np.maximum(place, place.T)]), extra
