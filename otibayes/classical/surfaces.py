"""Equation 8 and chi^2 minimised on response surfaces of the coefficients.

A pilot surface about the paper's start serves all elements. Where optima leave it, a surface over the prior takes its
place. Passes over the stars at optima then measure how well the surfaces stand for the plain coefficients, and an
element whose error is too large gets a better surface: first one that is fitted to these passes too, then one over a
region of its own. One pass over the stars serves all elements and resamples, and every surface in whose region it lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from ..base.parameters import Parameter
from ..base.response_surface import (
    Evaluations,
    Region,
    Surface,
    contains,
    distance,
    draw,
    evaluate,
    reader,
)
from ..base.store import Store
from . import chi2
from .objective import Minimum, scales
from .statistic import Coefficients, Statistic

__all__ = ["SurfaceFit", "SurfaceReport", "jacobian", "optimise_on_surfaces", "passes_of", "pilot_ball"]

PILOT = 3.0  # radius of the pilot's ball in `scales`: 0.42 in m_disk, 0.285 kpc, 60 pc, 4.5 km/s
WIDE = 6.0  # radius of the ball about the middle of the prior, whose half-width is 5
DEGREE = 3
OVERSAMPLING = 1.4  # passes over polynomials
EDGE = 0.97  # an optimum further out, in units of the region's size, is on its edge
_ROUNDS = 3  # in which surfaces that are not accepted are made better
CHI2_STARTS = 8  # of the minimum of chi^2 on all stars
_MARGIN = 1.2  # of a region beyond its outermost optimum
_ROOM = 0.15  # of a region in every direction at least, in `scales`


class SurfaceReport(NamedTuple):
    """Errors of the surfaces: plain less surface coefficients (a1, b1, a2) at optima, in units of their bootstrap sd.

    `pairs` (P, 2): random (element, resample); `pair_error` (P, 3) at their optima; `rms` and `worst` (E,) over an
    element's pairs. `refined` (E,): the first surface was not accepted, and one over a region of the element's own took
    its place; `outermost` (E,) optimum, in units of its region's size: above 0.97 it
    is on the edge. `passes` over the stars; `chi2_rms` (E,) of the statistics of chi^2 at the same optima, NaN where
    none is in the region of chi^2.
    """

    pairs: np.ndarray
    pair_error: np.ndarray
    rms: np.ndarray
    worst: np.ndarray
    refined: np.ndarray
    outermost: np.ndarray
    passes: int
    chi2_rms: np.ndarray


class SurfaceFit(NamedTuple):
    """What surfaces give for each of E elements: `minima` of equation 8 in each resample and, last, with the other
    weights; `coefficients` (1 + B, 5) of all resamples at the optimum of all stars, and the `jacobian` (3, d) there;
    `ends` (S, d) of the optimisations on all stars from `starts` (S, d); `chi2`, empty where it is not possible; and
    the `report`."""

    minima: list[list[Minimum]]
    coefficients: list[np.ndarray]
    jacobian: list[np.ndarray]
    starts: np.ndarray
    ends: np.ndarray
    chi2: list[chi2.Chi2Element]
    report: SurfaceReport | None


@dataclass
class Target:
    """One objective of one element: its surface, and the optima (rows, d) on it. The `first` surface is all elements'.

    The valley of equation 8 is not that of chi^2, so that each has a surface of its own.
    """

    accepted: ClassVar[float]  # rms error of the surface at optima [bootstrap sd]
    statistic: Statistic
    element: int
    first: Surface
    surface: Any = None
    optima: np.ndarray = field(default_factory=lambda: np.empty(0))
    found: Any = None
    refined: bool = False

    def __post_init__(self) -> None:
        self.surface = self.first

    @classmethod
    def select(cls, values: Coefficients, element: int) -> Any:
        """What the surface is of: (n, rows, ...), the first row of all stars, then those of the resamples."""
        raise NotImplementedError

    @classmethod
    def vanishing(cls, values: np.ndarray) -> np.ndarray:
        """What the objective makes vanish, of the surface's values."""
        raise NotImplementedError

    def optimise(self) -> None:
        """Find the optima on the surface."""
        raise NotImplementedError

    @property
    def outermost(self) -> float:
        """Distance of the outermost optimum, in units of the region's size."""
        return float(distance(self.surface.region, self.optima).max())

    def own_region(self) -> Region:
        """The ellipsoid that holds the optima."""
        unit = scales(self.statistic.model.parameters)
        covariance = np.cov((self.optima / unit).T) + _ROOM**2 * np.eye(len(unit))
        whitening: Any = np.linalg.inv(np.linalg.cholesky(covariance)) / unit
        region = replace(self.first.region, centre=self.optima.mean(0), whitening=whitening, size=1.0)
        return replace(region, size=max(_MARGIN * float(distance(region, self.optima).max()), 3.0))

    def error(self, theta: np.ndarray, values: Coefficients, row: int) -> np.ndarray:
        """Plain values (1, ...) at theta (d,) less the surface's of one resample, in bootstrap sd: NaN outside."""
        plain = self.vanishing(self.select(values, self.element))
        return (plain[0, row] - self.vanishing(_reader(self.surface, row)(theta))) / self._sd(plain)[0]

    def _sd(self, values: np.ndarray) -> np.ndarray:
        """Over the resamples, of values (n, rows, ...)."""
        return values[:, 1 : len(self.statistic.counts)].std(1, ddof=1)


