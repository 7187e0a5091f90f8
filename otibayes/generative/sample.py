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
from tqdm.auto import tqdm

from .. import surface as response
from ..dynamics import MassModel
from ..errors import InputError
from .data import Data, from_unbounded, inputs_at, to_unbounded
from .likelihood import Likelihood, Statistic, statistic

__all__ = ["Posterior", "SurfaceReport", "sample_posterior"]

_SIGMAS = 6.0  # radius of the surface's region
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

    `held_out` and `radius` (H,): error at points that were not fitted, for the mode's hyperparameters, and their distance
    from the centre in posterior sigmas; `posterior` (S,): error at posterior draws, less its mean; `khat`: Pareto k of
    the importance weights that would correct the draws.
    """

    degree: int
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


def _region(mode: np.ndarray, covariance: np.ndarray, model: MassModel) -> response.Region:
    """A ball of posterior sigmas in unbounded theta, where no prior has an edge."""
    unlimited = np.full(mode.size, np.inf)
    return response.Region(
        centre=mode,
        whitening=np.linalg.inv(np.linalg.cholesky(covariance)),
        size=_SIGMAS,
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


def sample_posterior(
    data: Data,
    model: Model,
    kind: str = "hilbert",
    surface: bool = True,
    seed: int = 0,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 500,
    degree: int = 4,
    progress: bool = True,
) -> Posterior:
    """Sample `model` given `data`; see `otibayes.sample` for the arguments."""
    if surface and kind == "dense":
        raise InputError("the response surface carries the 'hilbert' statistic; use likelihood 'hilbert' or no surface")
    space, plain = _space(model, data, seed), Likelihood(data, kind)
    potential = _potential(model, plain, space)
    mode, covariance = _find_mode(potential, space.start)

    gram = jax.jit(lambda x: statistic(data.basis, x, data.Y))

    def statistic_at(u: np.ndarray) -> Statistic:
        x = inputs_at(from_unbounded(u, data.model), data.stars, data.delta, data.model)
        return jax.tree.map(np.asarray, gram(x))

    if surface:
        region = _region(mode[space.theta], covariance[np.ix_(space.theta, space.theta)], data.model)
        expanded = response.expand(
            statistic_at, region, degree=degree, seed=seed, map=_on_both_cores("surface", "node")
        )
        source = partial(_from_surface, expanded, data.model)
        potential = _potential(model, Likelihood(data, kind, source), space)

    kernel = NUTS(
        potential_fn=potential, inverse_mass_matrix=jnp.asarray(covariance), dense_mass=True, target_accept_prob=0.9
    )
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws,
        num_chains=chains,
        progress_bar=progress,
        chain_method="vectorized",
    )
    rng = np.random.default_rng([seed, 0x6E757473])
    starts = mode + rng.standard_normal((chains, mode.size)) @ np.linalg.cholesky(covariance).T
    mcmc.run(jax.random.key(seed), init_params=jnp.asarray(starts), extra_fields=tuple(_STATISTICS))
    flat = np.asarray(mcmc.get_samples(group_by_chain=True))
    values = jax.jit(jax.vmap(jax.vmap(space.constrain)))(flat)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    report = None
    if surface:
        plain_at = jax.jit(
            lambda flat, found: potential_energy(
                model, (Likelihood(data, kind, lambda theta: found),), {}, space.unravel(flat)
            )
        )
        approximate = jax.jit(potential)

        def error(flat: np.ndarray) -> float:
            return float(plain_at(flat, statistic_at(flat[space.theta])) - approximate(flat))

        held = np.repeat(mode[None], len(expanded.held_out.theta), axis=0)
        held[:, space.theta] = expanded.held_out.theta
        checked = rng.choice(flat.reshape(-1, mode.size), min(_CHECKED, flat[..., 0].size), replace=False)
        errors = np.array(_on_both_cores("check", "draw")(error, [*held, *checked]))
        at_draws = errors[len(held) :] - errors[len(held) :].mean()
        khat = float(array_stats.psislw(-at_draws)[1])
        report = SurfaceReport(degree, _SIGMAS * expanded.held_out.radius, errors[: len(held)], at_draws, khat)
    return Posterior(
        {name: np.asarray(value) for name, value in values.items()},
        {ours: np.asarray(fields[theirs]) for theirs, ours in _STATISTICS.items()},
        {name: np.asarray(value) for name, value in space.constrain(mode).items()},
        report,
    )


def _from_surface(expanded: response.Surface, model: MassModel, theta: Any) -> Statistic:
    return response.evaluate(expanded, to_unbounded(theta, model))
