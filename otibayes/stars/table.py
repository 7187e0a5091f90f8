"""Tables on disk, recognised by their content; every way of failing becomes one clear line."""

import csv
import difflib
import gzip
import io
import itertools
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.table.meta import get_header_from_yaml

from ..base.errors import InputError
from ..base.store import write_whole
from .values import MISSING_TEXT

__all__ = [
    "META_KEY",
    "Part",
    "best_part",
    "open_table",
    "similar_names",
    "table_in_memory",
    "table_meta",
    "table_of_frame",
    "write_table",
]

META_KEY = "OTIBAYES"  # eight characters, and its value one JSON string, because that is what a FITS header can hold

_BYTES_AT_ONCE = 200_000_000  # of a FITS table
_SUFFIXES = {
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".parquet": "parquet",
}  # of tables that are written
_MISSING = [variant for text in MISSING_TEXT for variant in (text, text.upper(), text.capitalize())] + ["NaN", "NaT"]
# Names that surveys use for a quantity and that difflib cannot guess from its spelling
_ALIASES = {
    "radial_velocity": ("rv", "vhelio_avg", "vhelio", "vrad", "rv_galah", "rv_comp_1"),
    "distance": ("dist", "r_med_geo", "r_med_photogeo", "r_est", "dist50"),
    "ra": ("raj2000", "_ra", "alpha"),
    "dec": ("dej2000", "_de", "delta"),
}
_NUMBER = re.compile(r"[+-]?\d+\.?\d*")
_Raw = tuple[Any, Any, Any]  # values (N,), mask (N,) and unit of a column


class Part(NamedTuple):
    """One table of a file, the names of its columns, and its metadata of ours; nothing else is read yet."""

    path: Path
    format: str
    names: list[str]
    load: Callable[[Sequence[str]], dict[str, _Raw]]
    meta: Any = None
    unpacked: Any = None  # a temporary file, which lives as long as this

    def read(self, names: Sequence[str]) -> Table:
        """Some of the columns: masked, numbers as they are, text without blanks around it."""
        with _one_line(self.path, self.format):
            table = Table({name: _column(*raw) for name, raw in self.load(list(names)).items()})
        if len(table) == 0:
            raise InputError(f"{self.path}: the table is empty (0 rows); nothing to work on")
        return table


def open_table(path: str | os.PathLike[str]) -> list[Part]:
    """The tables in a FITS, ECSV, CSV or Parquet file, packed by gzip or not.

    The format follows from the content, not from the name. Of FITS and Parquet nothing but headers is read. Raises
    `InputError` where the file is absent, is not such a table, is truncated or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a table' if path.is_dir() else 'no such file'}")
    name = path.name.lower()
    plain, unpacked, format = path, None, next((f for s, f in _SUFFIXES.items() if name.endswith(s)), "a table")
    with _one_line(path, format), path.open("rb") as file:
        if file.peek(2).startswith(b"\x1f\x8b"):
            unpacked = tempfile.NamedTemporaryFile(suffix=".unpacked")  # noqa: SIM115
            with gzip.open(file) as content:
                shutil.copyfileobj(content, unpacked, 1 << 24)
            unpacked.flush()
            plain = Path(unpacked.name)
    with plain.open("rb") as file:
        head = file.read(9)
    for mark, name, parts_of in ((b"SIMPLE", "fits", _fits_parts), (b"PAR1", "parquet", _parquet_parts)):
        if head.startswith(mark):
            with _one_line(path, name):
                return [part._replace(unpacked=unpacked) for part in parts_of(path, plain)]
    with _one_line(path, format):
        return [_text_part(path, _text_in(plain.read_bytes()))]


def best_part(parts: Sequence[Part], wanted: Iterable[str]) -> Part:
    """The table that has the most of the wanted columns, the first among equals; names in any case."""
    names = {name.lower() for name in wanted}
    return max(parts, key=lambda part: len(names & {name.lower() for name in part.names}))


def write_table(table: Table, path: str | os.PathLike[str]) -> None:
    """Write a table in the format of the suffix, over what is there, whole or not at all.

    Raises `InputError` for an unknown suffix, or a folder that is absent or cannot be written.
    """
    path = Path(path)
    name = _format_of(path)
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InputError(f"{path}: the folder {path.parent} does not exist or cannot be written; choose another")
    write_whole(path, lambda part: table.write(part, format=name))


def table_meta(part: Part) -> tuple[dict[str, float], list[str]]:
    """The truth and the notes that `mock` or `select` recorded in a table; empty for anybody else's table.

    What another program has cut or changed is ignored, and a note says so.
    """
    if part.meta is None:
        return {}, []
    try:
        meta = json.loads(part.meta)
        truth = {str(name): float(value) for name, value in meta.get("truth", {}).items()}
        notes = meta.get("notes", [])
        if not (np.isfinite(list(truth.values())).all() and all(isinstance(note, str) for note in notes)):
            raise ValueError
        return truth, list(notes)
    except (TypeError, ValueError, AttributeError):
        return {}, [f"the table's own record ({META_KEY} in its metadata) is damaged and ignored"]


def similar_names(name: str, names: Iterable[str]) -> list[str]:
    """At most five of `names` that somebody who asked for `name` may have meant."""
    lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.6)
    aliases = [n for n in lower if n in _ALIASES.get(name, ())]
    containing = [n for n in lower if len(name) > 2 and name.lower() in n]
    return [lower[n] for n in dict.fromkeys([*aliases, *close, *containing])][:5]


@contextmanager
def _one_line(path: Path, format: str) -> Iterator[None]:
    """Any reader's exception as an `InputError` of one line, and none of its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a truncated table is an error; units are checked where they are needed
            yield
    except InputError:
        raise
    except Exception as error:  # every reader has exceptions of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: cannot be read as {format}: {reason}; is it complete, and that format?") from error


