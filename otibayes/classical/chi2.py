"""An objective without the valley, ours and not the paper's: chi^2 of binned coefficients.

Equation 8 sets three numbers to zero with four parameters. Here a1, b1, a2 and a4 of each bin of J_z are, weighted by
the inverse of their bootstrap covariance: the signal's change with J_z, and the shape of the orbits, tell disk mass
from scale height, so that the minimum is unique. A covariance from B resamples is noisy, which makes Hotelling's T^2 of
what would be chi^2: of the minimum over d parameters, with the n - d numbers that are left (Rao 1959), and of its rise
towards the truth, nearly, with d (Dodelson & Schneider 2013).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq, least_squares
from scipy.stats import f as fisher

from ..base.parameters import Parameter
from ..base.surface import Region
from .fourier import coefficient_names
from .minimum import scales
from .objective import BINNED
from .regions import LabelSurface, outermost

__all__ = [
    "USED",
    "Chi2Fit",
    "Chi2Label",
    "Chi2Minimum",
    "Weight",
    "fit_label",
    "minimise",
    "p_value",
    "possible",
    "profile",
    "statistics",
    "together",
    "weight",
]

USED = ("a1", "b1", "a2", "a4")  # of each bin; b2 and b4 test the model's assumptions, and stay out as in equation 8
_PLACES = [coefficient_names(BINNED).index(name) for name in USED]


class Weight(NamedTuple):
    """`root` (n, n), with root^T root the inverse of the n statistics' `covariance` (n, n), less by what makes the rise
    of chi^2 from its minimum to the truth d in the mean; `goodness`, by which its minimum is to be multiplied to be
    n - d in the mean."""

    root: np.ndarray
    covariance: np.ndarray
    goodness: float


class Chi2Minimum(NamedTuple):
    """`theta` (d,), `value` of chi^2, `converged`; `covariance` (d, d) of theta from the curvature there."""

    theta: np.ndarray
    value: float
    converged: bool
    covariance: np.ndarray


def statistics(binned: np.ndarray) -> np.ndarray:
    """What is to vanish, (..., 4 bins), of binned coefficients (..., bins, 7)."""
    chosen = binned[..., _PLACES]
    return chosen.reshape(*chosen.shape[:-2], -1)


def weight(replicates: np.ndarray, parameters: int) -> Weight:
    """From statistics (B, n) of bootstrap resamples, more than n + 4 of them, for a fit of so many parameters."""
    (B, n), d = replicates.shape, parameters
    covariance = np.atleast_2d(np.cov(replicates.T))
    unbiased = (B - n - 2) / (B - 1)  # Hartlap et al. (2007)
    scattered = 1 + (n - d) * (B - n - 2) / ((B - n - 1) * (B - n - 4))  # Dodelson & Schneider (2013), equation 28
    rise, value = unbiased / scattered, (B - (n - d) - 2) / (B - 1)
    return Weight(np.linalg.cholesky(np.linalg.inv(covariance) * rise).T, covariance, value / rise)


def p_value(value: Any, resamples: int, dof: int) -> Any:
    """Of as large a minimum by chance, where the covariance is from so many resamples: Hotelling's."""
    return fisher.sf(value / dof * (resamples - dof) / (resamples - dof - 2), dof, resamples - dof)


def minimise(
    function: Callable[[np.ndarray], np.ndarray],
    target: Any,
    weight: Weight,
    start: np.ndarray,
    table: Sequence[Parameter],
    fixed: int | None = None,
) -> Chi2Minimum:
    """Minimise chi^2 of statistics `function(theta)` (n,) less `target` (n,), within the bounds of the table.

    `function` must be finite everywhere within them. The parameter at the place `fixed` keeps its value at the start.
    """
    unit = scales(table)
    low, high = np.array([[p.low, p.high] for p in table]).T
    free = np.arange(len(table)) != fixed
    theta = start.copy()

    def residuals(x: np.ndarray) -> np.ndarray:
        theta[free] = x * unit[free]
        return weight.root @ (function(theta) - target)

    inside = np.clip(start, low + 1e-6 * unit, high - 1e-6 * unit)
    bounds = ((low / unit)[free], (high / unit)[free])
    found = least_squares(residuals, (inside / unit)[free], bounds=bounds, diff_step=1e-4, xtol=1e-6)
    theta[free] = found.x * unit[free]
    covariance = np.zeros((len(table), len(table)))
    covariance[np.ix_(free, free)] = np.linalg.pinv(found.jac.T @ found.jac, hermitian=True)
    return Chi2Minimum(theta, 2 * float(found.cost), bool(found.success), covariance * np.outer(unit, unit))


