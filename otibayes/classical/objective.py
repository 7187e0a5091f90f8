"""Equations 3 to 8 of PW21, and its procedure box (section 6.2) as the paper reads.

`plain_coefficients` is the procedure for one label and one resample, to be checked against the paper. `Statistic` in
`statistic` gives the same numbers for all labels and resamples at once, and everything else runs on it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from ..base.parameters import Parameter
from ..dynamics.frame import PhaseSpace, phase_space
from ..dynamics.potential import MassModel

__all__ = [
    "Actions",
    "Minimum",
    "coefficient_names",
    "design",
    "least_squares",
    "minimise_objective",
    "normal_matrices",
    "objective",
    "plain_coefficients",
    "projections",
    "scales",
    "solve",
]

Actions = Callable[[PhaseSpace, Any], Any]

_CHUNK = 4096  # stars: products of terms of all stars at once would be large


def plain_coefficients(
    theta: Any,
    stars: Any,
    label: np.ndarray,
    sigma: np.ndarray,
    draws: np.ndarray,
    actions: Actions,
    neighbours: int = 64,
) -> np.ndarray:
    """(c0, a1, b1, a2, b2) of one label on one resample, steps 1 to 6 of PW21's procedure as they read.

    `theta` a `Parameters`; `stars` N of them; `label` and `sigma` (N,); `draws`, the resample as indices of stars (all
    stars: 0 to N - 1); `actions(w, theta)` gives an `ActionAngle` of phase space `w`. Slow; for comparison.
    """
    w = phase_space(stars, theta)  # 2
    aa = actions(w, theta)  # 1 (the halo is part of the mass model), 3 and 4
    J = np.stack([aa.J_R, aa.L_z, aa.J_z], -1)[draws]
    theta_z, y = np.asarray(aa.theta_z)[draws], label[draws]
    _, near = cKDTree(J).query(J, k=neighbours + np.bincount(draws).max())
    deviation = np.empty(len(draws))
    for n in range(len(draws)):
        k = near[n][draws[near[n]] != draws[n]][:neighbours]  # a star and its copies are not its neighbours
        x = J[k].mean(0) - J[n]  # A2
        xi = (J[k] - J[n]) @ x  # A3
        w_k = xi * xi.sum() - (xi**2).sum()  # A6
        mean = (w_k * y[k]).sum() / w_k.sum() if xi.any() else y[k].mean()  # A5, or A1 where A2 underflows
        deviation[n] = y[n] - mean  # 5: equation 2
    M = np.stack([np.ones_like(theta_z), *(f(m * theta_z) for m in (1, 2) for f in (np.cos, np.sin))], -1)  # 4
    C_inverse = sigma[draws, None] ** -2.0  # 6, its diagonal
    return np.linalg.solve(M.T @ (C_inverse * M), M.T @ (C_inverse[:, 0] * deviation))  # step 6: equation 7


# ---- equations 3 to 8


def coefficient_names(harmonics: Sequence[int] = (1, 2)) -> list[str]:
    """Names in the order of equation 4's columns: c0, a1, b1, a2, b2 (equation 7 lists them otherwise, a misprint)."""
    return ["c0"] + [f"{kind}{m}" for m in harmonics for kind in "ab"]


def design(angle: Any, harmonics: Sequence[int] = (1, 2)) -> np.ndarray:
    """Design matrix (N, 1 + 2 harmonics) of angles (N,) [rad]: 1, cos, sin, cos 2, sin 2, ... (PW21, equation 4)."""
    angle = np.asarray(angle)
    waves = [wave(m * angle) for m in harmonics for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(angle), *waves], -1)


