"""Sampling a model: find the maximum, whiten by the curvature there, expand the response surface, sample, check."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg

from ..base import surface as response
from ..base.errors import InputError
from ..base.parallel import Map
from ..dynamics import prior_grid
from .checkpoint import FORGETFUL, Checkpoint
from .data import Data
from .likelihood import Likelihood
from .nuts import Settings, sample_nuts
from .statistic import Statistic, condensed
from .sums import moments_at
from .surface import SurfaceReport, expand_statistic, expand_well, from_surface, leaned, region_about, report
from .unconstrained import BASIS_THETAS, Model, Space, peak, space_of

__all__ = ["Posterior", "check_surface", "from_stars", "sample_posterior"]

_SIGMAS = 6.0  # radius of the surface's region
_DEGREES = (4, 5, 6)
_PRIOR_DRAWS = 200  # of the model's hyperparameters, for which the first basis is made
_FEW = 4000  # stars by which the maximum is first found, ...
_FEW_COSINES = 256  # ... with so many cosines
_RUNG = 16  # times as many stars may follow: sigmas four times smaller, of which a first surface still knows enough
_WIDER = 1.5  # than the curvature at the maximum says, hyperparameters may be
_ATTEMPTS = 3  # at placing the region
_CHECKED = 32  # draws of the run before, at which the surface's degree is chosen
_PILOT = Settings(chains=4, warmup=100, draws=100)

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

    The maximum and its curvature give the first metric. With `surface`, they are found on few of the stars first, then
    on more; there the statistic of "hilbert" is expanded for all stars, whose maximum places the next region, and a
    short pilot run the last one, which is placed anew, by the draws, should any leave it. The curvature also tells
    which length scales and amplitudes the basis must serve; before, the prior does. `map` does passes over the stars
    elsewhere.

    What the `checkpoint` has is not computed again. Interrupted (Ctrl-C) once there are draws to keep, it returns
    those, incomplete and without a report; before, it raises `KeyboardInterrupt`.
    """
    check_surface(kind, surface)
    run = _Run(space_of(model, data), settings, checkpoint, map)
    space, rng = run.space, np.random.default_rng([settings.seed, 0x6472617773])
    mode, covariance = space.prior(data)
    draws = rng.multivariate_normal(mode, covariance, _PRIOR_DRAWS)
    thetas: np.ndarray | None = rng.permutation(np.array(prior_grid(data.model)))[:BASIS_THETAS]
    size = _FEW_COSINES if surface and basis_size is None else basis_size
    for number in _rungs(len(data)) if surface else [len(data)]:
        few = run.resolving(f"{number}-stars", data.some(number, settings.seed), draws, thetas=thetas, size=size)
        potential = space.potential(Likelihood(few, kind))
        slope = space.exact(few).slope if kind == "hilbert" else jax.jit(jax.value_and_grad(potential))
        mode, covariance = checkpoint.keep(f"maximum-{number}-stars", partial(peak, slope, mode, covariance), (0, 0))
        draws = rng.multivariate_normal(mode, _WIDER**2 * covariance, _PRIOR_DRAWS)
        thetas, size = None, basis_size
    about = None
    if surface:
        data, found, mode, flat, statistics, about = _on_surface(
            run, data, mode, covariance, len(few) < len(data), basis_size
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


class _Run(NamedTuple):
    """What is the same all along a run."""

    space: Space
    settings: Settings
    checkpoint: Checkpoint = FORGETFUL
    map: Map | None = None

    def resolving(self, name: str, data: Data, draws: np.ndarray, **given: Any) -> Data:
        """`Space.resolving`, kept under a name."""
        return self.space.resolving(data, draws, **given, map=self.map, checkpoint=self.checkpoint, name=name)


def _rungs(stars: int) -> Iterator[int]:
    """By how many stars the maximum is found before all are used."""
    number = min(_FEW, stars)
    yield number
    while number * _RUNG < stars:
        number *= _RUNG
        yield number


class _Expanding:
    """A model's density on one basis, where the statistic of the stars comes from a surface."""

    def __init__(self, run: _Run, data: Data) -> None:
        self.data, self.exact = data, run.space.exact(data, run.map)

        def potential(flat: Any, lean: response.Surface) -> Any:
            return run.space.potential(Likelihood(data, source=partial(from_surface, lean)))(flat)

        self.potential, self.value = potential, jax.jit(potential)
        self.slope = jax.jit(lambda lean, flat: jax.value_and_grad(potential)(flat, lean))
        self.read = jax.jit(lambda lean, theta: from_surface(lean, theta)[0])

    def region(self, draws: np.ndarray) -> response.Region:
        """Six sigmas of draws (S, P) about their mean."""
        theta = self.exact.theta(draws)
        return region_about(theta.mean(0), np.cov(theta.T), _SIGMAS, self.data.model)


def _on_surface(
    run: _Run, data: Data, mode: np.ndarray, covariance: np.ndarray, again: bool, basis_size: int | None
) -> tuple[Data, _Source, np.ndarray, np.ndarray, dict[str, np.ndarray], SurfaceReport | None]:
    settings, checkpoint = run.settings, run.checkpoint
    rng = np.random.default_rng([settings.seed, 0x666577])

    def resolving(name: str, draws: np.ndarray, size: int | None) -> _Expanding:
        return _Expanding(run, run.resolving(name, data, draws, size=size))

    for degree in (_DEGREES[0] - 1, _DEGREES[0]) if again else _DEGREES[:1]:
        wider = rng.multivariate_normal(mode, _WIDER**2 * covariance, _PRIOR_DRAWS)
        on = resolving(f"degree-{degree}", wider, basis_size)
        region = on.region(rng.multivariate_normal(mode, covariance, 1000))
        surface = expand_statistic(on.exact, region, degree, settings.seed)
        lean = leaned(surface)
        if again:  # few stars tell the maximum of all to within their own errors
            mode, covariance = peak(partial(on.slope, lean), mode, covariance)
    # of the run's warm-up, so that both share their compiled program
    pilot = _PILOT._replace(seed=settings.seed, warmup=settings.warmup)
    flat, _ = sample_nuts(on.potential, lean, mode, covariance, pilot, "NUTS, pilot", checkpoint, adapt=False)
    if flat.shape[1] < pilot.draws:
        raise KeyboardInterrupt
    draws = flat.reshape(-1, mode.size)
    reuse: response.Surface | None = surface
    for attempt in range(1, _ATTEMPTS + 1):
        metric = _metric(draws, covariance)
        some = rng.choice(draws, _CHECKED, replace=False)
        surface, held_out = expand_well(on.exact, on.region(draws), some, _DEGREES, settings.seed, reuse)
        lean = leaned(surface)
        found = partial(on.read, lean)
        name = f"NUTS, attempt {attempt}" if attempt > 1 else "NUTS"
        flat, statistics = sample_nuts(
            on.potential, lean, draws.mean(0), metric, settings, name, checkpoint, adapt=False
        )
        if flat.shape[1] < settings.draws:
            return on.data, found, mode, flat, statistics, None
        draws, reuse = flat.reshape(-1, mode.size), surface
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
