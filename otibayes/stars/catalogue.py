"""From a catalogue on disk to `Stars`: columns by name, units, rows that cannot be used, numbers that cannot be."""

import hashlib
import importlib.resources
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..base.errors import InputError
from .stars import Provenance, Stars, first_reason, in_words
from .table import column_values, read_table, similar_names, table_meta

__all__ = ["embedded_stars", "read_stars"]

_UNITS = {
    "ra": u.deg,
    "dec": u.deg,
    "parallax": u.mas,
    "distance": u.kpc,
    "pmra": u.mas / u.yr,
    "pmdec": u.mas / u.yr,
    "radial_velocity": u.km / u.s,
}
_ELEMENT = re.compile(r"[A-Z][A-Z0-9]*_(FE|H|M)")
_ABUNDANCE_LIMIT = 20.0  # dex: surveys write -9999 and the like for a missing abundance
_FAR, _NEAR = 50.0, 0.005  # kpc: no survey's typical star with a useful parallax is as far, or as near, as that
_FAST, _SLOW = 1e4, 0.3  # km/s: no typical star is as fast, or moves as slowly across the sky, as that
_SEVERAL = 10
_KMS_PER_KPC_MAS = (u.kpc * u.mas / u.yr).to(u.km / u.s, equivalencies=u.dimensionless_angles())
_IDENTIFIERS = {"APOGEE_ID", "sdss_id", "sobject_id", "source_id", "star_id", "tmass_id"}


class _Columns:
    """A table's columns under our names: `columns` maps those that are called otherwise."""

    def __init__(self, table: Table, columns: Mapping[str, str], path: Path):
        self.table, self.columns, self.path = table, columns, path
        for name, theirs in columns.items():
            if theirs not in table.colnames:
                raise self._missing(theirs, f" (given for {name})")

    def __contains__(self, name: str) -> bool:
        return name in self.columns or name in self.table.colnames

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self:
            raise self._missing(name)
        unit = _UNITS.get(name.removesuffix("_error"))
        return column_values(self.table, self.columns.get(name, name), unit)

    def optional(self, name: str) -> np.ndarray | None:
        return self[name] if name in self else None  # noqa: SIM401 (a mapping's get is not ours)

    def _missing(self, name: str, what: str = "") -> InputError:
        found = similar_names(name, self.table.colnames)
        given = f"similar columns: {', '.join(found)}" if found else f"columns: {', '.join(self.table.colnames[:12])}"
        hint = f"map one with columns={{'{name}': ...}} (--column {name}=...)" if not what else "correct the mapping"
        return InputError(f"{self.path}: no column {name}{what}; {given}; {hint}")

    def elements(self) -> list[str]:
        names = dict.fromkeys([*self.table.colnames, *self.columns])
        return [n for n in names if _ELEMENT.fullmatch(n) and self.table[self.columns.get(n, n)].ndim == 1]