def normal_matrices(M: np.ndarray, inverse: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """M^T C^-1 M of equation 7, (B, E, T, T).

    `M` (N, T); `inverse` variances (N, E); `counts` (B, N): how often each star was drawn in each resample.
    """
    (N, T), E, B = M.shape, inverse.shape[1], len(counts)
    row, column = np.triu_indices(T)
    upper = np.zeros((B, E * len(row)))
    for first in range(0, N, _CHUNK):
        chosen = slice(first, first + _CHUNK)
        products = inverse[chosen, :, None] * (M[chosen, row] * M[chosen, column])[:, None]
        upper += counts[:, chosen].astype(float) @ products.reshape(len(products), -1)
    normal = np.empty((B, E, T, T))
    normal[..., row, column] = normal[..., column, row] = upper.reshape(B, E, len(row))
    return normal


def projections(M: np.ndarray, deviations: np.ndarray, inverse: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """M^T C^-1 y of equation 7, (B, E, T), of some stars, to be summed over all.

    `deviations` (N, E, B); the others as for `normal_matrices`.
    """
    weighted = (inverse[:, :, None] * M[:, None]).transpose(1, 2, 0).astype(deviations.dtype)
    drawn = deviations * counts.T[:, None].astype(deviations.dtype)
    return np.matmul(weighted, drawn.transpose(1, 0, 2)).transpose(2, 0, 1).astype(float)


def solve(normal: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Coefficients (B, E, T) (PW21, equation 7)."""
    return np.linalg.solve(normal, projection[..., None])[..., 0]


def least_squares(
    angle: Any, deviations: Any, inverse: Any = None, counts: Any = None, harmonics: Sequence[int] = (1, 2)
) -> np.ndarray:
    """Best-fitting coefficients (B, E, 1 + 2 harmonics) of equation 3 in the deviations' unit (PW21, equation 7).

    `angle` (N,) [rad]; `deviations` (B, N, E); `inverse` variances (N, E) (None: equal); `counts` (B, N): how often
    each star was drawn in each resample (None: once). Ordered as `coefficient_names`.
    """
    y, M = np.asarray(deviations).transpose(1, 2, 0), design(angle, harmonics)
    inverse = np.ones(y.shape[:2]) if inverse is None else np.asarray(inverse, float)
    counts = np.ones((y.shape[2], len(y))) if counts is None else np.asarray(counts)
    return solve(normal_matrices(M, inverse, counts), projections(M, y, inverse, counts))


def objective(series: Any, all_terms: bool = False) -> Any:
    """a1^2 + b1^2 + a2^2 over the last axis of (c0, a1, b1, a2, b2) (PW21, equation 8, step 7).

    `all_terms` adds c0^2 and b2^2, the variant that the paper verified to change little.
    """
    chosen = series if all_terms else series[..., 1:4]
    return (chosen**2).sum(-1)


# ---- the minimum of equation 8


class Minimum(NamedTuple):
    """Where Nelder-Mead stopped: theta (d,), the objective, whether it met its tolerances, evaluations it took."""

    theta: np.ndarray
    value: float
    converged: bool
    evaluations: int


def scales(table: Sequence[Parameter]) -> np.ndarray:
    """The unit in which each parameter varies, (d,): a tenth of the width between its bounds."""
    return np.array([(p.high - p.low) / 10 for p in table])


def minimise_objective(
    series: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    model: MassModel,
    tolerance: float,
    all_terms: bool = False,
) -> Minimum:
    """Minimise equation 8 of `series(theta)`, (c0, a1, b1, a2, b2), by Nelder-Mead within the bounds (step 8).

    The objective is infinite where the coefficients are NaN. The initial simplex is `start` (d,) and a step of half of
    a scale along each parameter; it stops at 1e-3 of the scales and at `tolerance` in the objective.
    """
    unit = scales(model.parameters)
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    steps = np.where(start + 0.5 * unit > high, -0.5, 0.5)

    def function(x: np.ndarray) -> float:
        value = float(objective(series(np.clip(x * unit, low, high)), all_terms))
        return value if np.isfinite(value) else np.inf

    found = minimize(
        function,
        start / unit,
        method="Nelder-Mead",
        bounds=list(zip(low / unit, high / unit, strict=True)),
        options={
            "initial_simplex": start / unit + np.concatenate([np.zeros((1, len(start))), np.diag(steps)]),
            "xatol": 1e-3,
            "fatol": tolerance,
            "maxfev": 4000,
            "maxiter": 4000,
        },
    )
    return Minimum(np.clip(found.x * unit, low, high), float(found.fun), bool(found.success), int(found.nfev))
