"""What a value of a catalogue means: which values say "missing", which are possible, which identify a star."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..base.errors import InputError

__all__ = [
    "ABUNDANCE",
    "MISSING_TEXT",
    "RANGES",
    "Identifiers",
    "Range",
    "clean_error",
    "clean_label",
    "column_values",
    "first_reason",
    "identifiers",
    "is_element",
    "is_fill",
    "sky_values",
    "unusable",
]


class Range(NamedTuple):
    """The unit that a column is meant in where it has none, and the plausible values in that unit."""

    unit: u.UnitBase
    low: float
    high: float


RANGES = {
    "ra": Range(u.deg, -180.0, 360.0),
    "dec": Range(u.deg, -90.0, 90.0),
    "parallax": Range(u.mas, 1 / 300, 1000.0),  # Proxima has 768 mas
    "distance": Range(u.kpc, 1e-3, 300.0),  # from Proxima to the edge of the Galaxy
    "pmra": Range(u.mas / u.yr, -11_000.0, 11_000.0),  # Barnard's star moves by 10,390 mas/yr
    "pmdec": Range(u.mas / u.yr, -11_000.0, 11_000.0),
    "radial_velocity": Range(u.km / u.s, -3000.0, 3000.0),  # the fastest star known moves by 2,300 km/s
}
ABUNDANCE = Range(u.dex, -5.0, 5.0)
_ANGLES = ("ra", "dec")  # which may really be 99

MISSING_TEXT = ("", "--", "-", "...", "null", "none", "n/a", "na", "nan", "<na>", "nat", "masked", "\\n")
_HUGE = 9e18  # the largest integers, 1e20 of a masked column of astropy, 1e30, the largest floats
# What people write for "missing": 99, 999, 9999, ..., with up to three decimals, of either sign
_NINES = np.array([float("9" * digits + decimals) for digits in range(2, 10) for decimals in ("", ".9", ".99", ".999")])
_SMALLEST_INTEGERS = (-(2.0**15), -(2.0**31), 2.0**31 - 1)
_SINGLE = 1e-7  # relative rounding of a 32-bit float
_NO_NAME = re.compile(r"|-\d+|0+|9{4,}")  # text that identifies no star
_EXPONENT = re.compile(r"\d\.?\d*[eE]\+?\d+")

# Elements that are measured in stars, with metallicity and alpha; an ion has its stage behind (TI2, TIII)
_SYMBOLS = (
    "H HE LI BE B C N O F NE NA MG AL SI P S CL AR K CA SC TI V CR MN FE CO NI CU ZN GA GE AS SE BR KR RB SR Y ZR NB"
    " MO RU RH PD AG CD IN SN SB TE I XE CS BA LA CE PR ND SM EU GD TB DY HO ER TM YB LU HF TA W RE OS IR PT AU HG TL"
    " PB BI TH U M ALPHA"
)
_ELEMENT = re.compile(rf"\[?({'|'.join(_SYMBOLS.split())})(II?I?|[123])?[_/](H|FE|M)\]?", re.IGNORECASE)


def is_element(name: str) -> bool:
    """Whether a label is an abundance ratio of a known element, such as MG_FE, M_H or [Mg/Fe]."""
    return _ELEMENT.fullmatch(name) is not None


def is_fill(values: np.ndarray, label: bool = False) -> np.ndarray:
    """Which values (N,) say "missing".

    A `label` that is no abundance may really be 99 or 9999 (a number, a temperature): there a positive one counts only
    if it stands farther from all other values than they are from one another.
    """
    size = np.abs(values)
    nearest = _NINES[np.minimum(np.searchsorted(_NINES, size * (1 - _SINGLE)), _NINES.size - 1)]
    nines = np.abs(size - nearest) <= _SINGLE * size
    never = (size >= _HUGE) | np.isin(values, _SMALLEST_INTEGERS)
    if not label:
        return nines | never
    never |= nines & ((values < 0) | ((values > 9999.5) & (nearest % 1 > 0)))
    others = values[~nines & ~never & np.isfinite(values)]
    if others.size == 0:
        return never
    return never | (nines & (values - others.max() > np.ptp(others)))


def clean_label(name: str, values: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """A label (N,), NaN where it is missing or impossible, and how many values are so, by reason."""
    fill = is_fill(values, label=not is_element(name))
    wrong = is_element(name) & ~fill & (np.abs(values) > ABUNDANCE.high)
    counts = {"fill values": int(fill.sum()), f"beyond {ABUNDANCE.high:g} dex": int(wrong.sum())}
    return np.where(fill | wrong, np.nan, values), {reason: count for reason, count in counts.items() if count}


def clean_error(name: str, errors: np.ndarray) -> np.ndarray:
    """Errors (N,) of a label, NaN where there is none: zero, negative, a fill value, or too large for an abundance."""
    high = ABUNDANCE.high if is_element(name) else np.inf
    return np.where((errors > 0) & (errors < high) & ~is_fill(errors), errors, np.nan)


def unusable(columns: Mapping[str, Any], fill: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Rows (N,) that cannot be used, by reason: a position or velocity is missing, a fill value, or impossible.

    `columns` are those of `RANGES`, in their units; `fill` the rows of each that are fill values, by default as they
    are in these units.
    """
    values = {name: np.asarray(column, float) for name, column in columns.items()}
    fill = {name: is_fill(v, label=name in _ANGLES) for name, v in values.items()} if fill is None else fill
    bad = {f"{name} missing": ~np.isfinite(v) for name, v in values.items()}
    bad |= {f"{name} is a fill value": rows for name, rows in fill.items()}
    bad |= {f"{name} <= 0": values[name] <= 0 for name in ("parallax", "distance") if name in values}
    for name, v in values.items():
        low = RANGES[name].low
        if name == "ra" and (v[~fill[name]] > 180).any():
            low = 0.0  # right ascension runs from 0 to 360, or from -180 to 180
        bad[f"{name} implausible"] = (v < low) | (v > RANGES[name].high)
    return bad


