"""Tables on disk: astropy's readers and writers, their many ways of failing turned into one clear line each."""

import difflib
import gzip
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from ..base.errors import InputError
from ..base.store import write_whole

__all__ = [
    "META_KEY",
    "column_names",
    "column_values",
    "read_columns",
    "read_table",
    "similar_names",
    "table_meta",
    "write_table",
]

META_KEY = "OTIBAYES"  # eight characters, and its value one JSON string, because that is what a FITS header can hold

_BYTES_AT_ONCE = 200_000_000  # of a FITS table

_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".parquet": "parquet",
}
# Names that surveys use for a quantity and that difflib cannot guess from its spelling.
_ALIASES = {
    "radial_velocity": ("rv", "vhelio_avg", "vhelio", "vrad", "rv_galah", "rv_comp_1"),
    "distance": ("dist", "r_med_geo", "r_med_photogeo", "r_est", "dist50"),
    "ra": ("raj2000", "_ra", "alpha"),
    "dec": ("dej2000", "_de", "delta"),
}


def _format(path: Path) -> str:
    for suffix, name in _FORMATS.items():
        if path.name.lower().endswith(suffix):
            return name
    raise InputError(f"{path}: the suffix '{path.suffix}' is not understood; use one of {', '.join(_FORMATS)}")


def read_table(path: str | os.PathLike[str]) -> Table:
    """The (first, not empty) table in a FITS, ECSV, CSV or Parquet file; the format follows from the suffix.

    Raises `InputError` where the file is absent, is not such a table, is truncated or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a table' if path.is_dir() else 'no such file'}")
    name = _format(path)
    with warnings.catch_warnings():
        # Units are looked at per column, where it is known which are needed.
        warnings.simplefilter("ignore", u.UnitsWarning)
        warnings.filterwarnings("error", message=".*truncated.*")
        try:
            table = Table.read(path, format=name, **_which_table(path, name))
        except InputError:
            raise
        except Exception as error:  # every reader has exceptions of its own
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise InputError(f"{path}: cannot be read as {name}: {reason}; is it complete, and that format?") from error
    if len(table) == 0:
        raise InputError(f"{path}: the table is empty (0 rows, {len(table.colnames)} columns); nothing to work on")
    return table


def column_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of a table's columns; of a FITS file nothing but headers is read."""
    path = Path(path)
    if not path.is_file() or _format(path) != "fits":
        return read_table(path).colnames
    with _fits_table(path) as (_, hdu):
        return list(hdu.columns.names)


def read_columns(path: str | os.PathLike[str], columns: Iterable[str]) -> Table:
    """Only these columns of a table. A FITS file is read in parts, so that memory holds no more than the columns.

    Raises `InputError` as `read_table`.
    """
    path, columns = Path(path), list(columns)
    if not path.is_file() or _format(path) != "fits":
        return read_table(path)[columns]
    with _unpacked(path) as plain:
        return _read_fits_columns(plain, columns)


