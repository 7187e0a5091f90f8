"""Equation 8 and chi^2 minimised on response surfaces of the coefficients, each element over a region of its own.

A pilot surface about the paper's start places the regions: an element that says much has optima close together, another
one scatters over half of the prior. One pass over the stars serves all elements and resamples, and every surface in
whose region it lies. Passes at optima then measure how well the surfaces stand for the plain coefficients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from ..base.parameters import Parameter
from ..base.store import Store
from ..base.surface import Region, Surface, contains, design, draw, evaluate, fit, predict, reader
from . import chi2
from .objective import Minimum, scales
from .statistic import Coefficients, Statistic

__all__ = ["ACCEPTED", "SurfaceFit", "SurfaceReport", "Passes", "jacobian", "optimise_on_surfaces", "pilot_ball"]

PILOT = 3.0  # radius of the pilot's ball in `scales`: 0.42 in m_disk, 0.285 kpc, 60 pc, 4.5 km/s
DEGREE = 3  # of the pilot, and of a surface from which degree 2 differs by more than this [bootstrap sd, rms]
DIFFERENCE = 0.1
WIDE = 6.0
OVERSAMPLING = 1.4  # nodes over polynomials
EDGE = 0.97  # an optimum further out, in units of the region's size, is on its edge
ROUNDS = 6  # of growing regions
CHI2_ROUNDS = 2  # of growing the regions of chi^2, which may be as wide as the prior
CHI2_STARTS = 8  # of the minimum of chi^2 on all stars
ACCEPTED = 0.25  # rms error of a surface at optima [bootstrap sd]
_REACH = 1.3  # passes so far out, in units of the region's size, serve a surface over it too
_MARGIN = 1.2  # of a region beyond its outermost optimum
_ROOM = 0.15  # of a region in every direction at least, in `scales`
_POINTS = 200  # at which two surfaces are compared


class SurfaceReport(NamedTuple):
    """Errors of the surfaces: plain less surface coefficients (a1, b1, a2) at optima, in units of their bootstrap sd.

    `pairs` (P, 2): random (element, resample); `pair_error` (P, 3) at their optima; `rms` and `worst` (E,) over an
    element's pairs. `degree` (E,) of the surfaces; `refined` (E,): the rms of the first surface was above 0.25, and one
    over a region of the element's own took its place; `outermost` (E,) optimum, in units of its region's size: above
    0.97 it is on the edge. `passes` over the stars; `chi2_rms` (E,) of the first surfaces of chi^2 at the same optima,
    NaN where none is in their region.
    """

    pairs: np.ndarray
    pair_error: np.ndarray
    rms: np.ndarray
    worst: np.ndarray
    degree: np.ndarray
    refined: np.ndarray
    outermost: np.ndarray
    passes: int
    chi2_rms: np.ndarray


class SurfaceFit(NamedTuple):
    """What surfaces give for each of E elements: `minima` of equation 8 in each resample and, last, with the other
    weights; `coefficients` (1 + B, 5) of all resamples at the optimum of all stars, and the `jacobian` (3, d) there;
    `ends` (S, d) of the optimisations on all stars from `starts` (S, d); `chi2`, empty where it is not
    possible; and the `report`."""

    minima: list[list[Minimum]]
    coefficients: list[np.ndarray]
    jacobian: list[np.ndarray]
    starts: np.ndarray
    ends: np.ndarray
    chi2: list[chi2.Chi2Element]
    report: SurfaceReport | None


@dataclass
class Passes:
    """All passes over the stars so far: `theta` (n, d) and their `values`, with a leading (n,)."""

    statistic: Statistic
    store: Store
    theta: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    values: Any = None

    def add(self, points: np.ndarray) -> Coefficients:
        """Make passes at `points` (m, d), and return their values."""
        found = self.store.map(self.statistic, list(points), like=Coefficients(0, 0, 0))
        new = Coefficients(*(np.stack(leaves) for leaves in zip(*found, strict=True)))
        first = self.values is None
        self.theta = points if first else np.concatenate([self.theta, points])
        self.values = new if first else Coefficients(*map(np.concatenate, zip(self.values, new, strict=True)))
        return new

    def cover(self, regions: Sequence[tuple[Region, int]], oversampling: float, seed: int) -> None:
        """Make the passes that surfaces of these (region, degree) still need."""
        points = np.empty((0, len(self.statistic.start)))
        volume = [region.size ** len(region.centre) / np.linalg.det(region.whitening) for region, _ in regions]
        for i in np.argsort(volume, kind="stable"):  # a larger region needs fewer nodes besides those of the smaller
            region, degree = regions[i]
            known = np.concatenate([self.theta.reshape(-1, points.shape[1]), points])
            new = design(region, degree, oversampling, seed, known[_distance(region, known) <= _REACH])
            points = np.concatenate([points, new])
        if len(points):
            self.add(points)

    def surface(
        self, select: Callable[[Coefficients, int], np.ndarray], element: int, region: Region, degree: int
    ) -> Surface:
        """Of the values (n, ...) that `select` takes of an element, over a region."""
        near = _distance(region, self.theta) <= _REACH
        values = select(Coefficients(*(leaf[near] for leaf in self.values)), element)
        coefficients = fit(region, degree, self.theta[near], values)
        return Surface(region, coefficients, degree)


@dataclass
class Target:
    """One objective of one element: its surface, the optima (rows, d) on it, and how far out the outermost lies.

    The valley of equation 8 is not that of chi^2, so that each has a region of its own.
    """

    statistic: Statistic
    element: int
    pilot: Surface
    surface: Surface
    optima: np.ndarray = field(default_factory=lambda: np.empty(0))
    found: Any = None

    @staticmethod
    def select(values: Coefficients, element: int) -> np.ndarray:
        """What the surface is of: (n, rows, ...), the first of all stars, then those of the resamples."""
        raise NotImplementedError

    @staticmethod
    def vanishing(values: np.ndarray) -> np.ndarray:
        """What the objective makes vanish, of the surface's values."""
        raise NotImplementedError

    def optimise(self) -> None:
        """Find the optima on the surface."""
        raise NotImplementedError

    @property
    def outermost(self) -> float:
        """Distance of the outermost optimum, in units of the region's size."""
        return float(_distance(self.surface.region, self.optima).max())

    def place(self) -> tuple[Region, int]:
        """The region that holds the optima, and the degree that the pilot's curvature asks for in it."""
        region = _covering(self.optima, self.pilot.region, scales(self.statistic.model.parameters))
        points = draw(region, _POINTS, 0)
        values = self.vanishing(predict(self.pilot.region, self.pilot.degree, points, self.pilot.coefficients))
        left = values - predict(region, 2, points, fit(region, 2, points, values))
        difference = np.sqrt(np.mean((left / self._sd(values).mean(0)) ** 2))
        return region, 2 if difference < DIFFERENCE else DEGREE

    def error(self, theta: np.ndarray, values: Coefficients, row: int) -> np.ndarray:
        """Plain values (1, ...) at theta (d,) less the surface's of one resample, in bootstrap sd: NaN outside."""
        plain = self.vanishing(self.select(values, self.element))
        return (plain[0, row] - self.vanishing(_reader(self.surface, row)(theta))) / self._sd(plain)[0]

    def _sd(self, values: np.ndarray) -> np.ndarray:
        """Over the resamples, of values (n, rows, ...)."""
        return values[:, 1 : len(self.statistic.counts)].std(1, ddof=1)