def read_stars(
    source: str | os.PathLike[str] | Table,
    columns: Mapping[str, str] | None = None,
    elements: Sequence[str] | None = None,
    parallax_zero_point: float = 0.0,
    extra: Sequence[str] = (),
) -> Stars:
    """Read stars from a FITS, ECSV, CSV or Parquet table, or from an astropy table in memory.

    Columns: `ra dec` [deg], `parallax` [mas] or `distance` [kpc] (which wins where both are there), `pmra pmdec`
    [mas/yr], `radial_velocity` [km/s], each with an optional `_error`; abundances [dex] such as `FE_H`, `MG_FE`, with
    an optional `_ERR`. `columns` maps ours to theirs, {"radial_velocity": "rv"}. A unit in the table is honoured; where
    there is none, the ones above are meant. `elements` are those to read; by default every column named like X_H, X_FE
    or X_M. `extra` are further columns to carry, as they are, e.g. LOGG and TEFF.

    distance [kpc] = 1 / (parallax - parallax_zero_point) [mas]: Gaia's own sense of the zero point (Lindegren et al.
    2018, 2021), which is negative: -0.05 adds 0.05 mas to every parallax and brings the stars nearer.

    Rows are dropped, and counted under the first reason that applies, in this order: ra, dec, parallax (or distance),
    pmra, pmdec, radial_velocity missing (masked or not finite); parallax (or distance) <= 0. Abundances that are
    missing, or have an unusable error, are NaN; `Stars.with_elements` drops their stars.

    Raises `InputError` (one line) for a file, column, element or unit that cannot be used, or if no row is left.
    """
    path, table, digest = _opened(source)
    get = _Columns(table, columns or {}, path)
    depth = "distance" if "distance" in get else "parallax"
    values = {name: get[name] for name in ("ra", "dec", depth, "pmra", "pmdec", "radial_velocity")}
    astrometric_errors = {name: get[f"{name}_error"] for name in values if f"{name}_error" in get}
    values[depth] = values[depth] - (parallax_zero_point if depth == "parallax" else 0.0)
    bad = {f"{name} missing": ~np.isfinite(v) for name, v in values.items()} | {f"{depth} <= 0": values[depth] <= 0}
    keep, dropped = first_reason(bad, len(table))
    if not keep.any():
        raise InputError(f"{path}: none of its {len(table)} rows can be used: {in_words(dropped)}")
    notes = [] if not dropped else [f"{np.sum(~keep)} of {len(table)} rows dropped: {in_words(dropped)}"]
    _check_plausible({name: v[keep] for name, v in values.items()}, depth, path)

    if depth == "parallax":
        parallax = values.pop("parallax")
        with np.errstate(divide="ignore"):
            values["distance"] = 1 / parallax
            if "parallax" in astrometric_errors:
                astrometric_errors["distance"] = astrometric_errors.pop("parallax") / parallax**2

    abundances, errors = {}, {}
    for element in get.elements() if elements is None else elements:
        abundance, error, said = _abundance(get, element)
        notes += said
        if np.isnan(abundance[keep]).all():
            if elements is not None:
                raise InputError(f"{path}: {element} has no usable value in any of {keep.sum()} rows; ask for another")
            continue
        abundances[element] = abundance
        if error is not None:
            errors[element] = error

    notes += _strange({name: v[keep] for name, v in values.items()}, table, keep)
    notes += table_meta(table).get("notes", [])
    settings: list[tuple[str, float | str]] = [("parallax_zero_point", parallax_zero_point)] * (depth == "parallax")
    settings += [(f"column {name}", theirs) for name, theirs in (columns or {}).items()]
    provenance = Provenance(
        source=path.name,
        sha256=digest,
        rows=len(table),
        dropped=dropped,
        truth=tuple(table_meta(table).get("truth", {}).items()),
        settings=tuple(settings),
        notes=tuple(notes),
    )
    row = np.arange(len(table))
    measured = {"abundances": abundances, "errors": errors, "astrometric_errors": astrometric_errors}
    measured["extra"] = {name: get[name] for name in extra}
    return Stars(**values, **measured, row=row, provenance=provenance)[keep]  # type: ignore[arg-type]


def _opened(source: str | os.PathLike[str] | Table) -> tuple[Path, Table, str]:
    """A name for messages, the table, and the SHA-256 of the file or of the values in memory."""
    if isinstance(source, Table):
        if len(source) == 0:
            raise InputError(f"the table is empty (0 rows, {len(source.colnames)} columns); nothing to work on")
        found = hashlib.sha256(",".join(source.colnames).encode())
        for name in source.colnames:
            values = np.asarray(source[name])
            found.update((values.astype(str) if values.dtype == object else np.ascontiguousarray(values)).tobytes())
        return Path("table"), source, found.hexdigest()
    path = Path(source)
    table = read_table(path)
    with path.open("rb") as file:
        return path, table, hashlib.file_digest(file, "sha256").hexdigest()


