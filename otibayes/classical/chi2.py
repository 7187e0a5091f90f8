"""An objective without the valley, ours and not the paper's: chi^2 of binned coefficients.

Equation 8 sets three numbers to zero with four parameters. Here a1, b1, a2 and a4 of each bin of J_z are, weighted by
the inverse of their bootstrap covariance: the signal's change with J_z, and the shape of the orbits, tell disk mass
from scale height, so that the minimum is unique. At the truth its value is distributed as chi^2 with as many degrees of
freedom as there are coefficients less parameters, but for the covariance's own noise (Hartlap et al. 2007).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from ..parameters import Parameter
from .fourier import coefficient_names
from .minimum import scales
from .objective import BINNED
from .trust import LabelSurface

__all__ = [
    "USED",
    "Chi2Fit",
    "Chi2Minimum",
    "Weight",
    "fit_label",
    "minimise",
    "possible",
    "statistics",
    "together",
    "weight",
]

USED = ("a1", "b1", "a2", "a4")  # of each bin; b2 and b4 test the model's assumptions, and stay out as in equation 8
_PLACES = [coefficient_names(BINNED).index(name) for name in USED]


class Weight(NamedTuple):
    """`root` (n, n), with root^T root the unbiased inverse covariance of the n statistics; `covariance` (n, n)."""

    root: np.ndarray
    covariance: np.ndarray


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


def weight(replicates: np.ndarray) -> Weight:
    """From statistics (B, n) of bootstrap resamples, more than n + 2 of them."""
    B, n = replicates.shape
    covariance = np.atleast_2d(np.cov(replicates.T))
    inverse = np.linalg.inv(covariance) * (B - n - 2) / (B - 1)  # Hartlap et al. (2007)
    return Weight(np.linalg.cholesky(inverse).T, covariance)


def minimise(
    function: Callable[[np.ndarray], np.ndarray],
    target: np.ndarray,
    weight: Weight,
    start: np.ndarray,
    table: Sequence[Parameter],
) -> Chi2Minimum:
    """Minimise chi^2 of statistics `function(theta)` (n,) less `target` (n,), within the bounds of the table.

    `function` must be finite everywhere within them.
    """
    unit = scales(table)
    low, high = np.array([[p.low, p.high] for p in table]).T

    def residuals(x: np.ndarray) -> np.ndarray:
        return weight.root @ (function(x * unit) - target)

    inside = np.clip(start, low + 1e-6 * unit, high - 1e-6 * unit)
    found = least_squares(residuals, inside / unit, bounds=(low / unit, high / unit), diff_step=1e-4, xtol=1e-6)
    curvature = found.jac.T @ found.jac
    covariance = np.linalg.pinv(curvature, hermitian=True) * np.outer(unit, unit)
    return Chi2Minimum(found.x * unit, 2 * float(found.cost), bool(found.success), covariance)


class Chi2Fit(NamedTuple):
    """Chi^2 minimised for E labels, on all stars and on B resamples, over d parameters; n statistics.

    `optimum` (E, d) and its `covariance` (E, d, d) from the curvature; `value` (E,) of chi^2, with `dof` degrees of
    freedom; `replicates` (E, B, d) and `replicate_values` (E, B), of the resamples' statistics less those of all stars
    at the optimum, so that they have the minimum at zero that the truth has (Hall & Horowitz 1996); `converged` (E, 1 +
    B); `statistics` (E, n) at the optimum and their bootstrap covariance `scatter` (E, n, n).
    """

    optimum: np.ndarray
    covariance: np.ndarray
    value: np.ndarray
    dof: int
    replicates: np.ndarray
    replicate_values: np.ndarray
    converged: np.ndarray
    statistics: np.ndarray
    scatter: np.ndarray


def fit_label(
    surface: LabelSurface, start: np.ndarray, table: Sequence[Parameter]
) -> tuple[list[Chi2Minimum], np.ndarray, np.ndarray]:
    """Minima on all stars and on the resamples, statistics at the first, and their covariance, for one label.

    From `start` (d,). The covariance is taken at the start, then twice at the optimum that it gave.
    """
    B = surface.terms.shape[1] - 1
    functions = [_statistics_of(surface, b) for b in range(B + 1)]
    theta = start
    for _ in range(3):
        chosen = weight(np.stack([function(theta) for function in functions[1:]]))
        best = minimise(functions[0], np.zeros(len(chosen.root)), chosen, theta, table)
        theta = best.theta
    centre = functions[0](theta)
    resampled = [minimise(function, centre, chosen, theta, table) for function in functions[1:]]
    return [best, *resampled], centre, chosen.covariance


def possible(bins: int, bootstraps: int, parameters: int) -> bool:
    """Whether there are coefficients more than parameters, and resamples enough for their covariance."""
    n = bins * len(USED)
    return parameters < n < bootstraps - 2


def together(found: Sequence[tuple[list[Chi2Minimum], np.ndarray, np.ndarray]]) -> Chi2Fit:
    """The fits of all labels in one."""
    minima = [label[0] for label in found]
    return Chi2Fit(
        optimum=np.stack([m[0].theta for m in minima]),
        covariance=np.stack([m[0].covariance for m in minima]),
        value=np.array([m[0].value for m in minima]),
        dof=len(found[0][1]) - len(minima[0][0].theta),
        replicates=np.array([[one.theta for one in m[1:]] for m in minima]),
        replicate_values=np.array([[one.value for one in m[1:]] for m in minima]),
        converged=np.array([[one.converged for one in m] for m in minima]),
        statistics=np.stack([label[1] for label in found]),
        scatter=np.stack([label[2] for label in found]),
    )


def _statistics_of(surface: LabelSurface, replicate: int) -> Callable[[np.ndarray], np.ndarray]:
    read = surface.of_resample(replicate, rim=True)
    return lambda theta: statistics(read(theta))
