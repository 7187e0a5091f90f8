"""Nelder-Mead as the classical path uses it: SciPy's, within the bounds of the parameter table, in its scales."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from ..base.parameters import Parameter

__all__ = ["Minimum", "nelder_mead", "scales"]


class Minimum(NamedTuple):
    """Where Nelder-Mead stopped: theta (d,), the objective, whether it met its tolerances, evaluations it took."""

    theta: np.ndarray
    value: float
    converged: bool
    evaluations: int


def scales(table: Sequence[Parameter]) -> np.ndarray:
    """The unit in which each parameter varies, (d,): a tenth of the width between its bounds."""
    return np.array([(p.high - p.low) / 10 for p in table])


def nelder_mead(
    function: Callable[[np.ndarray], float],
    start: np.ndarray,
    table: Sequence[Parameter],
    fatol: float,
    step: float = 0.5,
) -> Minimum:
    """Minimise `function` of theta (d,) by SciPy's Nelder-Mead within the table's bounds, each parameter in its scale.

    The initial simplex is `start` and one step of `step` scales along each parameter; it stops at 1e-3 of the scales
    and `fatol` in the objective.
    """
    unit = scales(table)
    low, high = np.array([[p.low, p.high] for p in table]).T
    steps = np.where(start + step * unit > high, -step, step)
    found = minimize(
        lambda x: function(np.clip(x * unit, low, high)),
        start / unit,
        method="Nelder-Mead",
        bounds=list(zip(low / unit, high / unit, strict=True)),
        options={
            "initial_simplex": start / unit + np.concatenate([np.zeros((1, len(start))), np.diag(steps)]),
            "xatol": 1e-3,
            "fatol": fatol,
            "maxfev": 4000,
            "maxiter": 4000,
        },
    )
    return Minimum(np.clip(found.x * unit, low, high), float(found.fun), bool(found.success), int(found.nfev))