def _strange(values: Mapping[str, np.ndarray], table: Table, keep: np.ndarray) -> list[str]:
    """What to tell the user of rows that are kept though something about them is odd."""
    sky = np.stack([values["ra"], values["dec"]])
    across = _across(values)
    odd = {
        "repeat the position of another; is a star there twice?": sky.shape[1] - np.unique(sky, axis=1).shape[1],
        "are nearer than 10 pc; are their parallaxes in mas?": np.sum(values["distance"] < 0.01),
        "have |radial_velocity| > 1000 km/s; are theirs in km/s?": np.sum(np.abs(values["radial_velocity"]) > 1000),
        "move across the sky at > 1000 km/s; are proper motions in mas/yr, distances right?": np.sum(across > 1000),
    }
    for name in sorted(_IDENTIFIERS & set(table.colnames)):
        known = np.ma.compressed(np.ma.asarray(table[name])[keep])
        known = known[known > 0] if known.dtype.kind in "iuf" else known[np.char.str_len(known.astype(str)) > 0]
        odd[f"repeat the {name} of another; is a star there twice?"] = known.size - np.unique(known).size
    notes = [f"{count} rows {what}" for what, count in odd.items() if count]
    if "ref_epoch" in table.colnames:
        epochs = np.unique(np.ma.compressed(np.ma.asarray(table["ref_epoch"])[keep]))
        if epochs.size > 1:
            first_last = f"{epochs[0]:g} to {epochs[-1]:g}"
            notes.append(f"positions are of {epochs.size} epochs ({first_last}) and are not brought to one")
    return notes


def _across(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Speed across the line of sight [km/s]."""
    return _KMS_PER_KPC_MAS * values["distance"] * np.hypot(values["pmra"], values["pmdec"])


def _abundance(get: _Columns, element: str) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Abundance and error (N,) [dex] of one element, unusable values NaN in both, with what the user should know."""
    if element not in get and (found := get.elements()):
        near = similar_names(element, found) or found
        raise InputError(f"{get.path}: element {element} is not in the table; found: {', '.join(near)}")
    abundance = get[element]
    error = get.optional(f"{element}_ERR")
    notes = []
    strange = np.abs(abundance) > _ABUNDANCE_LIMIT
    if strange.any():
        notes.append(f"{element}: {strange.sum()} values beyond {_ABUNDANCE_LIMIT:g} dex taken as missing")
    missing = strange | ~np.isfinite(abundance)
    if error is None:
        notes.append(f"{element} has no error column; intrinsic scatter absorbs it")
    else:
        unusable = ~missing & ~((error >= 0) & (error < _ABUNDANCE_LIMIT))
        if unusable.any():
            notes.append(f"{element}: {unusable.sum()} values without a usable error taken as missing")
        missing |= unusable
        error = np.where(missing, np.nan, error)
    return np.where(missing, np.nan, abundance), error, notes


def _check_plausible(values: Mapping[str, np.ndarray], depth: str, path: Path) -> None:
    """Raise `InputError` where the numbers, as a whole, are those of another unit."""
    if values["ra"].min() < -180 or values["ra"].max() > 360 or np.abs(values["dec"]).max() > 90:
        raise InputError(f"{path}: ra or dec lie outside the sphere; ra and dec are needed in degrees")
    distance = values["distance"] if depth == "distance" else 1 / values["parallax"]
    middle, far = float(np.median(values[depth])), float(np.median(distance))
    speed = float(np.median(np.abs(values["radial_velocity"])))
    across = float(np.median(_across({**values, "distance": distance})))
    several = distance.size >= _SEVERAL  # the median of a few may be anything
    # (whether, the median, what it looks like, how to mend it)
    parallax, kpc = f"parallax is {middle:.3g} mas", f"distance is {middle:.3g} kpc"
    proper_motion = f"proper motion is {across:.3g} km/s at the stars' distances"
    strange = [
        (far > _FAR and depth == "parallax", parallax, "arcsec", "multiply it by 1000"),
        (far > _FAR and depth == "distance", kpc, "pc", "divide it by 1000"),
        (far < _NEAR and several and depth == "parallax", parallax, "microarcsec", "divide it by 1000"),
        (far < _NEAR and several and depth == "distance", kpc, "Mpc", "multiply it by 1000"),
        (speed > _FAST, f"|radial_velocity| is {speed:.3g} km/s", "m/s", "divide it by 1000"),
        (across > _FAST, proper_motion, "microarcsec/yr", "divide it by 1000"),
        (across < _SLOW and several, proper_motion, "arcsec/yr", "multiply it by 1000"),
    ]
    for looks, median, unit, remedy in strange:
        if looks:
            raise InputError(f"{path}: the median {median}: it looks like {unit}; give the column its unit or {remedy}")


def embedded_stars() -> Stars:
    """The stars shipped with otibayes, their truth in the provenance, by `benchmarks/make_embedded_stars.py`."""
    with importlib.resources.as_file(importlib.resources.files(__package__) / "embedded.ecsv") as path:
        return read_stars(path)
