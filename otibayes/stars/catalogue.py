"""From a catalogue on disk to `Stars`: columns by name, units, rows that cannot be used, numbers that cannot be."""

import hashlib
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from ..base.arrays import in_unit
from ..base.constants import KMS_PER_MASYR_KPC
from ..base.errors import InputError
from .stars import Provenance, Stars, in_words, names_of
from .table import Part, best_part, open_table, similar_names, table_in_memory, table_meta
from .values import (
    clean_error,
    clean_label,
    column_values,
    first_reason,
    identifiers,
    is_element,
    is_fill,
    sky_values,
    unusable,
)

__all__ = ["embedded_stars", "read_stars"]

_SKY = ("ra", "dec", "pmra", "pmdec", "radial_velocity")
_LARGEST_ZERO_POINT = 1.0  # mas; Gaia's is 0.02 to 0.05
_SEVERAL = 10  # stars, of which the median tells a unit
_IDENTIFIERS = {"apogee_id", "sdss_id", "sobject_id", "source_id", "star_id", "tmass_id"}


def read_stars(
    source: str | os.PathLike[str] | Table,
    columns: Mapping[str, str] | None = None,
    elements: str | Sequence[str] | None = None,
    parallax_zero_point: Any = 0.0,
    extra: str | Sequence[str] = (),
) -> Stars:
    """Read stars from a FITS, ECSV, CSV or Parquet file, or from an astropy table in memory.

    Columns: `ra dec` [deg], `parallax` [mas] or `distance` [kpc], `pmra pmdec` [mas/yr], `radial_velocity` [km/s], each
    with an optional `_error`; abundances [dex] such as `FE_H`, `MG_FE`, with an optional `_ERR`. `columns` maps ours to
    theirs, {"radial_velocity": "rv"}. A unit in the table is honoured; where there is none, the ones above are meant.
    `elements` are the labels to read; by default every column X_H, X_FE or X_M of a known element X. `extra` are
    further columns to carry, e.g. LOGG and TEFF.

    Where a table has both, `distance` is used, unless `columns` names the parallax or a zero point is given.
    distance [kpc] = 1 / (parallax - parallax_zero_point) [mas]: Gaia's own sense of the zero point (Lindegren et al.
    2018, 2021), which is negative: -0.05 adds 0.05 mas to every parallax and brings the stars nearer.

    Rows are dropped, and counted under the first reason that applies: a position, distance or velocity is missing, is a
    fill value (-9999, 999.99, 1e20, ...), is not positive, or is impossible (`otibayes/stars/values.py`). Labels that
    are so are NaN; `Stars.with_elements` drops their stars. Errors that are zero, negative or so are NaN, and the star
    stays. `provenance.notes` says all of it.

    Raises `InputError` (one line) for a file, column, element or unit that cannot be used, or if no row is left.
    """
    path, parts = _opened(source)
    columns = dict(columns or {})
    extra = names_of(extra)
    zero_point = float(in_unit(parallax_zero_point, "mas", "parallax_zero_point"))
    if not abs(zero_point) <= _LARGEST_ZERO_POINT:
        raise InputError(f"the parallax zero point is {zero_point:g} mas; it must lie within 1 mas, e.g. -0.05")
    part = best_part(parts, [columns.get(name, name) for name in (*_SKY, "parallax", "distance")])
    if not part.names:
        raise InputError(f"{path}: the table is empty (it has no columns); nothing to work on")
    names = _Names(part, columns, path)
    depth, notes = _depth(names, zero_point)
    labels, default_notes = (names_of(elements), []) if elements is not None else names.elements()
    sky = ("ra", "dec", depth, "pmra", "pmdec", "radial_velocity")
    optional = [f"{name}_error" for name in sky] + [f"{label}_ERR" for label in labels]
    needed = [names[name] for name in (*sky, *labels, *extra)] + [names[name] for name in optional if name in names]
    if unused := set(columns) - {*sky, *optional, *labels, *extra}:
        notes.append(f"nothing asks for {', '.join(sorted(unused))}, which is mapped to a column; is it spelled right?")
    beside = [name for name in part.names if name.lower() in {*_IDENTIFIERS, "ref_epoch"}]
    table = part.read(list(dict.fromkeys([*needed, *beside])))

    values, fill = {}, {}
    for name in sky:
        values[name], fill[name] = sky_values(table, names[name], name)
    values[depth] = values[depth] - (zero_point if depth == "parallax" else 0.0)
    _check_units(values, fill, depth, path)
    keep, dropped = first_reason(unusable(values, fill), len(table))
    if not keep.any():
        raise InputError(f"{path}: none of its {len(table)} rows can be used: {in_words(dropped)}")
    if dropped:
        notes.append(f"{np.sum(~keep)} of {len(table)} rows dropped: {in_words(dropped)}")
    sky_errors = {}
    for name in sky:
        if f"{name}_error" in names:
            error, missing = sky_values(table, names[f"{name}_error"], name)
            sky_errors[name] = np.where((error >= 0) & ~missing, error, np.nan)
            if unknown := int(np.sum(np.isnan(sky_errors[name][keep]))):
                notes.append(f"{name}_error: {unknown} of {keep.sum()} values are negative or missing")
    if depth == "parallax":
        parallax = np.where(keep, values.pop("parallax"), np.nan)
        values["distance"] = 1 / parallax
        if "parallax" in sky_errors:
            sky_errors["distance"] = sky_errors.pop("parallax") / parallax**2

    abundances: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    for label in labels:
        try:
            values_of_label, error_of_label, told = _label(table, names, label, keep)
        except InputError as unusable_label:
            if elements is not None:
                raise
            default_notes.append(f"{label} is left out: {unusable_label}")
            continue
        abundances[label], notes = values_of_label, notes + told
        if error_of_label is not None:
            errors[label] = error_of_label
    if elements is None:
        notes.append(f"elements, by the names of the columns: {', '.join(abundances) or 'none'}")
    truth, recorded = table_meta(part)
    notes += [*default_notes, *_strange({name: v[keep] for name, v in values.items()}, table, keep), *recorded]
    settings: list[tuple[str, float | str]] = [("parallax_zero_point", zero_point)] * (depth == "parallax")
    settings += [(f"column {name}", theirs) for name, theirs in columns.items()]
    provenance = Provenance(
        source=path.name,
        sha256=_digest(source, table),
        rows=len(table),
        dropped=dropped,
        truth=tuple(truth.items()),
        settings=tuple(settings),
        notes=tuple(notes),
    )
    further = {name: clean_label(name, column_values(table, names[name]))[0] for name in extra}
    measured = {"abundances": abundances, "errors": errors, "astrometric_errors": sky_errors, "extra": further}
    return Stars(**values, **measured, row=np.arange(len(table)), provenance=provenance)[keep]  # type: ignore[arg-type]


