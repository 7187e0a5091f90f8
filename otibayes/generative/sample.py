"""Sampling a model: find the maximum, whiten by the curvature there, expand the response surface, sample, check."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer import init_to_feasible
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from tqdm.auto import tqdm

from .. import surface as response
from ..errors import InputError
from .basis import Basis
from .checkpoint import FORGETFUL, Checkpoint
from .data import Calls, Data, corners
from .expansion import Exact, SurfaceReport, expand_statistic, from_surface, region_about, report
from .likelihood import Likelihood, Statistic, variance_ratio
from .nuts import Settings, sample_nuts

__all__ = ["Posterior", "check_surface", "sample_posterior"]

_SIGMAS = 6.0  # radius of the surface's region
_DEGREES = (4, 5, 6)
_PRIOR_DRAWS = 200  # of the model's hyperparameters, for which the first basis is made
_BASIS_THETAS = 8  # of the pilot's, at which stars show which combinations of the basis matter
_ATTEMPTS = 3  # at placing the region
_CHECKED = 32  # draws of the run before, at which the surface's degree is chosen
_PILOT = Settings(chains=4, warmup=100, draws=100)
_STEP = 1e-3  # of central differences of the gradient, in unbounded coordinates
_MODE_GRADIENT = 1e-2

Model = Callable[[Likelihood], None]


class Posterior(NamedTuple):
    """Draws (chain, draw, ...) of every site, sampler statistics (chain, draw), the mode, the surface's report, whether
    all draws asked for are there, the data with the basis that was used, and the statistic of "hilbert" as a function
    of theta (d,), from the surface where there is one."""

    draws: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    mode: dict[str, np.ndarray]
    report: SurfaceReport | None
    complete: bool
    data: Data
    statistic: Callable[[np.ndarray], Statistic]


class _Space(NamedTuple):
    """The unbounded parameters of a model as one flat vector (P,), sites in the order of their names."""

    start: np.ndarray
    unravel: Callable[[Any], Any]
    constrain: Callable[[Any], Any]
    theta: np.ndarray  # where the mass model's parameters are, in the order of their table


def _space(model: Model, data: Data) -> _Space:
    """From the fiducial mass model, and hyperparameters in the middle of their ranges."""
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

    return _Space(np.asarray(flat), unravel, jax.jit(constrain), np.array([int(places[p.name]) for p in table]))


def _potential(model: Model, likelihood: Likelihood, space: _Space) -> Callable[[Any], Any]:
    """-ln(prior x likelihood) of the flat vector, with the Jacobian of the transformation."""
    return lambda flat: potential_energy(model, (likelihood,), {}, space.unravel(flat))


@dataclass(frozen=True, eq=False)
class _Probe(Likelihood):
    """A likelihood that keeps what it is called with."""

    kernels: list[str] = field(default_factory=list)
    called: list[tuple[Any, Any]] = field(default_factory=list)

    def __call__(self, theta: Any, kernel: str, lengths: Any, amplitude: Any, scatter_cholesky: Any) -> Any:
        self.kernels.append(kernel)
        self.called.append((jnp.broadcast_to(lengths, (3,)), variance_ratio(amplitude, scatter_cholesky).max()))
        return 0.0


def _calls(run: Callable[[_Probe, Any], Any], data: Data, draws: Any) -> Calls:
    """What a model calls its likelihood with, over draws: `run(probe, draw)` runs the model once."""
    kernels: list[str] = []

    def called(draw: Any) -> Any:
        probe = _Probe(data, "none")
        run(probe, draw)
        if not probe.called:
            raise InputError("the model never calls its likelihood, so that the abundances tell it nothing")
        kernels[:] = probe.kernels
        return jax.tree.map(lambda *values: jnp.stack(values), *probe.called)

    lengths, variance = jax.tree.map(np.asarray, jax.jit(jax.vmap(called))(draws))
    return Calls(tuple(kernels), lengths, variance)


def _find_mode(potential: Callable[[Any], Any], start: np.ndarray) -> tuple[np.ndarray, Callable[[Any], Any]]:
    """The maximum of the density in unbounded coordinates, and the compiled gradient of the potential."""
    value_and_grad = jax.jit(jax.value_and_grad(potential))
    with tqdm(desc="maximum", unit="gradient", disable=None) as bar:

        def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
            bar.update()
            value, gradient = value_and_grad(flat)
            if not np.isfinite(value):
                return 1e30, np.zeros_like(flat)
            return float(value), np.asarray(gradient)

        mode, gtol = start, {"gtol": _MODE_GRADIENT}
        for method in ("BFGS", "L-BFGS-B", "BFGS"):  # the first is quick; a wall of the prior can stop it short
            mode = scipy.optimize.minimize(evaluate, mode, jac=True, method=method, options=gtol).x
            if np.abs(evaluate(mode)[1]).max() < 10 * _MODE_GRADIENT:
                break
    return mode, lambda flat: evaluate(flat)[1]


def _covariance(gradient: Callable[[Any], Any], mode: np.ndarray) -> np.ndarray:
    """From the curvature at the mode, in unbounded coordinates."""
    steps = _STEP * np.eye(mode.size)
    hessian = np.stack([(gradient(mode + step) - gradient(mode - step)) / (2 * _STEP) for step in steps])
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    # a direction that the data say nothing of is as wide as its prior, about 2 in unbounded coordinates
    return (vectors / np.maximum(values, 0.25)) @ vectors.T


def check_surface(kind: str, surface: bool) -> None:
    """Raises `InputError` for a surface of another likelihood than "hilbert"."""
    if surface and kind != "hilbert":
        raise InputError(
            f"the response surface carries the 'hilbert' statistic; with likelihood {kind!r} give surface=False"
            " (--no-surface)"
        )


def sample_posterior(
    data: Data,
    model: Model,
    kind: str = "hilbert",
    surface: bool = True,
    basis_size: int | None = None,
    settings: Settings = Settings(),  # noqa: B008
    checkpoint: Checkpoint = FORGETFUL,
) -> Posterior:
    """Sample `model` given `data` with NUTS; see `otibayes.sample` for the arguments.

    The maximum and its curvature give the first metric. With `surface`, the statistic of "hilbert" is expanded in a
    region that a short pilot run places, and that is placed anew, by the draws, should any leave it. The pilot also
    tells which length scales and amplitudes the basis must serve; before, the prior does.

    What the `checkpoint` has is not computed again. Interrupted (Ctrl-C) once there are draws to keep, it returns
    those, incomplete and without a report; before, it raises `KeyboardInterrupt`.
    """
    check_surface(kind, surface)
    keys = jax.random.split(jax.random.key(settings.seed), _PRIOR_DRAWS)
    calls = _calls(lambda probe, key: handlers.seed(model, key)(probe), data, keys)
    data = _kept_basis(checkpoint, "prior", data, calls, np.array(corners(data.model)), basis_size)
    space = _space(model, data)
    potential = _potential(model, Likelihood(data, kind), space)

    def maximum() -> tuple[np.ndarray, np.ndarray]:
        mode, gradient = _find_mode(potential, space.start)
        return mode, _covariance(gradient, mode)

    mode, covariance = checkpoint.keep("maximum", maximum, (0, 0))
    about = None
    if surface:
        data, found, flat, statistics, about = _on_surface(
            data, model, space, mode, covariance, basis_size, settings, checkpoint
        )
    else:
        found = Exact(data, lambda flat, _: potential(flat), space.theta).statistic
        flat, statistics = sample_nuts(
            lambda flat, _: potential(flat), None, mode, covariance, settings, checkpoint=checkpoint
        )
    values = jax.jit(jax.vmap(jax.vmap(space.constrain)))(flat)
    return Posterior(
        {name: np.asarray(value) for name, value in values.items()},
        statistics,
        {name: np.asarray(value) for name, value in space.constrain(mode).items()},
        about,
        flat.shape[1] == settings.draws,
        data,
        found,
    )


def _kept_basis(
    checkpoint: Checkpoint, name: str, data: Data, calls: Calls, thetas: np.ndarray, size: int | None
) -> Data:
    """`Data.resolving` through the checkpoint: another number of cores could turn a basis' vectors about."""
    like = Basis._make([np.empty(0)] * len(Basis._fields))
    basis = checkpoint.keep(f"basis-{name}", lambda: data.resolving(calls, thetas, size).basis, like)
    return replace(data, basis=basis)