def _format_of(path: Path) -> str:
    for suffix, name in _SUFFIXES.items():
        if path.name.lower().endswith(suffix):
            return name
    raise InputError(f"{path}: the suffix '{path.suffix}' is not understood; use one of {', '.join(_SUFFIXES)}")


def _column(values: Any, mask: Any, unit: Any) -> MaskedColumn:
    """A column of a table; what is neither a number nor a date becomes text (Latin-1, of which ASCII is a part)."""
    values, mask = np.asarray(values), np.array(mask, dtype=bool)
    if values.dtype.kind in "SO":
        values = np.array([t.decode("latin-1") if isinstance(t, bytes) else str(t) for t in values.ravel().tolist()])
    if values.dtype.kind == "U" and values.ndim == 1:
        values = np.char.strip(values)
        mask = mask | np.isin(np.char.lower(values), MISSING_TEXT)
    column = MaskedColumn(values, mask=np.broadcast_to(mask, values.shape))
    column.unit = None if not unit else u.Unit(str(unit), parse_strict="silent")
    return column


# ---- FITS


def _fits_parts(path: Path, plain: Path) -> list[Part]:
    """The tables that have rows (SDSS-V's files begin with an empty one)."""
    parts, tables = [], 0
    with fits.open(plain) as hdus:
        for number, hdu in enumerate(hdus):
            if not isinstance(hdu, fits.BinTableHDU | fits.TableHDU):
                continue
            tables, rows = tables + 1, hdu.header["NAXIS2"]
            missing = hdu.fileinfo()["datLoc"] + hdu.header["NAXIS1"] * rows - plain.stat().st_size
            if missing > 0:
                raise ValueError(f"truncated, {missing} bytes are missing; copy it again")
            if rows:
                load = partial(_load_fits, plain, number)
                parts.append(Part(path, "fits", _fits_names(hdu.header), load, hdu.header.get(META_KEY)))
    if not tables:
        raise ValueError("no table in it")
    if not parts:
        raise InputError(f"{path}: the table is empty (0 rows); nothing to work on")
    return parts


def _fits_names(header: Any) -> list[str]:
    return [str(header.get(f"TTYPE{i + 1}", "")).strip() for i in range(header["TFIELDS"])]


def _named_apart(hdu: Any) -> Any:
    """The same table, where columns without a name, or with that of another, do not stop astropy."""
    names = _fits_names(hdu.header)
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            hdu.header[f"TTYPE{i + 1}"] = f"{name}_{i + 1}"
    return hdu