def _read_fits_columns(path: Path, columns: list[str]) -> Table:
    with _fits_table(path) as (_, hdu):
        rows, step = hdu.header["NAXIS2"], max(1, _BYTES_AT_ONCE // hdu.header["NAXIS1"])
        null = {c: hdu.columns[c].null for c in columns}
        unit = {c: hdu.columns[c].unit for c in columns}
    if rows == 0:
        raise InputError(f"{path}: the table is empty (0 rows); nothing to work on")
    parts: dict[str, list[np.ndarray]] = {c: [] for c in columns}
    for start in range(0, rows, step):
        # Opened anew, because the pages of a memory map count as memory until it is closed.
        with _fits_table(path) as (_, hdu):
            data = hdu.data[start : start + step]
            for c in columns:
                parts[c].append(np.array(data[c]))
    table = Table()
    for c, arrays in parts.items():
        values = np.concatenate(arrays)
        table[c] = values if null[c] is None else MaskedColumn(values, mask=values == null[c])
        table[c].unit = unit[c]
    return table


def _which_table(path: Path, format: str) -> dict[str, int]:
    if format != "fits":
        return {}
    with _fits_table(path) as (number, _):
        return {"hdu": number}


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The file, or where it is compressed its content as a temporary one: a memory map needs it plain."""
    if path.suffix.lower() != ".gz":
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".fits") as plain:
        try:
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, plain, 1 << 24)
        except (OSError, EOFError) as error:
            raise InputError(f"{path}: cannot be unpacked: {error}; is it complete, and is there room?") from error
        plain.flush()
        yield Path(plain.name)


@contextmanager
def _fits_table(path: Path) -> Iterator[tuple[int, fits.BinTableHDU]]:
    """Number and content of the first table of a FITS file that has rows (SDSS-V's files begin with an empty one).

    Memory-mapped, after a look at whether the file is complete.
    """
    packed = path.suffix.lower() == ".gz"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*truncated.*")  # told below, as an error
        warnings.simplefilter("ignore", u.UnitsWarning)
        try:
            hdus = fits.open(path, memmap=not packed)
        except (OSError, EOFError) as error:
            raise InputError(f"{path}: cannot be read as fits: {error}; is it complete, and that format?") from error
        with hdus:
            tables = [(number, hdu) for number, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU)]
            if not tables:
                raise InputError(f"{path}: cannot be read as fits: no table in it; is it a catalogue?")
            number, hdu = next((table for table in tables if table[1].header["NAXIS2"]), tables[0])
            missing = hdu.fileinfo()["datLoc"] + hdu.header["NAXIS1"] * hdu.header["NAXIS2"] - path.stat().st_size
            if missing > 0 and not packed:
                raise InputError(
                    f"{path}: cannot be read as fits: truncated, {missing} bytes are missing; copy it again"
                )
            yield number, hdu


def write_table(table: Table, path: str | os.PathLike[str]) -> None:
    """Write a table in the format of the suffix, over what is there, whole or not at all.

    Raises `InputError` for an unknown suffix, or a folder that is absent or cannot be written.
    """
    path = Path(path)
    name = _format(path)
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InputError(f"{path}: the folder {path.parent} does not exist or cannot be written; choose another")
    write_whole(path, lambda part: table.write(part, format=name))


def table_meta(table: Table) -> dict[str, Any]:
    """What `mock` or `select` recorded in the table's metadata; empty for anybody else's table."""
    return json.loads(table.meta.get(META_KEY, "{}"))


def similar_names(name: str, found: Iterable[str]) -> list[str]:
    """At most five of the names `found` that somebody who asked for `name` may have meant."""
    lower = {f.lower(): f for f in found}
    close = difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.6)
    aliases = [f for f in lower if f in _ALIASES.get(name, ())]
    containing = [f for f in lower if len(name) > 2 and name.lower() in f]
    return [lower[f] for f in dict.fromkeys([*aliases, *close, *containing])][:5]


def column_values(table: Table, column: str, unit: u.UnitBase | None = None) -> np.ndarray:
    """One numeric column (N,) as float64 in `unit`, NaN where masked; a column without a unit is taken to be in it.

    Raises `InputError` for a column that is not one number per row, or whose unit cannot be converted.
    """
    data = table[column]
    if data.ndim != 1:
        raise InputError(f"column {column}: has shape {data.shape} where one number per row is needed; choose another")
    try:
        values = np.array(np.ma.filled(np.ma.asarray(data).astype(float), np.nan))
    except (TypeError, ValueError):
        raise InputError(f"column {column}: holds {data.dtype} where numbers are needed; choose another") from None
    if unit is None or data.unit is None:
        return values
    try:
        return u.Quantity(values, data.unit).to_value(unit)
    except (u.UnitConversionError, TypeError, ValueError):
        raise InputError(
            f"column {column}: its unit '{data.unit}' cannot be converted to {unit}; correct or remove the unit"
        ) from None
