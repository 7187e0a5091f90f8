"""Tables on disk, recognised by their content; every way of failing becomes one clear line."""

import bz2
import csv
import difflib
import gzip
import io
import json
import lzma
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.table.meta import get_header_from_yaml

from ..base.errors import InputError
from ..base.files import write_whole
from .values import MISSING_TEXT

__all__ = [
    "META_KEY",
    "Part",
    "best_part",
    "open_table",
    "read_columns",
    "read_table",
    "similar_names",
    "table_meta",
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
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# What files of other formats begin with, and what to do about them
_UNREADABLE = {
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or save it as CSV",
    b"\x89HDF": "HDF5: save the table as FITS or Parquet",
}
_TEXT_SUFFIXES = (".csv", ".ecsv", ".txt", ".dat", ".tsv", ".ascii")
_TEXT_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_MISSING = [variant for text in MISSING_TEXT for variant in (text, text.upper(), text.capitalize())] + ["NaN", "NaT"]
# Names that surveys use for a quantity and that difflib cannot guess from its spelling
_ALIASES = {
    "radial_velocity": ("rv", "vhelio_avg", "vhelio", "vrad", "rv_galah", "rv_comp_1"),
    "distance": ("dist", "r_med_geo", "r_med_photogeo", "r_est", "dist50"),
    "ra": ("raj2000", "_ra", "alpha"),
    "dec": ("dej2000", "_de", "delta"),
}


class Part(NamedTuple):
    """One table of a file: the names of its columns, `read(names)` for some of them, and its metadata."""

    names: list[str]
    read: Callable[[Sequence[str]], Table]
    meta: Any = None


def open_table(path: str | os.PathLike[str]) -> list[Part]:
    """The tables in a FITS, ECSV, CSV, Parquet or VOTable file, packed (gzip, bzip2, xz) or not.

    The format follows from the content, not from the name. Of FITS and Parquet nothing but headers is read before
    `read` is called. Raises `InputError` where the file is absent, is not such a table, is truncated or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a table' if path.is_dir() else 'no such file'}")
    with _one_line(path, path.suffix.lstrip(".") or "a table"), path.open("rb") as file:
        packed = next((opener for magic, opener in _PACKED.items() if file.peek(8).startswith(magic)), None)
        head = (packed(path) if packed else file).read(512)
    for magic, what in _UNREADABLE.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is {what}")
    if head.startswith(b"SIMPLE"):
        with _one_line(path, "fits"):
            return _fits_parts(path, packed)
    if head.startswith(b"PAR1"):
        with _one_line(path, "parquet"):
            return [_parquet_part(path, io.BytesIO(packed(path).read()) if packed else path)]
    with _one_line(path, "text"):
        content = packed(path).read() if packed else path.read_bytes()
    if b"<VOTABLE" in head:
        with _one_line(path, "VOTable"):
            return _votable_parts(path, content)
    mark = next((encoding for magic, encoding in _TEXT_MARKS.items() if head.startswith(magic)), "")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not mark and b"\0" in head:
        raise InputError(f"{path}: cannot be read as {_format_of(path)}: it is neither text nor a table of that format")
    try:
        text = content.decode(mark or "utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    with _one_line(path, "ECSV" if text.startswith("# %ECSV") else "CSV"):
        return [_text_part(path, text, any(suffix in _TEXT_SUFFIXES for suffix in suffixes))]


def best_part(parts: Sequence[Part], wanted: Iterable[str]) -> Part:
    """The table that has the most of the wanted columns, the first among equals; names in any case."""
    names = {name.lower() for name in wanted}
    return max(parts, key=lambda part: len(names & {name.lower() for name in part.names}))


def read_columns(path: str | os.PathLike[str], columns: Sequence[str]) -> Table:
    """Only these columns of the table that has them. Raises `InputError` as `open_table`."""
    return best_part(open_table(path), columns).read(columns)


def read_table(path: str | os.PathLike[str]) -> Table:
    """Every column of the first table in a file that has rows. Raises `InputError` as `open_table`."""
    part = open_table(path)[0]
    table = part.read(part.names)
    table.meta[META_KEY] = part.meta
    return table


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


def _masked(values: np.ndarray, mask: Any, unit: str | None = None) -> MaskedColumn:
    column = MaskedColumn(values, mask=mask)
    column.unit = None if not unit else u.Unit(unit, parse_strict="silent")
    return column


def _with_rows(path: Path, table: Table) -> Table:
    if len(table) == 0:
        raise InputError(f"{path}: the table is empty (0 rows); nothing to work on")
    return table


# ---- FITS


def _fits_parts(path: Path, packed: Callable[..., Any] | None) -> list[Part]:
    """The tables that have rows (SDSS-V's files begin with an empty one)."""
    temporary: Any = None
    if packed:  # a memory map needs it plain
        temporary = tempfile.NamedTemporaryFile(suffix=".fits")  # noqa: SIM115
        with packed(path) as content:
            shutil.copyfileobj(content, temporary, 1 << 24)
        temporary.flush()
    plain = Path(temporary.name) if temporary else path
    parts, tables = [], 0
    with fits.open(plain) as hdus:
        for number, hdu in enumerate(hdus):
            if not isinstance(hdu, fits.BinTableHDU | fits.TableHDU):
                continue
            tables += 1
            missing = hdu.fileinfo()["datLoc"] + hdu.header["NAXIS1"] * hdu.header["NAXIS2"] - plain.stat().st_size
            if missing > 0:
                raise InputError(
                    f"{path}: cannot be read as fits: truncated, {missing} bytes are missing; copy it again"
                )
            if hdu.header["NAXIS2"]:
                # The temporary file lives as long as the function that reads it.
                def read(names: Sequence[str], number: int = number, keep: Any = temporary) -> Table:
                    with _one_line(path, "fits"):
                        return _read_fits(plain, number, names)

                parts.append(Part(list(hdu.columns.names), read, hdu.header.get(META_KEY)))
    if not tables:
        raise InputError(f"{path}: cannot be read as fits: no table in it; is it a catalogue?")
    if not parts:
        raise InputError(f"{path}: the table is empty (0 rows); nothing to work on")
    return parts


def _read_fits(path: Path, number: int, names: Sequence[str]) -> Table:
    """Columns of one table, read in parts, so that memory holds no more than the columns."""
    with fits.open(path) as hdus:
        header = hdus[number].header
        rows, step = header["NAXIS2"], max(1, _BYTES_AT_ONCE // header["NAXIS1"])
        described = {name: hdus[number].columns[name] for name in names}
        null = {name: column.null for name, column in described.items()}
        unit = {name: column.unit for name, column in described.items()}
    parts: dict[str, list[tuple[np.ndarray, Any]]] = {name: [] for name in names}
    for start in range(0, rows, step):
        # Opened anew, because the pages of a memory map count as memory until it is closed.
        with fits.open(path, memmap=True) as hdus:
            data = hdus[number].data[start : start + step]
            for name in parts:
                parts[name].append(_fits_values(data, name, null[name]))
    table = Table()
    for name, blocks in parts.items():
        values, mask = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
        table[name] = _masked(values, mask, unit[name])
    return table


def _fits_values(data: Any, name: str, null: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and mask of a column. Text is Latin-1, of which ASCII is a part; blanks in an ASCII table are missing."""
    raw = np.asarray(np.recarray.field(data, name))
    if raw.dtype.kind == "S" and data.columns[name].format.format == "A":
        text = np.char.decode(raw, "latin-1")
        return text, np.zeros(text.shape, bool)
    values = np.array(data[name])
    if raw.dtype.kind == "S":
        text = np.char.strip(np.char.decode(raw, "latin-1"))
        return values, np.isin(np.char.lower(text), ["", str(null).strip().lower(), *MISSING_TEXT])
    return values, raw == null if null is not None else np.zeros(values.shape, bool)


# ---- text, Parquet, VOTable


def _text_part(path: Path, text: str, known_suffix: bool) -> Part:
    """A table in text: ECSV, or columns between commas, semicolons, tabs, bars or blanks, with their names first."""
    position, comments, first = 0, [], ""
    while position < len(text):
        end = text.find("\n", position) + 1 or len(text)
        first = text[position:end].strip()
        if first and not first.startswith("#"):
            break
        comments += [first.lstrip("#").strip()] * bool(first)
        position, first = end, ""
    described: dict[str, Any] = {}
    if text.startswith("# %ECSV"):
        described = get_header_from_yaml(comments[1:])
    separator = described.get("delimiter", " ") if described else next((s for s in ",\t;|" if s in first), "")
    body = position
    if comments and not described and _is_data(first, separator):
        first = comments[-1]  # the names stand behind a "#"
    else:
        body = text.find("\n", position) + 1 or len(text)
    if not separator and not known_suffix:
        _format_of(path)
        raise InputError(f"{path}: cannot be read as {_format_of(path)}: it is text without columns")
    fields = next(csv.reader([first], delimiter=separator), []) if separator else first.split()
    names = [name.strip() for name in fields]
    columns = {column["name"]: column for column in described.get("datatype", [])}

    def read(wanted: Sequence[str]) -> Table:
        import pandas as pd

        texts = [names.index(name) for name in wanted if columns.get(name, {}).get("datatype") == "string"]
        with _one_line(path, "ECSV" if described else "CSV"):
            frame = pd.read_csv(
                io.StringIO(text[body:]),
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
            units = {name: columns.get(name, {}).get("unit") for name in wanted}
            return _with_rows(path, Table({n: _pandas_values(frame[names.index(n)], units[n]) for n in wanted}))

    return Part(names, read, (described.get("meta") or {}).get(META_KEY))


def _is_data(line: str, separator: str) -> bool:
    """Whether a line of text holds values, rather than names of columns."""
    fields = [field.strip() for field in (line.split(separator) if separator else line.split())]
    return any(field.replace(".", "").lstrip("+-").isdecimal() for field in fields)


def _pandas_values(series: Any, unit: str | None = None) -> MaskedColumn:
    """A pandas column: numbers and dates as they are, anything else as text."""
    mask = series.isna().to_numpy()
    if series.dtype.kind in "biuf":
        plain = getattr(series.dtype, "numpy_dtype", series.dtype)
        return _masked(series.fillna(0).to_numpy(dtype=plain), mask, unit)
    if series.dtype.kind == "M":
        return _masked(series.to_numpy(dtype="datetime64[us]"), mask, unit)
    values = zip(series.tolist(), mask, strict=True)
    plain = ["" if m else v.decode("latin-1") if isinstance(v, bytes) else str(v) for v, m in values]
    return _masked(np.array(plain, dtype=str), mask, unit)


def _parquet_part(path: Path, source: Any) -> Part:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    stored = (file.schema_arrow.metadata or {}).get(b"table_meta_yaml")  # written by astropy
    described = get_header_from_yaml(stored.decode().split("\n")) if stored else {}
    units = {column["name"]: column.get("unit") for column in described.get("datatype", [])}
    whole = {f"{sign}int{bits}": f"{sign.upper()}Int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    integers = {getattr(pa, arrow)(): pd.api.types.pandas_dtype(nullable) for arrow, nullable in whole.items()}

    def read(names: Sequence[str]) -> Table:
        with _one_line(path, "parquet"):
            frame = file.read(columns=list(names)).to_pandas(types_mapper=integers.get)
            return _with_rows(path, Table({name: _pandas_values(frame[name], units.get(name)) for name in names}))

    return Part(file.schema_arrow.names, read, (described.get("meta") or {}).get(META_KEY))


def _votable_parts(path: Path, content: bytes) -> list[Part]:
    from astropy.io import votable

    def part(table: Any) -> Part:
        return Part(list(table.colnames), lambda names: _with_rows(path, Table(table[list(names)])))

    found = votable.parse(io.BytesIO(content), verify="ignore").iter_tables()
    return [part(table.to_table(use_names_over_ids=True)) for table in found]
