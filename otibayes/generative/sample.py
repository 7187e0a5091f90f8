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
from ..dynamics import MassModel
from ..errors import InputError
from ..parallel import Map
from .basis import Basis
from .checkpoint import FORGETFUL, Checkpoint
from .data import Calls, Data, corners, from_unbounded
from .density import variance_ratio
from .expansion import (
    Exact,
    SurfaceReport,
    expand_statistic,
    expand_well,
    from_surface,
    leaned,
    passes,
    region_about,
    report,
)
from .likelihood import Likelihood
from .nuts import Settings, sample_nuts
from .passes import moments_at
from .statistic import Statistic, condensed

__all__ = ["Posterior", "check_surface", "from_stars", "sample_posterior"]

_SIGMAS = 6.0  # radius of the surface's region
_DEGREES = (4, 5, 6)
_PRIOR_DRAWS = 200  # of the model's hyperparameters, for which the first basis is made
_BASIS_THETAS = 8  # at which stars show which combinations of the basis matter
_FEW = 4000  # stars by which the maximum is first found, ...
_FEW_COSINES = 256  # ... with so many cosines
_WIDER = 1.5  # than the curvature at the maximum says, hyperparameters may be
_ATTEMPTS = 3  # at placing the region
_CHECKED = 32  # draws of the run before, at which the surface's degree is chosen
_PILOT = Settings(chains=4, warmup=100, draws=100)
_STEP = 1e-3  # of central differences of the gradient, in unbounded coordinates
_MODE_GRADIENT = 1e-2

Model = Callable[[Likelihood], None]
_Source = Callable[[np.ndarray], Statistic]


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
    statistic: _Source


class _Space(NamedTuple):
    """The unbounded parameters of a model as one flat vector (P,), sites in the order of their names."""

    start: np.ndarray
    unravel: Callable[[Any], Any]
    constrain: Callable[[Any], Any]
    theta: np.ndarray  # where the mass model's parameters are, in the order of their table

    def parameters(self, flat: Any, model: MassModel) -> Any:
        """theta (d,) in a flat vector."""
        return jnp.stack([*from_unbounded(flat[self.theta], model)])


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
        self.called.append((jnp.broadcast_to(lengths, (3,)), variance_ratio(amplitude, scatter_cholesky)))
        return 0.0


def _calls(model: Model, data: Data, space: _Space, draws: np.ndarray) -> Calls:
    """What a model calls its likelihood with, at flat vectors (S, P)."""
    kernels: list[str] = []

    def called(flat: Any) -> Any:
        probe = _Probe(data, "none")
        _potential(model, probe, space)(flat)
        if not probe.called:
            raise InputError("the model never calls its likelihood, so that the abundances tell it nothing")
        kernels[:] = probe.kernels
        return jax.tree.map(lambda *values: jnp.stack(values), *probe.called)

    one = jax.jit(called)
    several = [one(flat) for flat in draws]
    lengths, variance = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    return Calls(tuple(kernels), lengths, variance)


def _find_mode(slope: Callable[[Any], Any], start: np.ndarray, covariance: np.ndarray | None = None) -> np.ndarray:
    """The maximum of the density in unbounded coordinates.

    `slope(flat)` is the potential and its gradient; `covariance`, if there is a guess, whitens the way.
    """
    scale = np.eye(start.size) if covariance is None else np.linalg.cholesky(covariance)
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


