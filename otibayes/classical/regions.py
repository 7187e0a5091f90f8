"""Response surfaces of the coefficients, one for each label over a trust region that holds all its optima.

A label that says much has optima close together, another scatters over half of the prior: one region for all would
be too wide for the first. Each evaluation over the stars serves every label and resample, and every surface whose
region it lies in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..base.store import Store
from ..base.surface import Region, design, draw, fit, predict, reader
from .objective import Coefficients

__all__ = ["LabelSurface", "Pool", "covering", "outermost"]

_REACH = 1.3  # in units of the region's size: what is known so far out tells of a surface over it too
_MARGIN = 1.2  # of the region beyond its outermost optimum
_POINTS = 200  # at which surfaces are compared
_ROOM = 0.15  # in every direction, in `scales`, whatever the scatter


class LabelSurface(NamedTuple):
    """Surface of one label's coefficients in every resample: Chebyshev `terms` (terms, B, ...) over a `region`."""

    region: Region
    degree: int
    terms: np.ndarray

    def of_resample(self, b: int, rim: bool = False) -> Callable[[np.ndarray], np.ndarray]:
        """The coefficients (...) of one resample, a function of theta (d,).

        Outside the region NaN; with `rim`, the value at the nearest point of its ball.
        """
        return self._function(self.terms[:, b], rim)

    def at(self, theta: np.ndarray, rim: bool = False) -> np.ndarray:
        """The coefficients (B, ...) of every resample at one theta (d,), as `of_resample`."""
        return self._function(self.terms, rim)(theta)

    def remainder(self, region: Region, degree: int) -> float:
        """rms of what a surface of another degree over another region cannot follow of this one's a1, b1 and a2.

        In units of their bootstrap sd.
        """
        points = draw(region, _POINTS, 0)
        values = predict(self.region, self.degree, points, self.terms[..., 1:4])
        left = values - predict(region, degree, points, fit(region, degree, points, values))
        return float(np.sqrt(np.mean(left**2 / _variance(values))))

    def _function(self, terms: np.ndarray, rim: bool) -> Callable[[np.ndarray], np.ndarray]:
        read = reader(self.region, self.degree, terms.reshape(len(terms), -1), rim)
        return lambda theta: read(theta).reshape(terms.shape[1:])


@dataclass
class Pool:
    """Evaluations of the coefficients so far: `theta` (n, d), `values` with a leading (n,); `add` makes more."""

    function: Callable[[np.ndarray], Coefficients]
    nodes: Store
    theta: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    values: Coefficients | None = None

    def add(self, points: np.ndarray) -> Coefficients:
        """The values at `points` (m, d), which are known from then on."""
        found = self.nodes.map(self.function, list(points), Coefficients(0, 0))
        new = Coefficients(*(np.stack(leaves) for leaves in zip(*found, strict=True)))
        old = self.values
        self.theta = points if old is None else np.concatenate([self.theta, points])
        self.values = new if old is None else Coefficients(*map(np.concatenate, zip(old, new, strict=True)))
        return new

    def surface(self, which: str, label: int, region: Region, degree: int, less: Any = 0.0) -> LabelSurface:
        """Of one label's "series" or "binned" coefficients, from all that is known in the region and about it.

        `less`: of values that are less by so much.
        """
        near = _near(region, self.theta)
        values = (getattr(self.values, which) - less)[near][:, :, label]
        return LabelSurface(region, degree, fit(region, degree, self.theta[near], values))

    def roughness(self, label: int, surface: LabelSurface, less: Any = 0.0) -> float:
        """rms of one label's a1, b1 and a2, `less` so much, about their surface, in units of their bootstrap sd."""
        assert self.values is not None
        near = _near(surface.region, self.theta)
        values = (self.values.series - less)[near][:, :, label, 1:4]
        residual = values - predict(surface.region, surface.degree, self.theta[near], surface.terms[..., 1:4])
        spare = len(values) - len(surface.terms)
        return float(np.sqrt(np.mean((residual**2).sum(0) / spare / _variance(values))))

    def cover(self, wanted: Sequence[tuple[Region, int]], oversampling: float, seed: int) -> None:
        """`add` what surfaces over these regions, of these degrees, still need, if anything."""
        points = self.design(wanted, oversampling, seed)
        if len(points):
            self.add(points)

    def design(self, wanted: Sequence[tuple[Region, int]], oversampling: float, seed: int) -> np.ndarray:
        """Points (m, d) that, with those known, determine surfaces over these regions, of these degrees."""
        points = np.empty((0, len(wanted[0][0].centre))) if wanted else self.theta[:0]
        size = [region.size ** len(region.centre) / np.linalg.det(region.whitening) for region, _ in wanted]
        for i in np.argsort(size, kind="stable"):  # what the smallest needs serves those that hold it
            region, degree = wanted[i]
            known = np.concatenate([self.theta.reshape(-1, points.shape[1]), points])
            new = design(region, degree, oversampling, seed, known[_near(region, known)])
            points = np.concatenate([points, new])
        return points


def _variance(values: np.ndarray) -> np.ndarray:
    """Of the resamples, all but the first of values (n, B, ...), averaged over the n points: (...)."""
    return values[:, 1:].var(1, ddof=1).mean(0)


def _distance(region: Region, theta: np.ndarray) -> np.ndarray:
    """From the centre, in units of the region's size, of points (n, d)."""
    return np.linalg.norm((theta - region.centre) @ np.asarray(region.whitening).T, axis=1) / region.size


def _near(region: Region, theta: np.ndarray) -> np.ndarray:
    """Which of the points (n, d) tell of a surface over the region."""
    return _distance(region, theta) <= _REACH


def outermost(region: Region, theta: np.ndarray) -> float:
    """Distance of the outermost point, in units of the region's size: above 0.97 it is on its edge."""
    return float(_distance(region, theta).max())


def covering(points: np.ndarray, region: Region, unit: np.ndarray) -> Region:
    """The ellipsoid that holds `points` (n, d) with a margin, and some room in every direction."""
    covariance = np.cov((points / unit).T) + _ROOM**2 * np.eye(len(unit))
    whitening: Any = np.linalg.inv(np.linalg.cholesky(covariance)) / unit
    centre = points.mean(0)
    distance = np.linalg.norm((points - centre) @ whitening.T, axis=1)
    return replace(region, centre=centre, whitening=whitening, size=max(_MARGIN * distance.max(), 3.0))