class EquationEight(Target):
    """Its last row is of all stars with the other weights."""

    accepted = 0.25

    @classmethod
    def select(cls, values: Coefficients, element: int) -> Any:
        return np.concatenate([values.series, values.reweighted], 1)[:, :, element]

    @classmethod
    def vanishing(cls, values: np.ndarray) -> np.ndarray:
        return values[..., 1:4]

    def optimise(self) -> None:
        rows = range(self.surface.coefficients.shape[1])
        self.found = [self.minimum(row, self.statistic.start) for row in rows]
        self.optima = np.stack([minimum.theta for minimum in self.found])

    def minimum(self, row: int, start: np.ndarray) -> Minimum:
        """Nelder-Mead of one row from a start: on the first surface outside the region of the surface."""
        return self.statistic.minimum(self.coefficients(row), start, self.element)

    def coefficients(self, row: Any = slice(None)) -> Callable[[np.ndarray], np.ndarray]:
        """One row or all of them, a function of theta (d,)."""
        inner, outer = _reader(self.surface, row), _reader(self.first, row)

        def series(theta: np.ndarray) -> np.ndarray:
            value = inner(theta)
            return outer(theta) if np.isnan(value.flat[0]) else value

        return series

    def of_all_stars(self) -> Surface:
        """The surface of all stars that holds at their optimum."""
        chosen = self.surface if contains(self.surface.region, self.optima[0]) else self.first
        return replace(chosen, coefficients=chosen.coefficients[:, 0])