def _opened(source: str | os.PathLike[str] | Table) -> tuple[Path, list[Part]]:
    """A name for messages, and the tables of a file or the one in memory."""
    if isinstance(source, Table):
        return Path("table"), [table_in_memory(source, Path("table"), "astropy")]
    return Path(source), open_table(source)


def _digest(source: str | os.PathLike[str] | Table, table: Table) -> str:
    """SHA-256 of a file, or of the columns of a table in memory that were read."""
    if not isinstance(source, Table):
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256(",".join(table.colnames).encode())
    for column in table.itercols():
        digest.update(np.ma.getdata(column).tobytes() + np.ma.getmaskarray(column).tobytes())
    return digest.hexdigest()


class _Names:
    """What a table calls our columns: `columns` maps those that it calls otherwise."""

    def __init__(self, part: Part, columns: Mapping[str, str], path: Path):
        self.names, self.columns, self.path = part.names, columns, path
        for name, theirs in columns.items():
            if theirs not in self.names:
                raise self._missing(theirs, f" (given for {name})")

    def __contains__(self, name: str) -> bool:
        return name in self.columns or name in self.names

    def __getitem__(self, name: str) -> str:
        if name not in self:
            raise self._missing(name)
        theirs = self.columns.get(name, name)
        if self.names.count(theirs) > 1:
            raise InputError(f"{self.path}: {self.names.count(theirs)} columns are called {theirs}; rename all but one")
        return theirs

    def _missing(self, name: str, what: str = "") -> InputError:
        near = similar_names(name, self.names)
        known = f"similar columns: {', '.join(near)}" if near else f"columns: {', '.join(self.names[:12])}"
        hint = f"map one with columns={{'{name}': ...}} (--column {name}=...)" if not what else "correct the mapping"
        return InputError(f"{self.path}: no column {name}{what}; {known}; {hint}")

    def elements(self) -> tuple[tuple[str, ...], list[str]]:
        """The columns that are named as an abundance of a known element, and what else looks like one."""
        names = dict.fromkeys([*self.names, *self.columns])
        alike = [n for n in names if n.isupper() and n.endswith(("_H", "_FE", "_M")) and "[" not in n]
        others = [n for n in alike if not is_element(n)]
        notes = [f"{', '.join(others[:6])}: no known element; ask by name (--elements) to use"] if others else []
        return tuple(n for n in alike if is_element(n)), notes


