"""Recipes: named lists of cuts, as data (`recipes.toml`), and the kinds of cut that they are made of.

A cut is a pure function of columns that returns which rows (N,) pass. Columns are float64 arrays (N,) with NaN where
there is no value; a missing value never passes. Flags, of which surveys use up to 53 bits, are exact as float64 too.
"""

import importlib.resources
import inspect
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.errors import InputError

__all__ = [
    "CUTS",
    "between",
    "bits_unset",
    "book",
    "columns_of",
    "highest",
    "in_polygon",
    "ratio_above",
    "recipe",
    "red_clump",
]

_Z_SUN = 0.017  # Bovy et al. 2014
_BITS = 53  # of a flag, as a float64 holds it
_Cuts = dict[str, dict[str, Any]]


def book() -> dict[str, Any]:
    """What `recipes.toml` says of surveys, distances and recipes."""
    return tomllib.loads((importlib.resources.files(__package__) / "recipes.toml").read_text())


def recipe(name: str, override: Mapping[str, Any] | None = None) -> tuple[list[str], _Cuts]:
    """The surveys that a recipe is for, and its cuts by name, as overridden.

    `override` maps a cut to the arguments to change, {"snr": {"min": 50}}, or to "off"; a new cut must say its kind.
    Raises `InputError` for an unknown recipe or cut, or an argument that its kind of cut cannot use.
    """
    known = book()["recipe"]
    if name not in known:
        raise InputError(f"no recipe {name}; choose from {', '.join(known)}")
    base = known.get(known[name].get("like", ""), {})
    surveys, cuts = (base or known[name])["surveys"], dict(base.get("cuts", {}))
    for source in (known[name]["cuts"], override or {}):
        for cut, change in source.items():
            if change == "off" and cut in cuts:
                del cuts[cut]
            elif isinstance(change, Mapping) and (cut in cuts or "kind" in change):
                cuts[cut] = {**cuts.get(cut, {}), **change}
                _check(cut, cuts[cut])
            else:
                raise InputError(f"recipe {name} has no cut {cut} to change to {change}; its cuts: {', '.join(cuts)}")
    # The best row of a star is chosen among the rows that pass all other cuts.
    return surveys, dict(sorted(cuts.items(), key=lambda item: item[1]["kind"] == "highest"))


def columns_of(cut: Mapping[str, Any]) -> dict[str, str]:
    """The arguments of a recipe's cut that name columns."""
    parameters = _parameters(cut["kind"])
    return {a: value for a, value in cut.items() if a != "kind" and parameters[a].annotation is np.ndarray}


def between(column: np.ndarray, min: float = -np.inf, max: float = np.inf) -> np.ndarray:
    """min < column < max."""
    return (column > min) & (column < max)


def bits_unset(column: np.ndarray, bits: Sequence[int] | str) -> np.ndarray:
    """None of these bits (counted from 0), or with bits="any" no bit at all, is set in a flag."""
    if isinstance(bits, str):
        return column == 0
    mask = sum(1 << bit for bit in bits)
    known = np.abs(column) < 2.0**_BITS
    return ((np.where(known, column, 0.0).astype(np.int64) & mask) == 0) & known


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


def highest(column: np.ndarray, star: Any = None, among: Any = None) -> np.ndarray:
    """The row with the highest value of each `star` (N,); judged only `among` those that pass all other cuts."""
    order = np.lexsort((np.arange(column.size), -np.nan_to_num(column, nan=-np.inf), ~among, star))
    best = np.ones(column.size, bool)
    best[order[1:]] = star[order[1:]] != star[order[:-1]]
    return best | ~among


CUTS = {f.__name__: f for f in (between, bits_unset, in_polygon, ratio_above, red_clump, highest)}


def _parameters(kind: str) -> dict[str, inspect.Parameter]:
    """What a recipe gives to this kind of cut."""
    parameters = inspect.signature(CUTS[kind]).parameters
    return {name: p for name, p in parameters.items() if p.annotation is not Any}


def _check(cut: str, arguments: Mapping[str, Any]) -> None:
    """Raise `InputError` unless these arguments are those of their kind of cut."""
    kind = arguments.get("kind")
    if not isinstance(kind, str) or kind not in CUTS:
        raise InputError(f"cut {cut}: no kind of cut {kind!r:.40}; choose from {', '.join(CUTS)}")
    parameters = _parameters(kind)
    wrong = [a for a in arguments if a not in {"kind", *parameters}]
    wrong += [a for a, p in parameters.items() if p.default is p.empty and a not in arguments]
    if wrong:
        raise InputError(f"cut {cut} ({kind}) cannot use {wrong}; its arguments are {', '.join(parameters)}")
    for name, value in arguments.items():
        if name == "kind":
            continue
        if name == "bits":
            right, wanted = value == "any" or _is_bits(value), f'"any" or whole numbers from 0 to {_BITS - 1}'
        elif name == "vertices":
            right, wanted = _is_polygon(value), "three or more pairs of numbers, [[x, y], [x, y], [x, y]]"
        elif parameters[name].annotation is np.ndarray:
            right, wanted = isinstance(value, str) and value != "", "the name of a column"
        else:
            right, wanted = _is_number(value), "a number"
        if not right:
            raise InputError(f"cut {cut} ({kind}) cannot use {name}={value!r:.60}; give {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < np.inf


def _is_bits(value: Any) -> bool:
    integers = isinstance(value, list | tuple) and all(type(bit) is int for bit in value)
    return integers and len(value) > 0 and all(0 <= bit < _BITS for bit in value)


def _is_polygon(value: Any) -> bool:
    def is_pair(corner: Any) -> bool:
        return isinstance(corner, list | tuple) and len(corner) == 2 and all(map(_is_number, corner))

    return isinstance(value, list | tuple) and len(value) >= 3 and all(map(is_pair, value))