def first_reason(bad: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, tuple[tuple[str, int], ...]]:
    """Rows that nothing is wrong with (n,), and for each reason the number of rows it is the first to apply to."""
    keep, dropped = np.ones(n, bool), []
    for reason, rows in bad.items():
        if count := int(np.sum(keep & rows)):
            dropped.append((reason, count))
        keep &= ~rows
    return keep, tuple(dropped)


def column_values(table: Table, name: str, unit: u.UnitBase | None = None) -> np.ndarray:
    """One numeric column (N,) as float64 in `unit`, NaN where missing; a column without a unit is taken to be in it.

    Raises `InputError` for a column that is not one number per row, or whose unit cannot be converted.
    """
    data = table[name]
    if data.ndim != 1:
        raise InputError(f"column {name}: has shape {data.shape} where one number per row is needed; choose another")
    if data.dtype.kind == "U":
        values = _numbers_in(np.ma.filled(data, ""), name)
    elif data.dtype.kind in "biuf":
        values = np.array(np.ma.filled(np.ma.asarray(data).astype(float), np.nan))
    else:
        raise InputError(f"column {name}: holds {data.dtype} where numbers are needed; choose another")
    if unit is None or data.unit is None:
        return values
    try:
        return u.Quantity(values, data.unit).to_value(unit)
    except (u.UnitConversionError, TypeError, ValueError):
        raise InputError(
            f"column {name}: its unit '{data.unit}' cannot be converted to {unit}; correct or remove the unit"
        ) from None


def sky_values(table: Table, column: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column (N,) of a position, velocity or its error in the unit of `RANGES`, and which values are fill values."""
    raw = column_values(table, column)
    return column_values(table, column, RANGES[name].unit), is_fill(raw, label=name in _ANGLES)


def _numbers_in(text: np.ndarray, name: str) -> np.ndarray:
    values = np.full(text.shape, np.nan)
    for row in np.flatnonzero(text != ""):
        try:
            values[row] = float(text[row].replace("D", "E"))  # FORTRAN's exponents
        except ValueError:
            raise InputError(
                f"column {name}: holds text, {str(text[row])[:30]!r} in row {row}, where numbers are needed; correct it"
                " or choose another"
            ) from None
    return values


class Identifiers(NamedTuple):
    """Identifiers (N,), integers or text; which rows have one; whether all digits are there to compare them by."""

    values: np.ndarray
    known: np.ndarray
    exact: bool = True

    def star_of_row(self) -> np.ndarray:
        """A number (N,) that rows of one star share; a row that cannot be compared is a star of its own."""
        numbers = np.unique(self.values, return_inverse=True)[1]
        return np.where(self.known & self.exact, numbers, -1 - np.arange(len(numbers)))


def identifiers(column: Any) -> Identifiers:
    """The identifiers in a column of integers or text.

    One that is masked, not positive, or a fill value is missing. Integers that were made floating-point numbers (by
    pandas, where one is missing), or text with an exponent, have lost their last digits if they are too large for it.
    """
    values, known = np.ma.getdata(column), ~np.ma.getmaskarray(np.ma.asarray(column))
    if values.ndim != 1 or values.dtype.kind not in "Uiuf":
        return Identifiers(np.zeros(len(values), int), np.zeros(len(values), bool))
    if values.dtype.kind == "U":
        known &= [not _NO_NAME.fullmatch(text) for text in values.tolist()]
        return Identifiers(values, known, not any(_EXPONENT.fullmatch(text) for text in values.tolist()))
    known &= (values > 0) & ~is_fill(values.astype(float))
    values = np.where(known, values, 0)
    if values.dtype.kind == "f" and ((values >= 2.0 ** (np.finfo(values.dtype).nmant + 1)) | (values % 1 > 0)).any():
        return Identifiers(values, known, exact=False)
    return Identifiers(values.astype(np.int64), known)
