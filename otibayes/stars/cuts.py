"""The kinds of cut that recipes are made of: pure functions of columns, each returning which rows (N,) pass.

Columns are float64 arrays (N,) with NaN where there is no value; a missing value never passes. Flags, of which surveys
use up to 53 bits, are exact as float64 too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["CUTS", "between", "bits_unset", "columns_of", "highest", "in_polygon", "ratio_above", "red_clump"]

_Z_SUN = 0.017  # Bovy et al. 2014
# Arguments of cuts that name a column.
_COLUMN_ARGUMENTS = ("column", "x", "y", "numerator", "denominator", "teff", "logg", "fe_h", "j", "k", "a_k")


def columns_of(cut: Mapping[str, Any]) -> dict[str, str]:
    """The arguments of a recipe's cut that name columns."""
    return {name: cut[name] for name in _COLUMN_ARGUMENTS if name in cut}


def between(column: np.ndarray, min: float = -np.inf, max: float = np.inf) -> np.ndarray:
    """min < column < max."""
    return (column > min) & (column < max)


def bits_unset(column: np.ndarray, bits: Sequence[int] | str) -> np.ndarray:
    """None of these bits (counted from 0), or with bits="any" no bit at all, is set in a flag."""
    if isinstance(bits, str):
        return column == 0
    mask = sum(1 << bit for bit in bits)
    flags = np.nan_to_num(column, nan=0.0).astype(np.int64)
    return ((flags & mask) == 0) & np.isfinite(column)


def in_polygon(x: np.ndarray, y: np.ndarray, vertices: Sequence[Sequence[float]]) -> np.ndarray:
    """(x, y) lies inside the polygon: a ray towards +x crosses its edges an odd number of times."""
    corners = np.asarray(vertices, float)
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside & np.isfinite(x) & np.isfinite(y)


def ratio_above(numerator: np.ndarray, denominator: np.ndarray, min: float) -> np.ndarray:
    """numerator / denominator > min, for a positive denominator."""
    return (numerator > min * denominator) & (denominator > 0)


def red_clump(
    teff: np.ndarray, logg: np.ndarray, fe_h: np.ndarray, j: np.ndarray, k: np.ndarray, a_k: np.ndarray
) -> np.ndarray:
    """Likely red-clump stars (Bovy et al. 2014, Eqs. 2-3 in log g and Teff [K], 8-9 in (J - Ks)_0 and Z).

    A_J / A_K = 2.5 (Indebetouw et al. 2005) dereddens the colour with the extinction a_k [mag].
    """
    colour = j - k - 1.5 * a_k
    Z = _Z_SUN * 10**fe_h
    logg_max = 0.0018 * (teff - (-382.5 * fe_h + 4607)) + 2.5
    clump = (logg >= 1.8) & (logg <= logg_max)
    Z_min, Z_max = 1.21 * (colour - 0.05) ** 9 + 0.0011, 2.58 * (colour - 0.4) ** 3 + 0.0034
    return clump & (Z_min < Z) & (Z_max > Z) & (Z <= 0.06) & (colour > 0.5) & (colour < 0.8) & (a_k > -1)


def highest(column: np.ndarray, identifier: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The row with the highest value of each identifier; judged only `among` those that pass all other cuts."""
    order = np.lexsort((np.arange(column.size), -np.nan_to_num(column, nan=-np.inf), ~among, identifier))
    best = np.ones(column.size, bool)
    best[order[1:]] = identifier[order[1:]] != identifier[order[:-1]]
    return best | ~among


CUTS = {f.__name__: f for f in (between, bits_unset, in_polygon, ratio_above, red_clump, highest)}