def profile(
    function: Callable[[np.ndarray], np.ndarray],
    weight: Weight,
    best: Chi2Minimum,
    table: Sequence[Parameter],
    region: Region,
) -> np.ndarray:
    """68% intervals (d, 2) of each parameter: where chi^2, minimised over the others, has risen by 1 (MINOS' errors).

    Unlike the curvature at the minimum they follow a valley that bends. NaN on a side where it does not rise so far
    within the bounds and the `region`.
    """
    ends = np.full((len(table), 2), np.nan)
    for i, (p, unit) in enumerate(zip(table, scales(table), strict=True)):
        known = {float(best.theta[i]): best.theta}

        def rise(x: float, i: int = i, known: Any = known) -> float:
            start = known[min(known, key=lambda other: abs(other - x))].copy()
            start[i] = x
            found = minimise(function, 0.0, weight, start, table, fixed=i)
            known[x] = found.theta
            return float(np.sqrt(max(found.value - best.value, 0.0))) - 1

        for side, bound in enumerate((p.low, p.high)):
            inner = float(best.theta[i])
            step = float(np.clip(np.sqrt(best.covariance[i, i]), 0.01 * unit, unit))
            while inner != bound:
                outer = float(np.clip(inner + step * (2 * side - 1), p.low, p.high))
                if rise(outer) > 0:
                    end = brentq(rise, inner, outer, xtol=1e-3 * abs(outer - inner))
                    ends[i, side] = end if outermost(region, known[end][None]) <= 1 else np.nan
                    break
                inner, step = outer, 1.5 * step
    return ends


class Chi2Label(NamedTuple):
    """Of one label: `minima` on all stars and on each resample, the statistics (n,) at the first and their weight."""

    minima: list[Chi2Minimum]
    statistics: np.ndarray
    weight: Weight


class Chi2Fit(NamedTuple):
    """Chi^2 minimised for E labels, on all stars and on B resamples, over d parameters; n statistics.

    `optimum` (E, d), its `interval` (E, d, 2) by `profile` and its `covariance` (E, d, d) from the curvature; `value`
    (E,) of the minimum, n - d = `dof` in the mean, and `p_value` (E,), of more by chance; `replicates` (E, B, d) and
    `replicate_values` (E, B), of the resamples' statistics less those of all stars at the optimum, so that they have
    the minimum at zero that the truth has (Hall & Horowitz 1996); `converged` (E, 1 + B); `statistics` (E, n) at the
    optimum, their bootstrap covariance `scatter` (E, n, n), and the `root` (E, n, n) of its inverse that chi^2 and its
    rise are of; `terms` (E, terms, n), those of all stars on the surface over each label's region.
    """

    optimum: np.ndarray
    interval: np.ndarray
    covariance: np.ndarray
    value: np.ndarray
    p_value: np.ndarray
    dof: int
    replicates: np.ndarray
    replicate_values: np.ndarray
    converged: np.ndarray
    statistics: np.ndarray
    scatter: np.ndarray
    root: np.ndarray
    terms: np.ndarray
    degree: int
    regions: tuple[Region, ...]


def fit_label(surface: LabelSurface, starts: np.ndarray, table: Sequence[Parameter]) -> Chi2Label:
    """The minima of one label, on all stars the least from some `starts` (S, d).

    The covariance of the statistics is taken at the first start, then twice at the optimum that it gave.
    """
    B = surface.terms.shape[1] - 1
    functions = [_statistics_of(surface, b) for b in range(B + 1)]
    theta = starts[0]
    for _ in range(3):
        chosen = weight(np.stack([function(theta) for function in functions[1:]]), len(table))
        found = [minimise(functions[0], 0.0, chosen, start, table) for start in (theta, *starts[1:])]
        best = min(found, key=lambda minimum: minimum.value)
        theta = best.theta
    centre = functions[0](theta)
    resampled = [minimise(function, centre, chosen, theta, table) for function in functions[1:]]
    return Chi2Label([best, *resampled], centre, chosen)


def possible(bins: int, bootstraps: int, parameters: int) -> bool:
    """Whether there are coefficients more than parameters, and resamples enough for their covariance."""
    n = bins * len(USED)
    return parameters < n < bootstraps - 4


def together(found: Sequence[Chi2Label], surfaces: Sequence[LabelSurface], table: Sequence[Parameter]) -> Chi2Fit:
    """The fits of all labels in one, with their intervals."""
    minima = [label.minima for label in found]
    every = zip(found, surfaces, strict=True)
    values = np.array([[one.value * label.weight.goodness for one in label.minima] for label in found])
    B, dof = values.shape[1] - 1, len(found[0].statistics) - len(table)
    return Chi2Fit(
        optimum=np.stack([m[0].theta for m in minima]),
        interval=np.stack([profile(_statistics_of(s, 0), f.weight, f.minima[0], table, s.region) for f, s in every]),
        covariance=np.stack([m[0].covariance for m in minima]),
        value=values[:, 0],
        p_value=p_value(values[:, 0], B, dof),
        dof=dof,
        replicates=np.array([[one.theta for one in m[1:]] for m in minima]),
        replicate_values=values[:, 1:],
        converged=np.array([[one.converged for one in m] for m in minima]),
        statistics=np.stack([label.statistics for label in found]),
        scatter=np.stack([label.weight.covariance for label in found]),
        root=np.stack([label.weight.root for label in found]),
        terms=np.stack([statistics(surface.terms[:, 0]) for surface in surfaces]),
        degree=surfaces[0].degree,
        regions=tuple(surface.region for surface in surfaces),
    )


def _statistics_of(surface: LabelSurface, replicate: int) -> Callable[[np.ndarray], np.ndarray]:
    read = surface.of_resample(replicate, rim=True)
    return lambda theta: statistics(read(theta))