def _load_fits(plain: Path, number: int, names: Sequence[str]) -> dict[str, _Raw]:
    """Columns of one table, read in parts, so that memory holds no more than the columns."""
    with fits.open(plain) as hdus:
        hdu = _named_apart(hdus[number])
        rows, step = hdu.header["NAXIS2"], max(1, _BYTES_AT_ONCE // hdu.header["NAXIS1"])
        described = {name: hdu.columns[name] for name in names}
        null, unit = ({name: getattr(c, what) for name, c in described.items()} for what in ("null", "unit"))
    blocks: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    for start in range(0, rows, step):
        # Opened anew, because the pages of a memory map count as memory until it is closed.
        with fits.open(plain, memmap=True) as hdus:
            data = _named_apart(hdus[number]).data[start : start + step]
            for name in names:
                blocks[name].append(_fits_values(data, name, null[name]))
    whole = {name: [np.concatenate(arrays) for arrays in zip(*blocks[name], strict=True)] for name in names}
    return {name: (values, mask, unit[name]) for name, (values, mask) in whole.items()}


def _fits_values(data: Any, name: str, null: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and mask of a column; a number of an ASCII table that is blank is missing."""
    raw = np.asarray(np.recarray.field(data, name))
    if raw.dtype.kind != "S":
        values = np.array(data[name])
        return values, raw == null if null is not None else np.zeros(values.shape, bool)
    if data.columns[name].format.format == "A":
        return np.array(raw), np.zeros(raw.shape, bool)
    text = np.char.lower(np.char.strip(np.char.decode(raw, "latin-1")))
    return np.array(data[name]), np.isin(text, [str(null).strip().lower(), *MISSING_TEXT])


# ---- text and Parquet


def _text_in(content: bytes) -> str:
    """Text in UTF-8 or UTF-16, with a byte order mark or without, or else in Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if b"\0" in content[:512]:
        raise ValueError("it is neither text nor a table of that format")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _text_part(path: Path, text: str) -> Part:
    """A table in text: ECSV, or columns between commas, semicolons, tabs, bars or blanks, with their names first."""
    lines = [line.strip() for line in itertools.takewhile(lambda line: line[:1] in "#\n\r", io.StringIO(text))]
    body = text.split("\n", len(lines))[-1]
    header, _, rest = body.partition("\n")
    comments = [line.lstrip("#").strip() for line in lines if line]
    described = get_header_from_yaml(comments[1:]) if text.startswith("# %ECSV") else {}
    separator = described.get("delimiter", " ") if described else next((s for s in ",\t;|" if s in header), "")
    if not separator and _format_of(path) not in ("ascii.csv", "ascii.ecsv"):
        raise ValueError("it is text without columns")
    if comments and not described and any(_NUMBER.fullmatch(v) for v in re.split(r"[,\t;|\s]+", header)):
        header, rest = comments[-1], body  # the names stand behind a "#"
    fields = next(csv.reader([header], delimiter=separator), []) if separator else header.split()
    names = [name.strip() for name in fields]
    if separator and '"' not in rest and any(line.count(separator) > len(names) for line in io.StringIO(rest)):
        raise ValueError("a line has more fields than the first, which names them")
    columns = {column["name"]: column for column in described.get("datatype", [])}

    def load(wanted: Sequence[str]) -> dict[str, _Raw]:
        import pandas as pd

        texts = [names.index(name) for name in wanted if columns.get(name, {}).get("datatype") == "string"]
        frame = pd.read_csv(
            io.StringIO(rest),
            sep=separator or r"\s+",
            header=None,
            names=list(range(len(names))),
            usecols=[names.index(name) for name in wanted],
            index_col=False,
            dtype=dict.fromkeys(texts, "string"),  # type: ignore[arg-type]
            dtype_backend="numpy_nullable",
            na_values=_MISSING,
            keep_default_na=False,
            skipinitialspace=True,
            float_precision="round_trip",
            low_memory=False,
        )
        return {n: _pandas_values(frame[names.index(n)], columns.get(n, {}).get("unit")) for n in wanted}

    return Part(path, "ECSV" if described else "CSV", names, load, (described.get("meta") or {}).get(META_KEY))


def _pandas_values(series: Any, unit: Any = None) -> _Raw:
    mask = series.isna().to_numpy()
    if series.dtype.kind in "biuf":
        return series.fillna(0).to_numpy(dtype=getattr(series.dtype, "numpy_dtype", series.dtype)), mask, unit
    return series.to_numpy(dtype="datetime64[us]" if series.dtype.kind == "M" else object), mask, unit


def _parquet_parts(path: Path, plain: Path) -> list[Part]:
    import pandas as pd
    import pyarrow.parquet as pq

    file = pq.ParquetFile(plain)
    stored = (file.schema_arrow.metadata or {}).get(b"table_meta_yaml")  # written by astropy
    described = get_header_from_yaml(stored.decode().split("\n")) if stored else {}
    units = {column["name"]: column.get("unit") for column in described.get("datatype", [])}

    def load(names: Sequence[str]) -> dict[str, _Raw]:
        frame = file.read(columns=list(names)).to_pandas(types_mapper=pd.ArrowDtype)
        return {name: _pandas_values(frame[name], units.get(name)) for name in names}

    meta = (described.get("meta") or {}).get(META_KEY)
    return [Part(path, "parquet", file.schema_arrow.names, load, meta)]


def table_in_memory(table: Table, path: Path, format: str) -> Part:
    """An astropy table as a part of the file that it came from, or that messages name."""

    def load(names: Sequence[str]) -> dict[str, _Raw]:
        raw = {}
        for name in names:
            c = getattr(table[name], "unmasked", table[name])
            values = np.ma.getdata(c) if isinstance(c, np.ndarray) else [str(value) for value in c]  # e.g. times
            raw[name] = (values, getattr(table[name], "mask", False), getattr(c, "unit", None))
        return raw

    return Part(path, format, list(table.colnames), load, table.meta.get(META_KEY))


def table_of_frame(frame: Any) -> Table:
    """The astropy table of a pandas data frame, missing values masked; objects become text."""
    return Table({str(name): _column(*_pandas_values(frame[name])) for name in frame.columns})