def _on_surface(
    data: Data,
    model: Model,
    space: _Space,
    centre: np.ndarray,
    covariance: np.ndarray,
    basis_size: int | None,
    settings: Settings,
    checkpoint: Checkpoint,
) -> tuple[Data, Callable[[np.ndarray], Statistic], np.ndarray, dict[str, np.ndarray], SurfaceReport | None]:
    def on_source(data: Data, source: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return _potential(model, Likelihood(data, source=source), space)

    def approximately(data: Data) -> Callable[[Any, response.Surface], Any]:
        return lambda flat, expanded: on_source(data, partial(from_surface, expanded))(flat)

    def exactly(data: Data) -> Exact:
        return Exact(data, lambda flat, found: on_source(data, lambda theta: (found, 0.0))(flat), space.theta)

    rng = np.random.default_rng([settings.seed, 0x6472617773])

    def expanded_about(exact: Exact, draws: np.ndarray, degrees: tuple[int, ...]) -> tuple[response.Surface, Any]:
        theta = exact.theta(draws)
        region = region_about(theta.mean(0), np.cov(theta.T), _SIGMAS, data.model)
        return expand_statistic(exact, region, rng.choice(draws, _CHECKED, replace=False), degrees, settings.seed)

    every = rng.multivariate_normal(centre, covariance, 1000)
    exact = exactly(data)
    expanded, _ = expanded_about(exact, every, _DEGREES[:1])
    pilot = _PILOT._replace(seed=settings.seed)
    flat, _ = sample_nuts(approximately(data), expanded.lean(), centre, covariance, pilot, "NUTS, pilot", checkpoint)
    if flat.shape[1] < pilot.draws:
        raise KeyboardInterrupt

    every = flat.reshape(-1, centre.size)
    calls = _calls(lambda probe, flat: _potential(model, probe, space)(flat), data, every)
    thetas = rng.choice(exact.theta(every), _BASIS_THETAS, replace=False)
    data = _kept_basis(checkpoint, "pilot", data, calls, thetas, basis_size)
    exact, finer, approximate = exactly(data), exactly(data.finer(calls, thetas)), approximately(data)
    on_surface, read_surface = jax.jit(approximate), jax.jit(lambda expanded, theta: from_surface(expanded, theta)[0])
    for attempt in range(1, _ATTEMPTS + 1):
        centre, covariance = every.mean(0), np.cov(every.T)
        expanded, held_out = expanded_about(exact, every, _DEGREES)
        lean = expanded.lean()
        found = partial(read_surface, lean)
        name = f"NUTS, attempt {attempt}" if attempt > 1 else "NUTS"
        flat, statistics = sample_nuts(approximate, lean, centre, covariance, settings, name, checkpoint)
        if flat.shape[1] < settings.draws:
            return data, found, flat, statistics, None
        every = flat.reshape(-1, centre.size)
        read = partial(on_surface, expanded=lean)
        about = report(exact, finer, read, expanded, held_out, attempt, every, settings.seed)
        if about.trusted:
            return data, found, flat, statistics, about
    raise InputError(
        f"the response surface cannot be trusted after {_ATTEMPTS} attempts: draws go to {about.farthest:.1f} of"
        f" {about.size:.1f} sigma, Pareto k is {about.khat:.2f}, and its error would move a mean by {about.shift:.2f}"
        " sigma; sample with surface=False (--no-surface)"
    )