class EquationEight(Target):
    """Its last row is of all stars with the other weights."""

    @staticmethod
    def select(values: Coefficients, element: int) -> np.ndarray:
        return np.concatenate([values.series, values.reweighted], 1)[:, :, element]

    @staticmethod
    def vanishing(values: np.ndarray) -> np.ndarray:
        return values[..., 1:4]

    def optimise(self) -> None:
        rows = range(self.surface.coefficients.shape[1])
        self.found = [self.minimum(row, self.statistic.start) for row in rows]
        self.optima = np.stack([minimum.theta for minimum in self.found])

    def minimum(self, row: int, start: np.ndarray) -> Minimum:
        """Nelder-Mead of one row from a start: on the pilot outside the region of the surface."""
        return self.statistic.minimum(self.coefficients(row), start, self.element)

    def at(self, theta: np.ndarray) -> Surface:
        """The surface of all stars that is valid at theta (d,)."""
        chosen = self.surface if contains(self.surface.region, theta) else self.pilot
        return replace(chosen, coefficients=chosen.coefficients[:, 0])

    def coefficients(self, row: Any = slice(None)) -> Callable[[np.ndarray], np.ndarray]:
        """One row or all of them, a function of theta (d,)."""
        inner, outer = _reader(self.surface, row), _reader(self.pilot, row)

        def series(theta: np.ndarray) -> np.ndarray:
            value = inner(theta)
            return outer(theta) if np.isnan(value.flat[0]) else value

        return series


