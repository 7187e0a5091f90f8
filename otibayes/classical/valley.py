"""The valley of equation 8: three squares of four parameters leave one direction along which it stays at zero."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..base.parameters import Parameter
from .minimum import scales

__all__ = ["Valley", "jacobian", "valley"]


class Valley(NamedTuple):
    """The objective about each label's optimum on all stars, in units of `scales`, and the effect of the start.

    `jacobian` (E, 3, d) of (a1, b1, a2); `eigenvalues` (E, d), ascending, of the Gauss-Newton Hessian 2 J^T J;
    `condition` (E,), largest over smallest, at most 4.5e15; `flat` (E, d), the unit vector of the smallest; `starts`
    (S, d) and `ends` (E, S, d) of the multi-start, in parameters; `spread` (E, d), the standard deviation of the
    ends, in parameters.
    """

    jacobian: np.ndarray
    eigenvalues: np.ndarray
    condition: np.ndarray
    flat: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    spread: np.ndarray


def jacobian(
    series: Callable[[np.ndarray], np.ndarray],
    theta: np.ndarray,
    table: Sequence[Parameter],
    step: float,
    centre: np.ndarray | None = None,
) -> np.ndarray:
    """Of (a1, b1, a2) by parameters in their scales, (3, d), by central differences of `step` scales.

    `series(theta)` gives (c0, a1, b1, a2, b2), or NaN where it is not known: the difference is then one-sided, or, on
    the rim of a region about `centre` where neither side is known, that of a point a twentieth further in.
    """
    unit = scales(table)
    low, high = np.array([[p.low, p.high] for p in table]).T
    columns = []
    for direction in step * np.diag(unit):
        for point in [theta] if centre is None else [theta, theta + 0.05 * (centre - theta)]:
            ends = np.clip([point - direction, point + direction], low, high)
            values = np.stack([series(end)[1:4] for end in ends])
            known = np.isfinite(values).all(1)
            if not known.all():
                ends[~known], values[~known] = point, series(point)[1:4]
            if ends[0] @ direction < ends[1] @ direction:
                break
        columns.append((values[1] - values[0]) / ((ends[1] - ends[0]) / unit).sum())
    return np.stack(columns, -1)


def valley(jacobians: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Valley:
    """From the Jacobians (E, 3, d), and starts and ends of the optimisations on all stars."""
    eigenvalues, vectors = np.linalg.eigh(2 * np.einsum("eci,ecj->eij", jacobians, jacobians))
    # three squares and four parameters: the smallest is zero but for rounding
    smallest = np.maximum(eigenvalues[:, 0], np.finfo(float).eps * eigenvalues[:, -1])
    flat = vectors[:, :, 0]
    flat = flat * np.where(flat[:, :1] < 0, -1, 1)
    return Valley(jacobians, eigenvalues, eigenvalues[:, -1] / smallest, flat, starts, ends, ends.std(1))
