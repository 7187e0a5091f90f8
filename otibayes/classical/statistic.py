"""The classical statistic: Fourier coefficients of all elements in all resamples, a function of theta."""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import median_abs_deviation

from ..dynamics import MILKY_WAY
from ..dynamics.frame import phase_space
from ..dynamics.potential import MassModel
from ..dynamics.trend import detrended
from .local_mean import deviation, deviation_blocks
from .objective import (
    Actions,
    Minimum,
    design,
    minimise_objective,
    normal_matrices,
    projections,
    solve,
)
from .settings import ClassicalSettings

__all__ = ["BINNED", "Coefficients", "Statistic", "Weights", "make_statistic", "other_weights", "resamples"]

BINNED = (1, 2, 4)  # harmonics of the coefficients in bins of J_z
_M_DISK_START = 1.1  # PW21's released code; the other parameters start at their fiducial values
_PER_BIN = 100  # stars: a bin with fewer may be empty in some mass model


class Coefficients(NamedTuple):
    """`series` (B, E, 5): c0 a1 b1 a2 b2 of equation 3; `reweighted` (1, E, 5): those of the first resample with the
    weights that were not chosen; `binned` (B, E, bins, 7): with a4 b4 too, in bins of
    J_z, None without bins.

    In the labels' unit; of the scatter, its square.
    """

    series: Any
    reweighted: Any
    binned: Any


class Weights(NamedTuple):
    """Inverse variances (N, E) of the labels: `chosen` for equation 8, `other` to compare with it, `total` for chi^2.

    By label (E,): the median quoted `error`, NaN where there is none; how many errors are `missing`; the intrinsic
    `scatter`. Errors and scatter are in the labels' unit.
    """

    chosen: np.ndarray
    other: np.ndarray
    total: np.ndarray
    error: np.ndarray
    missing: np.ndarray
    scatter: np.ndarray