def _covariance(slope: Callable[[Any], Any], mode: np.ndarray) -> np.ndarray:
    """From the curvature at the mode, in unbounded coordinates."""
    steps = _STEP * np.eye(mode.size)
    points = [mode + sign * step for step in steps for sign in (1, -1)]
    slopes = np.array(
        [np.asarray(slope(point)[1]) for point in tqdm(points, "curvature", unit="gradient", disable=None)]
    )
    hessian = (slopes[::2] - slopes[1::2]) / (2 * _STEP)
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
    map: Map | None = None,
) -> Posterior:
    """Sample `model` given `data` with NUTS; see `otibayes.sample` for the arguments.

    The maximum and its curvature give the first metric. With `surface`, they are found on few of the stars first; there
    the statistic of "hilbert" is expanded for all stars, whose maximum places the next region, and a short pilot run
    the last one, which is placed anew, by the draws, should any leave it. The curvature also tells which length scales
    and amplitudes the basis must serve; before, the prior does. `map` does passes over the stars elsewhere.

    What the `checkpoint` has is not computed again. Interrupted (Ctrl-C) once there are draws to keep, it returns
    those, incomplete and without a report; before, it raises `KeyboardInterrupt`.
    """
    check_surface(kind, surface)
    few = data.some(_FEW, settings.seed) if surface else data
    space = _space(model, few)
    rng = np.random.default_rng([settings.seed, 0x6472617773])
    start, width = _prior(model, few, space)
    calls = _calls(model, few, space, rng.multivariate_normal(start, width, _PRIOR_DRAWS))
    wide = rng.permutation(np.array(corners(data.model)))[:_BASIS_THETAS]
    size = _FEW_COSINES if surface and basis_size is None else basis_size
    few = _with_bases(checkpoint, "prior", few, calls, wide, size, None)
    potential = _potential(model, Likelihood(few, kind), space)

    def maximum() -> tuple[np.ndarray, np.ndarray]:
        dense = jax.jit(jax.value_and_grad(potential))
        slope = _exact(few, model, space).slope if kind == "hilbert" else dense
        mode = _find_mode(slope, start, width)
        return mode, _covariance(slope, mode)

    mode, covariance = checkpoint.keep("maximum", maximum, (0, 0))
    about = None
    if surface:
        data, found, mode, flat, statistics, about = _on_surface(
            data, model, space, mode, covariance, len(few) < len(data), basis_size, settings, checkpoint, map
        )
    else:
        data, found = few, from_stars(few)
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


def _prior(model: Model, data: Data, space: _Space) -> tuple[np.ndarray, np.ndarray]:
    """Where hyperparameters are likeliest before any star is seen, the fiducial theta, and the prior's covariance."""
    slope = jax.jit(jax.value_and_grad(_potential(model, Likelihood(data, "none"), space)))
    mode = _find_mode(slope, space.start)
    covariance = _covariance(slope, mode)
    mode[space.theta] = space.start[space.theta]
    return mode, covariance


def _exact(data: Data, model: Model, space: _Space, map: Map | None = None) -> Exact:
    def given(data: Data) -> Callable[[Any, Any], Any]:
        def potential(flat: Any, found: Any) -> Any:
            return _potential(model, Likelihood(data, source=lambda theta: (found, 0.0)), space)(flat)

        return potential

    return Exact(data, given(data), given(replace(data, basis=data.finer)), space.theta, map)