class Chi2(Target):
    @staticmethod
    def select(values: Coefficients, element: int) -> np.ndarray:
        return chi2.statistics(values.binned)[:, :, element]

    @staticmethod
    def vanishing(values: np.ndarray) -> np.ndarray:
        return values

    def optimise(self) -> None:
        starts = self.optima[:: max(1, len(self.optima) // CHI2_STARTS)]  # they are spread along the valley
        self.found = chi2.fit_element(self.surface, starts, self.statistic.model.parameters)
        self.optima = np.stack([minimum.theta for minimum in self.found.minima])


def pilot_ball(statistic: Statistic) -> Region:
    """The region of the pilot: a ball about the paper's start, in `scales`."""
    model = statistic.model
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    whitening = np.diag(1 / scales(model.parameters))
    return Region(statistic.start, whitening, PILOT, low, high, lambda t: model.allowed(model.Parameters(*t)))


def optimise_on_surfaces(statistic: Statistic, store: Store, starts: int, checks: int, seed: int) -> SurfaceFit:
    """Minimise equation 8, and chi^2 where there are bins and resamples enough, of all elements and resamples.

    `store` makes and keeps the passes over the stars; `starts` more optimisations on all stars begin at random places
    of the pilot; at `checks` optima or more the surfaces are compared with plain coefficients.
    """
    table = statistic.model.parameters
    E, B = statistic.labels.shape[1], len(statistic.counts)
    ball = pilot_ball(statistic)
    passes = Passes(statistic, store)
    passes.cover([(ball, DEGREE)], OVERSAMPLING, seed)

    def targets_of(kind: type[Target]) -> list[Any]:
        pilots = [passes.surface(kind.select, e, ball, DEGREE) for e in range(E)]
        return [kind(statistic, e, pilot, pilot) for e, pilot in enumerate(pilots)]

    equations, chi2s = targets_of(EquationEight), []
    for target in equations:
        target.optimise()
    begin = draw(ball, starts, seed)
    ends = np.array([[target.minimum(0, start).theta for start in begin] for target in equations])
    if chi2.possible(len(statistic.edges) + 1 if statistic.edges else 0, B - 1, len(table)):
        chi2s = targets_of(Chi2)
        for target, equation in zip(chi2s, equations, strict=True):
            target.optima = equation.optima
            target.optimise()

    def refine(targets: list[Any], rounds: int) -> None:
        """Give each target a region of its own about its optima, larger ones until no optimum is on the edge."""
        for attempt in range(rounds):
            regions = [target.place() for target in targets]
            passes.cover(regions, OVERSAMPLING, seed + 2 + attempt)
            for target, (region, degree) in zip(targets, regions, strict=True):
                target.surface = passes.surface(target.select, target.element, region, degree)
                target.optimise()
            targets = [target for target in targets if target.outermost > EDGE]
            if not targets:
                break

    scattered = [target for target in [*equations, *chi2s] if target.outermost > EDGE]
    if scattered:
        wide = replace(ball, centre=(ball.low + ball.high) / 2, size=WIDE)
        passes.cover([(wide, DEGREE)], OVERSAMPLING, seed + 1)
        for target in scattered:
            target.pilot = target.surface = passes.surface(target.select, target.element, wide, DEGREE)
            target.optimise()
    rng = np.random.default_rng([seed, 0x70616972])
    each = min(max(2, -(-checks // E)), B)
    pairs = np.array([(e, b) for e in range(E) for b in rng.choice(B, each, replace=False)])
    error, chi2_error = _errors(passes, equations, chi2s, pairs)
    refine([t for t, one in zip(chi2s, chi2_error, strict=True) if _rms(one) > ACCEPTED], CHI2_ROUNDS)
    refined = np.array([_rms(error[pairs[:, 0] == e]) > ACCEPTED for e in range(E)])
    if refined.any():
        refine([equations[e] for e in np.flatnonzero(refined)], ROUNDS)
        anew = refined[pairs[:, 0]]
        pairs[anew, 1] = np.concatenate([rng.choice(B, each, replace=False) for _ in range(int(refined.sum()))])
        error[anew] = _errors(passes, equations, chi2s, pairs[anew])[0]
    report = SurfaceReport(
        pairs=pairs,
        pair_error=error,
        rms=np.array([_rms(error[pairs[:, 0] == e]) for e in range(E)]),
        worst=np.array([np.abs(error[pairs[:, 0] == e]).max() for e in range(E)]),
        degree=np.array([target.surface.degree for target in equations]),
        refined=refined,
        outermost=np.array([target.outermost for target in equations]),
        passes=len(passes.theta),
        chi2_rms=np.array([_rms(one) for one in chi2_error]) if chi2s else np.full(E, np.nan),
    )
    return SurfaceFit(
        minima=[target.found for target in equations],
        coefficients=[target.coefficients()(target.optima[0])[:B] for target in equations],
        jacobian=[jacobian(t.at(t.optima[0]), t.optima[0], table) for t in equations],
        starts=begin,
        ends=ends.reshape(E, starts, len(table)),
        chi2=[t.found._replace(interval=chi2.profile(t.found, table)) for t in chi2s],
        report=report,
    )


def _errors(
    passes: Passes, equations: list[EquationEight], chi2s: list[Chi2], pairs: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Errors (P, 3) of equation 8 at its optima of `pairs` (P, 2), and those of chi^2 there, by element.

    Each optimum is one more pass, which a surface that is refined may use.
    """
    thetas = np.stack([equations[e].optima[b] for e, b in pairs])
    plain = passes.add(thetas)
    single = [Coefficients(*(leaf[[i]] for leaf in plain)) for i in range(len(pairs))]
    error = [equations[e].error(t, one, b) for (e, b), t, one in zip(pairs, thetas, single, strict=True)]
    binned = [[t.error(theta, one, b) for (_, b), theta, one in zip(pairs, thetas, single, strict=True)] for t in chi2s]
    return np.stack(error), [np.stack(one) for one in binned]


def _rms(error: np.ndarray) -> float:
    known = error[np.isfinite(error)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else np.nan


def jacobian(surface: Surface, theta: np.ndarray, table: Sequence[Parameter]) -> np.ndarray:
    """Slopes (3, d) of a1, b1, a2 at theta (d,), by the parameters in their scales, of a `surface` of c0, a1, ..."""
    return np.asarray(jax.jacfwd(lambda t: evaluate(surface, t))(theta))[1:4] * scales(table)


def _reader(surface: Surface, row: Any = slice(None)) -> Callable[[np.ndarray], np.ndarray]:
    """Quick values (...) of one row of a surface, or of all rows; NaN outside its region."""
    chosen = surface.coefficients[:, row]
    read = reader(surface.region, surface.degree, chosen.reshape(len(chosen), -1))
    return lambda theta: read(theta).reshape(chosen.shape[1:])


def _distance(region: Region, theta: np.ndarray) -> np.ndarray:
    """From the centre, in units of the region's size, of points (n, d)."""
    return np.linalg.norm((theta - region.centre) @ np.asarray(region.whitening).T, axis=1) / region.size


def _covering(points: np.ndarray, region: Region, unit: np.ndarray) -> Region:
    """The ellipsoid that holds `points` (n, d) with a margin, and some room in every direction."""
    covariance = np.cov((points / unit).T) + _ROOM**2 * np.eye(len(unit))
    whitening: Any = np.linalg.inv(np.linalg.cholesky(covariance)) / unit
    centre = points.mean(0)
    distance = np.linalg.norm((points - centre) @ whitening.T, axis=1)
    return replace(region, centre=centre, whitening=whitening, size=max(_MARGIN * distance.max(), 3.0))