def _depth(names: _Names, zero_point: float) -> tuple[str, list[str]]:
    """Which column distances come from, "distance" or "parallax", and a note where there was a choice."""
    if "distance" not in names:
        return "parallax", []
    if "parallax" not in names:
        if zero_point:
            raise InputError(
                f"{names.path}: a parallax zero point of {zero_point:g} mas is given, but there are only distances;"
                " leave it out"
            )
        return "distance", []
    if zero_point or ("parallax" in names.columns and "distance" not in names.columns):
        why = "a zero point is given" if zero_point else "it is named"
        return "parallax", [f"distances are 1 / {names['parallax']}, because {why}; {names['distance']} is not used"]
    how = "name it (--column parallax=...) to use it instead"
    return "distance", [f"distances are the column {names['distance']}; {names['parallax']} is not used; {how}"]


def _label(
    table: Table, names: _Names, label: str, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Values and errors (N,) of one label, NaN where they cannot be used, with what the user should know."""
    values, wrong = clean_label(label, column_values(table, names[label]))
    if np.isnan(values[keep]).all():
        raise InputError(f"{names.path}: {label} has no usable value in any of {keep.sum()} rows; ask for another")
    notes = [f"{label}: {count} values missing: {reason}" for reason, count in wrong.items()]
    if f"{label}_ERR" not in names:
        return values, None, [*notes, f"{label} has no error column; intrinsic scatter absorbs it"]
    errors = clean_error(label, column_values(table, names[f"{label}_ERR"]))
    known = keep & np.isfinite(values)
    if unknown := int(np.sum(known & np.isnan(errors))):
        notes.append(f"{label}: {unknown} of {known.sum()} values have no usable error (zero, negative or missing)")
    return values, np.where(np.isfinite(values), errors, np.nan), notes


def _across(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Speed across the line of sight [km/s]."""
    return KMS_PER_MASYR_KPC * values["distance"] * np.hypot(values["pmra"], values["pmdec"])


def _strange(values: Mapping[str, np.ndarray], table: Table, keep: np.ndarray) -> list[str]:
    """What to tell the user of rows that are kept though something about them is odd."""
    sky = np.stack([values["ra"], values["dec"]])
    counts = {
        "repeat the position of another; is a star there twice?": sky.shape[1] - np.unique(sky, axis=1).shape[1],
        "are nearer than 10 pc; are their parallaxes in mas?": np.sum(values["distance"] < 0.01),
        "have |radial_velocity| > 1000 km/s; are theirs in km/s?": np.sum(np.abs(values["radial_velocity"]) > 1000),
        "move across the sky at > 1000 km/s; are proper motions in mas/yr, distances right?": np.sum(
            _across(values) > 1000
        ),
    }
    notes = []
    for name in sorted(name for name in table.colnames if name.lower() in _IDENTIFIERS):
        names = identifiers(table[name][keep])
        stars = names.star_of_row()
        counts[f"repeat the {name} of another; is a star there twice?"] = stars.size - np.unique(stars).size
        if not names.exact:
            notes.append(f"{name} has lost digits (it was a floating-point number), so that repeats cannot be told")
    notes = [f"{count} rows {what}" for what, count in counts.items() if count] + notes
    for name in (name for name in table.colnames if name.lower() == "ref_epoch"):
        if len(epochs := _epochs(table[name][keep])) > 1:
            notes.append(f"positions are of {len(epochs)} epochs ({epochs[0]} to {epochs[-1]}), not brought to one")
    return notes


def _epochs(column: Any) -> list[str]:
    """The epochs in a column of years or of text, in order; none where it holds anything else."""
    if column.ndim != 1 or column.dtype.kind not in "Uiuf":
        return []
    known = np.ma.compressed(np.ma.asarray(column))
    if known.dtype.kind == "U":
        return sorted({text.lstrip("JjBb") for text in known.tolist()})
    years = known[np.isfinite(known) & ~is_fill(known.astype(float)) & (known > 0)]
    return [f"{year:g}" for year in np.unique(np.round(years.astype(float), 3))]


def _check_units(values: Mapping[str, np.ndarray], fill: Mapping[str, np.ndarray], depth: str, path: Path) -> None:
    """Raise `InputError` where the numbers, as a whole, are those of another unit."""
    usable = np.logical_and.reduce([np.isfinite(v) & ~fill[name] for name, v in values.items()]) & (values[depth] > 0)
    if not usable.any():
        return
    values = {name: v[usable] for name, v in values.items()}
    if np.median(np.abs(values["dec"])) > 90 or not -180 <= np.median(values["ra"]) <= 360:
        raise InputError(f"{path}: ra or dec lie outside the sphere; ra and dec are needed in degrees")
    distance = values["distance"] if depth == "distance" else 1 / values["parallax"]
    # of what, its typical value, its unit, between what that of stars lies, and what it looks like below and above
    typical = [
        ("parallax", values[depth], "mas", 0.02, 200.0, "arcsec", "microarcsec"),
        ("distance", values[depth], "kpc", 0.005, 50.0, "Mpc", "pc"),
        ("|radial_velocity|", np.abs(values["radial_velocity"]), "km/s", 0.0, 1e4, "", "m/s"),
        ("proper motion", _across({**values, "distance": distance}), "km/s", 0.3, 1e4, "arcsec/yr", "microarcsec/yr"),
    ]
    for name, numbers, unit, least, most, below, above in typical:
        median = float(np.median(numbers))
        few = numbers.size < _SEVERAL  # the median of a few may be small by chance
        if (name in ("parallax", "distance") and name != depth) or least <= median <= most or (few and median < least):
            continue
        looks, remedy = (below, "multiply it by 1000") if median < least else (above, "divide it by 1000")
        where = " at the stars' distances" if name == "proper motion" else ""
        raise InputError(
            f"{path}: the median {name} is {median:.3g} {unit}{where}: it looks like {looks}; give the column its unit"
            f" or {remedy}"
        )


def embedded_stars() -> Stars:
    """The stars shipped with otibayes, their truth in the provenance, by `benchmarks/make_embedded_stars.py`."""
    with importlib.resources.as_file(importlib.resources.files(__package__) / "embedded.ecsv") as path:
        return read_stars(path, elements=("MG_FE", "FE_H"))
