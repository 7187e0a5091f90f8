"""chi^2 of binned coefficients: an objective without the valley of equation 8; ours, not the paper's.

Equation 8 sets three numbers to zero with four parameters. Here they are a1, b1, a2 and a4 of each bin of J_z, weighted
by the inverse of their bootstrap covariance. The signal's change with J_z and the shape of the orbits separate disk
mass from scale height, so that the minimum is unique. A covariance from B resamples is noisy: the minimum over d
parameters is Hotelling's T^2 of the n - d numbers that are left (Rao 1959), and the rise from it towards the truth is
scaled to a mean of d (Dodelson & Schneider 2013).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from iminuit import Minuit
from scipy.optimize import least_squares
from scipy.stats import f as fisher

from ..base.parameters import Parameter
from ..base.response_surface import Surface, distance, reader
from .objective import coefficient_names, scales
from .statistic import BINNED

__all__ = [
    "USED",
    "Chi2Element",
    "Chi2Minimum",
    "fit_element",
    "minimise_chi2",
    "p_value",
    "possible",
    "profile",
    "statistics",
    "weight",
]

USED = ("a1", "b1", "a2", "a4")  # of each bin; b2 and b4 test the model's assumptions, and stay out as in equation 8
_PLACES = [coefficient_names(BINNED).index(name) for name in USED]


class _Weight(NamedTuple):
    """`root` (n, n): root^T root is the inverse of the n statistics' `covariance` (n, n), scaled so that chi^2 at the
    truth is on average d above its minimum. `goodness` times the minimum is n - d on average."""

    root: np.ndarray
    covariance: np.ndarray
    goodness: float


class Chi2Minimum(NamedTuple):
    """`theta` (d,), `value` of chi^2, `converged`; `slopes` (n, d) of the weighted statistics there, by theta, and the
    `covariance` (d, d) of theta from them."""

    theta: np.ndarray
    value: float
    converged: bool
    slopes: np.ndarray
    covariance: np.ndarray


class Chi2Element(NamedTuple):
    """chi^2 of one element: `minima` of all stars and of each resample; at the first minimum, the `statistics` (n,) of
    all stars and those of the resamples, `resampled` (B, n), their `weight`, and the profile `interval` (d, 2); the
    `surface` of all."""

    minima: list[Chi2Minimum]
    statistics: np.ndarray
    resampled: np.ndarray
    weight: _Weight
    surface: Surface
    interval: np.ndarray


def possible(bins: int, bootstraps: int, parameters: int) -> bool:
    """Whether there are more statistics than parameters, and enough resamples for their covariance."""
    n = bins * len(USED)
    return parameters < n < bootstraps - 4


def statistics(binned: np.ndarray) -> np.ndarray:
    """What is to vanish, (..., 4 bins), of binned coefficients (..., bins, 7)."""
    chosen = binned[..., _PLACES]
    return chosen.reshape(*chosen.shape[:-2], -1)


def weight(replicates: np.ndarray, parameters: int) -> _Weight:
    """From statistics (B, n) of more than n + 4 resamples, for a fit of so many parameters."""
    (B, n), d = replicates.shape, parameters
    covariance = np.atleast_2d(np.cov(replicates.T))
    unbiased = (B - n - 2) / (B - 1)  # Hartlap et al. (2007)
    scattered = 1 + (n - d) * (B - n - 2) / ((B - n - 1) * (B - n - 4))  # Dodelson & Schneider (2013), equation 28
    rise, value = unbiased / scattered, (B - (n - d) - 2) / (B - 1)
    return _Weight(np.linalg.cholesky(np.linalg.inv(covariance) * rise).T, covariance, value / rise)


def p_value(value: Any, resamples: int, dof: int) -> Any:
    """Probability of as large a minimum, with the covariance of so many resamples: Hotelling's."""
    return fisher.sf(value / dof * (resamples - dof) / (resamples - dof - 2), dof, resamples - dof)