class Chi2(Target):
    """Of twelve statistics, where equation 8 has three coefficients."""

    accepted = 0.5

    @classmethod
    def select(cls, values: Coefficients, element: int) -> Any:
        return chi2.statistics(values.binned)[:, :, element]

    @classmethod
    def vanishing(cls, values: np.ndarray) -> np.ndarray:
        return values

    def optimise(self) -> None:
        starts = self.optima[:: max(1, len(self.optima) // CHI2_STARTS)]  # they are spread along the valley
        self.found = chi2.fit_element(self.surface, starts, self.statistic.model.parameters)
        self.optima = np.stack([minimum.theta for minimum in self.found.minima])


def passes_of(statistic: Statistic, store: Store) -> Evaluations:
    """The passes of a statistic over the stars."""
    return Evaluations(lambda points: store.map(statistic, points, statistic.like))


def pilot_ball(statistic: Statistic) -> Region:
    """The region of the pilot: a ball about the paper's start, in `scales`."""
    model = statistic.model
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    whitening = np.diag(1 / scales(model.parameters))
    return Region(statistic.start, whitening, PILOT, low, high, lambda t: model.allowed(model.Parameters(*t)))


def optimise_on_surfaces(statistic: Statistic, store: Store, starts: int, checks: int, seed: int) -> SurfaceFit:
    """Minimise equation 8, and chi^2 where there are bins and resamples enough, of all elements and resamples.

    `store` makes the passes over the stars. `starts` more optimisations on all stars begin at random places of the
    pilot. The surfaces are compared with plain coefficients at `checks` optima or more.
    """
    table, ball = statistic.model.parameters, pilot_ball(statistic)
    E, B = statistic.labels.shape[1], len(statistic.counts)
    passes = passes_of(statistic, store)
    passes.cover(ball, DEGREE, OVERSAMPLING, seed)
    pilot = passes.surface(ball, DEGREE)

    equations = [EquationEight(statistic, e, _of(pilot, EquationEight, e)) for e in range(E)]
    for equation in equations:
        equation.optimise()
    begin = draw(ball, starts, seed)
    ends = np.array([[equation.minimum(0, start).theta for start in begin] for equation in equations])
    chi2s: list[Chi2] = []
    if chi2.possible(len(statistic.edges) + 1 if statistic.edges else 0, B - 1, len(table)):
        chi2s = [Chi2(statistic, e, _of(pilot, Chi2, e), optima=equations[e].optima) for e in range(E)]
        for one in chi2s:
            one.optimise()
    targets: list[Target] = [*equations, *chi2s]

    scattered = [target for target in targets if target.outermost > EDGE]
    if scattered:
        wide = replace(ball, centre=(ball.low + ball.high) / 2, size=WIDE)
        passes.cover(wide, DEGREE, OVERSAMPLING, seed + 1)
        over_prior = passes.surface(wide, DEGREE)
        for target in scattered:
            target.first = target.surface = _of(over_prior, type(target), target.element)
            target.optimise()

    rng = np.random.default_rng([seed, 0x70616972])
    each = min(max(2, -(-checks // E)), B)

    def random_pairs(elements: Sequence[int]) -> np.ndarray:
        return np.array([(e, b) for e in elements for b in rng.choice(B, each, replace=False)])

    pairs = random_pairs(range(E))
    error, chi2_error = _errors(passes, equations, chi2s, pairs)

    def accepted(target: Target) -> bool:
        errors = chi2_error if isinstance(target, Chi2) else error
        inside = not target.refined or target.outermost <= EDGE
        return inside and not _rms(errors[pairs[:, 0] == target.element]) > target.accepted

    for attempt in range(_ROUNDS):
        refused = [target for target in targets if not accepted(target)]
        if not refused:
            break
        if attempt:
            _refine(passes, refused, seed + 1 + attempt)
        else:  # the passes at optima are where the surfaces are read
            _fit_again(passes, refused)
        again = sorted({target.element for target in refused})
        anew = np.isin(pairs[:, 0], again)
        pairs[anew] = random_pairs(again)
        error[anew], chi2_error[anew] = _errors(passes, equations, chi2s, pairs[anew])

    mine = [pairs[:, 0] == e for e in range(E)]
    report = SurfaceReport(
        pairs=pairs,
        pair_error=error,
        rms=np.array([_rms(error[one]) for one in mine]),
        worst=np.array([np.abs(error[one]).max() for one in mine]),
        refined=np.array([target.refined for target in equations]),
        outermost=np.array([target.outermost for target in equations]),
        passes=len(passes.theta),
        chi2_rms=np.array([_rms(chi2_error[one]) for one in mine]),
    )
    return SurfaceFit(
        minima=[target.found for target in equations],
        coefficients=[target.coefficients()(target.optima[0])[:B] for target in equations],
        jacobian=[jacobian(target.of_all_stars(), target.optima[0], table) for target in equations],
        starts=begin,
        ends=ends.reshape(E, starts, len(table)),
        chi2=[target.found._replace(interval=chi2.profile(target.found, table)) for target in chi2s],
        report=report,
    )


def _fit_again(passes: Evaluations, targets: Sequence[Target]) -> None:
    """Fit the first surface of each target to all passes that are known by now."""
    regions = {id(target.first.region): target.first.region for target in targets}
    surfaces = {key: passes.surface(region, DEGREE) for key, region in regions.items()}
    for target in targets:
        surface = surfaces[id(target.first.region)]
        target.first = target.surface = _of(surface, type(target), target.element)
        target.optimise()


def _refine(passes: Evaluations, targets: Sequence[Target], seed: int) -> None:
    """Give each target a surface over a region of its own."""
    regions = [target.own_region() for target in targets]
    # the nodes of a small region serve the larger ones that hold it
    volume = [region.size ** len(region.centre) / np.linalg.det(region.whitening) for region in regions]
    for i in np.argsort(volume, kind="stable"):
        passes.cover(regions[i], DEGREE, OVERSAMPLING, seed)
    for target, region in zip(targets, regions, strict=True):
        target.surface = _of(passes.surface(region, DEGREE), type(target), target.element)
        target.refined = True
        target.optimise()


def _errors(
    passes: Evaluations, equations: Sequence[EquationEight], chi2s: Sequence[Chi2], pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors (P, 3) of equation 8 at its optima of `pairs` (P, 2), and those of chi^2 (P, n) there.

    Each optimum is one more pass, which the surface of a region may use.
    """
    thetas = np.stack([equations[e].optima[b] for e, b in pairs])
    plain = passes.add(thetas)
    error, chi2_error = [], []
    for i, ((e, b), theta) in enumerate(zip(pairs, thetas, strict=True)):
        one = jax.tree.map(lambda leaf, i=i: leaf[[i]], plain)
        error.append(equations[e].error(theta, one, b))
        chi2_error.append(chi2s[e].error(theta, one, b) if chi2s else np.array([np.nan]))
    return np.stack(error), np.stack(chi2_error)


def _rms(error: np.ndarray) -> float:
    known = error[np.isfinite(error)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else np.nan


def jacobian(surface: Surface, theta: np.ndarray, table: Sequence[Parameter]) -> np.ndarray:
    """Slopes (3, d) of a1, b1, a2 at theta (d,), by the parameters in their scales, of a `surface` of c0, a1, ..."""
    return np.asarray(jax.jacfwd(lambda t: evaluate(surface, t))(theta))[1:4] * scales(table)


def _of(surface: Surface, kind: type[Target], element: int) -> Surface:
    """The part of a surface of `Coefficients` that one target needs: it is linear in the values."""
    return replace(surface, coefficients=kind.select(surface.coefficients, element))


def _reader(surface: Surface, row: Any = slice(None)) -> Callable[[np.ndarray], np.ndarray]:
    """Quick values (...) of one row of a surface, or of all rows; NaN outside its region."""
    chosen = surface.coefficients[:, row]
    read = reader(surface.region, surface.degree, chosen.reshape(len(chosen), -1))
    return lambda theta: read(theta).reshape(chosen.shape[1:])