def _metric(draws: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The draws' (S, P) covariance, drawn to one from a curvature by as much as so few draws cannot tell."""
    root = np.linalg.cholesky(covariance)
    number, size = draws.shape
    seen = np.cov(scipy.linalg.solve_triangular(root, (draws - draws.mean(0)).T, lower=True))
    return root @ (number * seen + 2 * size * np.eye(size)) @ root.T / (number + 2 * size)


def from_stars(data: Data) -> _Source:
    """The statistic as a function of theta, by a pass over the stars."""
    condense = jax.jit(lambda found: condensed(data.basis, found, len(data.elements)))
    degrees = tuple(int(d) for d in data.basis.degrees.max(0))
    return lambda theta: condense(moments_at(data, theta, degrees=degrees))


def _with_bases(
    checkpoint: Checkpoint, name: str, data: Data, calls: Calls, thetas: np.ndarray, size: int | None, map: Map | None
) -> Data:
    """`Data.resolving` through the checkpoint: another number of cores could turn a basis' vectors about."""
    data = data.on_box(calls, size)

    def bases() -> tuple[Basis, Basis]:
        degrees = tuple(int(d) for d in data.finer.degrees.max(0))
        found = passes(map, data, degrees)(partial(moments_at, data, degrees=degrees), list(thetas))
        resolved = data.resolving(calls, found)
        return resolved.basis, resolved.finer

    like = Basis._make([np.empty(0)] * len(Basis._fields))
    basis, finer = checkpoint.keep(f"basis-{name}", bases, (like, like))
    return replace(data, basis=basis, finer=finer)


class _Expanding:
    """A model's density on one basis, where the statistic of the stars comes from a surface."""

    def __init__(self, data: Data, model: Model, space: _Space, map: Map | None) -> None:
        self.data, self.exact = data, _exact(data, model, space, map)

        def potential(flat: Any, lean: response.Surface) -> Any:
            return _potential(model, Likelihood(data, source=partial(from_surface, lean)), space)(flat)

        self.potential, self.value = potential, jax.jit(potential)
        self.slope = jax.jit(lambda lean, flat: jax.value_and_grad(potential)(flat, lean))
        self.read = jax.jit(lambda lean, theta: from_surface(lean, theta)[0])

    def region(self, draws: np.ndarray) -> response.Region:
        """Six sigmas of draws (S, P) about their mean."""
        theta = self.exact.theta(draws)
        return region_about(theta.mean(0), np.cov(theta.T), _SIGMAS, self.data.model)


def _on_surface(
    data: Data,
    model: Model,
    space: _Space,
    centre: np.ndarray,
    covariance: np.ndarray,
    again: bool,
    basis_size: int | None,
    settings: Settings,
    checkpoint: Checkpoint,
    map: Map | None,
) -> tuple[Data, _Source, np.ndarray, np.ndarray, dict[str, np.ndarray], SurfaceReport | None]:
    rng = np.random.default_rng([settings.seed, 0x666577])

    def resolving(name: str, draws: np.ndarray, size: int | None) -> _Expanding:
        calls = _calls(model, data, space, draws)
        thetas = np.asarray(jax.vmap(partial(space.parameters, model=data.model))(draws[:_BASIS_THETAS]))
        return _Expanding(_with_bases(checkpoint, name, data, calls, thetas, size, map), model, space, map)

    for degree in (_DEGREES[0] - 1, _DEGREES[0]) if again else _DEGREES[:1]:
        wider = rng.multivariate_normal(centre, _WIDER**2 * covariance, _PRIOR_DRAWS)
        on = resolving(f"degree-{degree}", wider, basis_size)
        region = on.region(rng.multivariate_normal(centre, covariance, 1000))
        surface = expand_statistic(on.exact, region, degree, settings.seed)
        lean = leaned(surface)
        if again:  # few stars tell the maximum of all to within their own errors
            slope = partial(on.slope, lean)
            centre = _find_mode(slope, centre, covariance)
            covariance = _covariance(slope, centre)
    # of the run's warm-up, so that both share their compiled program
    mode, pilot = centre, _PILOT._replace(seed=settings.seed, warmup=settings.warmup)
    flat, _ = sample_nuts(on.potential, lean, centre, covariance, pilot, "NUTS, pilot", checkpoint, adapt=False)
    if flat.shape[1] < pilot.draws:
        raise KeyboardInterrupt
    draws = flat.reshape(-1, centre.size)
    reuse: response.Surface | None = surface
    for attempt in range(1, _ATTEMPTS + 1):
        metric = _metric(draws, covariance)
        some = rng.choice(draws, _CHECKED, replace=False)
        surface, held_out = expand_well(on.exact, on.region(draws), some, _DEGREES, settings.seed, reuse)
        lean = leaned(surface)
        found = partial(on.read, lean)
        name = f"NUTS, attempt {attempt}" if attempt > 1 else "NUTS"
        run = (settings, name, checkpoint)
        flat, statistics = sample_nuts(on.potential, lean, draws.mean(0), metric, *run, adapt=False)
        if flat.shape[1] < settings.draws:
            return on.data, found, mode, flat, statistics, None
        draws, reuse = flat.reshape(-1, centre.size), surface
        about = report(on.exact, partial(on.value, lean=lean), surface, held_out, attempt, draws, settings.seed)
        resolved = basis_size is not None or about.resolved
        if about.trusted and resolved:
            return on.data, found, mode, flat, statistics, about
        if not resolved and attempt < _ATTEMPTS:
            wider = draws.mean(0) + _WIDER * (rng.choice(draws, _PRIOR_DRAWS, replace=False) - draws.mean(0))
            on, reuse = resolving(f"attempt-{attempt}", wider, 2 * about.basis_size), None
    if about.trusted:
        raise InputError(
            f"{about.basis_size} basis functions do not resolve the field after {_ATTEMPTS} attempts: twice as many"
            f" would move a mean by {about.basis_shift:.2f} sigma; give more (--basis-size)"
        )
    raise InputError(
        f"the response surface cannot be trusted after {_ATTEMPTS} attempts: draws go to {about.farthest:.1f} of"
        f" {about.size:.1f} sigma, Pareto k is {about.khat:.2f}, and its error would move a mean by {about.shift:.2f}"
        " sigma; sample with surface=False (--no-surface)"
    )
