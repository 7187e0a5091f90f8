"""A survey's file, and a table beside it, under our names: which column is where, rows joined by an identifier."""

import importlib.resources
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..base.errors import InputError
from .table import column_names, column_values, read_columns, similar_names

__all__ = ["Catalogue", "Distance", "book"]


def book() -> dict[str, Any]:
    """What `recipes.toml` says of surveys, distances and recipes."""
    return tomllib.loads((importlib.resources.files(__package__) / "recipes.toml").read_text())


class Catalogue:
    """One or two files of a survey. Columns are found under our names (`survey["columns"]`) or the files' own.

    `notes` tells what `read` found odd about the join.
    """

    def __init__(self, path: Path, other: Path | None, on: str | None, survey: Mapping[str, Any]):
        self.paths = [path] if other is None else [path, other]
        self.names = [{name.lower(): name for name in column_names(p)} for p in self.paths]
        self.survey, self.on = survey, on
        self.notes: list[str] = []

    def find(self, name: str) -> tuple[int, str] | None:
        """Which file (0 or 1) has the column called `name`, and the file's own name for it."""
        ours = self.survey["columns"]
        theirs = ours.get(name, name).lower()
        # The other table's astrometry takes the place of the survey's: that is why it is there.
        if len(self.paths) == 2 and name in ours and name in self.names[1] and "velocity" not in name:
            return 1, self.names[1][name]
        return next(((i, names[theirs]) for i, names in enumerate(self.names) if theirs in names), None)

    def lacking(self, needed: Iterable[str]) -> list[str]:
        """Which of the survey's columns and those needed there are not, as the survey calls them."""
        ours = self.survey["columns"]
        return [ours.get(name, name) for name in [*ours, *sorted(needed)] if self.find(name) is None]

    def own(self) -> int:
        """How many of the survey's columns are in its own file."""
        return sum(theirs.lower() in self.names[0] for theirs in self.survey["columns"].values())

    def _keys(self) -> tuple[str, str]:
        """The columns of either file that identify a star."""
        tried = [self.on] if self.on else [*self.survey["joins"], "source_id"]
        for pair in tried:
            key, _, other = pair.partition("=")
            found = self.names[0].get(key.lower()), self.names[1].get((other or key).lower())
            if found[0] and found[1]:
                return found[0], found[1]
        if self.on:
            absent = 0 if found[0] is None else 1
            name = (key, other or key)[absent]
            near = similar_names(name, self.names[absent].values())
            raise InputError(f"{self.paths[absent]}: no column {name} to join on; similar: {', '.join(near) or 'none'}")
        raise InputError(
            f"{self.paths[1]}: cannot be joined with {self.paths[0].name} by any of {', '.join(tried)};"
            f" its columns: {', '.join(list(self.names[1].values())[:12])}; say which with OURS=THEIRS (--on)"
        )

    def read(self, wanted: Sequence[str]) -> Table:
        """The wanted columns that there are, under the wanted names."""
        found = {name: where for name in wanted if (where := self.find(name)) is not None}
        columns = [{column for file, column in found.values() if file == i} for i in range(len(self.paths))]
        if len(self.paths) == 1:
            tables = [read_columns(self.paths[0], sorted(columns[0]))]
        else:
            keys = self._keys()
            tables = [read_columns(p, sorted(c | {k})) for p, c, k in zip(self.paths, columns, keys, strict=True)]
            rows, matched = self._match(tables[0][keys[0]], tables[1][keys[1]])
            tables[1] = Table(tables[1][rows], masked=True)
            for column in tables[1].itercols():
                column.mask |= ~matched
        return Table({name: tables[file][column] for name, (file, column) in found.items()})

    def _match(self, keys: Any, others: Any) -> tuple[np.ndarray, np.ndarray]:
        """For each key the row of `others` that holds it, and whether there is one."""
        a, b = (_identifiers(column, path) for column, path in zip((keys, others), self.paths, strict=True))
        if a.dtype.kind != b.dtype.kind:
            a, b = a.astype(str), b.astype(str)
        order = np.argsort(b, kind="stable")
        rows = order[np.minimum(np.searchsorted(b, a, sorter=order), b.size - 1)]
        matched = (b[rows] == a) & (np.char.str_len(a) > 0 if a.dtype.kind == "U" else a > 0)
        name = self.paths[1].name
        if not matched.any():
            raise InputError(
                f"{self.paths[1]}: none of its {keys.name}={others.name} is in {self.paths[0].name}; e.g. {a[0]} there,"
                f" {b[0]} here; say other columns with OURS=THEIRS (--on)"
            )
        if lacking := int(np.sum(~matched)):
            self.notes.append(f"{lacking} of {a.size} rows have no match in {name} ({keys.name}={others.name})")
        if repeated := b.size - np.unique(b).size:
            self.notes.append(f"{name} repeats {others.name} in {repeated} rows: the first of each is used")
        return rows, matched


def _identifiers(column: Any, path: Path) -> np.ndarray:
    """Identifiers that can be compared: integers, or text without blanks and 2MASS's prefix; missing ones 0 or ""."""
    values = np.ma.asarray(column)
    if values.dtype.kind == "f":
        raise InputError(
            f"{path}: {column.name} is a floating-point number, which cannot hold every digit of an identifier; join on"
            " another column, or save it as an integer"
        )
    if values.dtype.kind in "iu":
        return values.filled(0).astype(np.int64)
    text = np.char.strip(values.filled("").astype(str))
    # APOGEE writes 2M00000002+7417074 where 2MASS, and Gaia's table of its matches, have 00000002+7417074.
    return np.array([t[2:] if t.startswith("2M") and t[2:3].isdigit() else t for t in text])


class Distance:
    """Distances of another maker, as `recipes.toml` describes them, in the tables of a catalogue.

    Raises `InputError` for an unknown name, or where the tables lack the columns.
    """

    def __init__(self, catalogue: Catalogue, name: str):
        known = book()["distance"]
        if name not in known:
            raise InputError(f"no distance {name}; choose from {', '.join(known)}, or leave it out for 1 / parallax")
        self.unit = u.Unit(known[name]["unit"])
        self.columns: dict[str, str] = {}
        for role in ("distance", "error", "low", "high"):
            tried = known[name].get(role, [])
            found = [column for column in tried if catalogue.find(column)]
            if tried and not found:
                raise InputError(
                    f"{catalogue.paths[0]}: distance {name} needs a column {' or '.join(tried)}, which is absent;"
                    " is another table to be joined (--gaia)?"
                )
            if found:
                self.columns[role] = found[0]

    def values(self, table: Table) -> dict[str, u.Quantity]:
        """`distance` and `distance_error` (N,) [kpc], NaN where there is none."""
        values = {role: column_values(table, column, self.unit) for role, column in self.columns.items()}
        error = values["error"] if "error" in values else (values["high"] - values["low"]) / 2
        usable = (values["distance"] > 0) & (error >= 0)
        both = {"distance": values["distance"], "distance_error": error}
        return {name: (np.where(usable, array, np.nan) * self.unit).to(u.kpc) for name, array in both.items()}