@dataclass(frozen=True)
class Statistic:
    """Fourier coefficients of E labels in B resamples, a function of theta (d,): steps 1 to 6 of PW21.

    `stars`, N of them; `labels` (N, E), finite, in any unit; `counts` (B, N): how often each star was drawn in each
    resample, the first of all stars; `actions(w, theta)` gives an `ActionAngle` of phase space `w`; `edges` of the bins
    in J_z [kpc km/s], empty for no bins.

    The bins always take labels less their polynomial trend in the actions: where stars are sparse, the mean over
    neighbours (A5) is biased by the curvature of the trend.
    """

    stars: Any
    labels: np.ndarray
    counts: np.ndarray
    weights: Weights
    actions: Actions
    settings: ClassicalSettings
    edges: tuple[float, ...]
    model: MassModel

    def __call__(self, theta: np.ndarray) -> Coefficients:
        J, angle = self.actions_at(theta)
        weights = self.weights
        y = self.labels - self.labels.mean(0)
        E, scatter = y.shape[1], self.settings.moment == "scatter"
        values = np.concatenate([y, y**2], 1) if scatter else y
        columns = [] if self.settings.detrended else [values]
        if self.settings.detrended or self.edges:
            columns.append(detrended(J, values))
        M, M_bins = design(angle), design(angle, BINNED)
        bin_of = np.digitize(J[:, 2], self.edges)
        inside = [np.flatnonzero(bin_of == q) for q in range(len(self.edges) + 1)] if self.edges else []

        def projected(chosen: np.ndarray, found: np.ndarray) -> Any:
            if scatter:
                # (y - m)^2 less its local mean <y^2> - m^2, where y - m is the deviation of y
                pairs = [np.split(column, 2, 1) for column in np.split(found, len(columns), 1)]
                both = [second - 2 * (y[chosen, :, None] - first) * first for first, second in pairs]
                found = np.concatenate(both, 1)
            series, trendless, counts = found[:, :E], found[:, -E:], self.counts[:, chosen]
            of_bins = [np.flatnonzero(bin_of[chosen] == q) for q in range(len(inside))]
            return (
                projections(M[chosen], series, weights.chosen[chosen], counts),
                projections(M[chosen], series[..., :1], weights.other[chosen], counts[:1]),
                [projections(M_bins[chosen[q]], trendless[q], weights.total[chosen[q]], counts[:, q]) for q in of_bins],
            )

        parts = deviation_blocks(projected, J, np.concatenate(columns, 1), self.counts, self.settings)
        series, other, binned = functools.reduce(lambda a, b: jax.tree.map(operator.add, a, b), parts)
        bins = [
            solve(normal_matrices(M_bins[q], weights.total[q], self.counts[:, q]), projection)
            for q, projection in zip(inside, binned, strict=True)
        ]
        return Coefficients(
            solve(normal_matrices(M, weights.chosen, self.counts), series),
            solve(normal_matrices(M, weights.other, self.counts[:1]), other),
            np.stack(bins, 2) if bins else None,
        )

    def actions_at(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """J_R, L_z, J_z (N, 3) [kpc km/s] and the angle (N,) [rad] of the stars at theta (d,)."""
        parameters = self.model.Parameters(*theta)
        aa = self.actions(phase_space(self.stars, parameters), parameters)
        J = np.stack([np.asarray(aa.J_R), np.asarray(aa.L_z), np.asarray(aa.J_z)], -1)
        return J, np.asarray(getattr(aa, self.settings.angle))

    def one(self, label: int, resample: int) -> "Statistic":
        """The series of one label in one resample, without bins."""
        weights = Weights(*(array[..., [label]] for array in self.weights))
        return replace(self, labels=self.labels[:, [label]], weights=weights, counts=self.counts[[resample]], edges=())

    @property
    def like(self) -> Coefficients:
        """The structure of its values, for a `Store`."""
        return Coefficients(0, 0, 0 if self.edges else None)

    @property
    def start(self) -> np.ndarray:
        """Where the paper's optimisations start, (d,)."""
        return np.array([_M_DISK_START if p.name == "m_disk" else p.fiducial for p in self.model.parameters])

    def minimum(self, series: Callable[[np.ndarray], np.ndarray], start: np.ndarray, label: int) -> Minimum:
        """Of equation 8 of a label's `series(theta)` from a start, to a thousandth of the square of its noise."""
        variance = self.labels[:, label].var()
        noise = (2 * variance**2 if self.settings.moment == "scatter" else variance) / len(self.labels)
        return minimise_objective(series, start, self.model, 1e-3 * noise, self.settings.all_terms)


def resamples(stars: int, bootstraps: int, seed: int) -> np.ndarray:
    """How often each star was drawn, (bootstraps, stars) integers: draws of as many stars, with replacement."""
    # A stream of its own: with default_rng(seed) the resamples of a mock catalogue of the same seed would repeat its
    # random numbers, and follow the stars' properties.
    rng = np.random.default_rng([seed, 0x626F6F74])
    return np.stack([np.bincount(rng.integers(stars, size=stars), minlength=stars) for _ in range(bootstraps)])


def other_weights(weights: str) -> str:
    """The weights with which a result compares: "equal", or the paper's where the chosen weights are equal."""
    return "paper" if weights == "equal" else "equal"


def make_statistic(
    stars: Any,
    labels: Any,
    errors: Any = None,
    *,
    actions: Actions,
    settings: ClassicalSettings = ClassicalSettings(),
    seed: int = 0,
    model: MassModel = MILKY_WAY,
) -> Statistic:
    """The statistic of `stars`, N of them, with `labels` (N, E), finite, and their `errors` (N, E) in one unit.

    A missing error (None, NaN, or not positive) is replaced by the median of that label's errors; a label without any
    has equal weights. The bins of J_z have equally many stars in the fiducial model; there are none with fewer than
    100 stars a bin. `actions(w, theta)` gives an `ActionAngle` of phase space `w`; `seed` draws the resamples.
    """
    labels = np.asarray(labels, float)
    counts = np.concatenate([np.ones((1, len(labels)), int), resamples(len(labels), settings.bootstraps, seed)])
    unweighted: Any = None  # weights follow from the actions
    statistic = Statistic(stars, labels, counts, unweighted, actions, settings, (), model)
    J, _ = statistic.actions_at(np.array(model.Parameters()))
    bins = settings.bins if len(labels) >= _PER_BIN * settings.bins else 0
    edges = np.quantile(J[:, 2], np.arange(1, bins) / bins).tolist() if bins else ()
    return replace(statistic, edges=tuple(edges), weights=_weights(labels, errors, J, settings))


def _weights(labels: np.ndarray, errors: Any, J: np.ndarray, settings: ClassicalSettings) -> Weights:
    """From the errors, and the scatter of the labels about their local mean at actions J (N, 3)."""
    sigma = np.full(labels.shape, np.nan) if errors is None else np.array(errors, float)
    sigma[~(np.isfinite(sigma) & (sigma > 0))] = np.nan
    missing = np.isnan(sigma).sum(0)
    some = missing < len(sigma)
    error = np.full(len(some), np.nan)
    error[some] = np.nanmedian(sigma[:, some], 0)
    sigma = np.where(np.isnan(sigma), error, sigma)
    deviations = deviation(J, labels, settings=settings)[0]
    spread = median_abs_deviation(deviations, scale="normal")  # robust against outliers
    scatter = np.sqrt(np.maximum(spread**2 - np.where(some, error, 0) ** 2, 0))
    equal = np.ones(labels.shape)
    inverse = {"equal": equal, "paper": equal, "total": equal}
    if settings.moment == "mean":  # the errors of a label are not those of its square
        inverse["paper"] = np.where(some, 1 / sigma**2, equal)
        total = np.where(some, sigma, 0) ** 2 + scatter**2
        inverse["total"] = np.where(total > 0, 1 / np.where(total > 0, total, 1), equal)
    chosen, other = inverse[settings.weights], inverse[other_weights(settings.weights)]
    return Weights(chosen, other, inverse["total"], error, missing, scatter)