def minimise_chi2(
    function: Callable[[np.ndarray], np.ndarray],
    target: Any,
    root: np.ndarray,
    start: np.ndarray,
    table: Sequence[Parameter],
) -> Chi2Minimum:
    """Minimise chi^2 of statistics `function(theta)` (n,) less `target` (n,), within the bounds of the table.

    chi^2 is the square of `root` (n, n) times the difference. `function` must be finite everywhere within them.
    """
    unit = scales(table)
    low, high = np.array([[p.low, p.high] for p in table]).T
    inside = np.clip(start, low + 1e-6 * unit, high - 1e-6 * unit)
    found = least_squares(
        lambda x: root @ (function(x * unit) - target),
        inside / unit,
        bounds=(low / unit, high / unit),
        diff_step=1e-4,
        ftol=1e-4,  # of chi^2: a hundredth of a standard deviation
        xtol=1e-6,
    )
    covariance = np.linalg.pinv(found.jac.T @ found.jac, hermitian=True) * np.outer(unit, unit)
    return Chi2Minimum(found.x * unit, 2 * float(found.cost), bool(found.success), found.jac / unit, covariance)


def fit_element(surface: Surface, starts: np.ndarray, table: Sequence[Parameter]) -> Chi2Element:
    """The minima of one element from the surface of its statistics (terms, 1 + B, n); of all stars the least of those
    from `starts` (S, d).

    The covariance of the statistics is taken at the first start, then two more times at the optimum so far. From a
    resample's statistics those of all stars at the optimum are subtracted, so that they vanish where those of the
    population do (Hall & Horowitz 1996).
    """
    rows = [_function(surface, row) for row in range(surface.coefficients.shape[1])]
    theta = starts[0]
    for _ in range(3):
        chosen = weight(np.stack([function(theta) for function in rows[1:]]), len(table))
        found = [minimise_chi2(rows[0], 0.0, chosen.root, start, table) for start in (theta, *starts[1:])]
        best = min(found, key=lambda minimum: minimum.value)
        theta = best.theta
    centre, resampled = rows[0](theta), np.stack([function(theta) for function in rows[1:]])
    minima = [minimise_chi2(function, centre, chosen.root, theta, table) for function in rows[1:]]
    return Chi2Element([best, *minima], centre, resampled, chosen, surface, np.full((len(table), 2), np.nan))


def profile(element: Chi2Element, table: Sequence[Parameter]) -> np.ndarray:
    """68% intervals (d, 2) of each parameter, by MINOS: where chi^2, minimised over the others, has risen by 1.

    They follow a valley that bends, as the curvature at the minimum does not. NaN on a side where chi^2 does not rise
    so far within the bounds and the region of the surface.
    """
    function, root, best = _function(element.surface, 0), element.weight.root, element.minima[0]

    def found(**fixed: float) -> Minuit:
        start = [fixed.get(p.name, value) for p, value in zip(table, best.theta, strict=True)]
        minuit = Minuit(lambda x: float(((root @ function(x)) ** 2).sum()), start, name=[p.name for p in table])
        minuit.errordef = Minuit.LEAST_SQUARES
        for p, sd, unit in zip(table, np.sqrt(np.diag(best.covariance)), scales(table), strict=True):
            minuit.limits[p.name], minuit.errors[p.name] = (p.low, p.high), np.clip(sd, 1e-3 * unit, unit)
            minuit.fixed[p.name] = p.name in fixed
        return minuit.migrad()

    minuit, ends = found(), np.full((len(table), 2), np.nan)
    for i, p in enumerate(table):
        try:
            minuit.minos(p.name)
        except RuntimeError:  # MIGRAD has not converged
            continue
        error = minuit.merrors[p.name]
        for side, (valid, step) in enumerate(((error.lower_valid, error.lower), (error.upper_valid, error.upper))):
            end = minuit.values[p.name] + step
            if valid and distance(element.surface.region, np.array(found(**{p.name: end}).values)) <= 1:
                ends[i, side] = end
    return ends


def _function(surface: Surface, row: int) -> Callable[[np.ndarray], np.ndarray]:
    """The statistics (n,) of one row; outside the ball those at its nearest point, which keeps optimisers going."""
    return reader(surface.region, surface.degree, surface.coefficients[:, row], nearest=True)
