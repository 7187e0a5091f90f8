"""From a survey's file, and a table beside it, to a star table by a named recipe, with a record of every cut."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..base.errors import InputError
from .recipes import CUTS, book, columns_of, recipe
from .table import META_KEY, Part, best_part, open_table, similar_names
from .values import clean_label, column_values, identifiers

__all__ = ["CutFlow", "Step", "select"]

_ANY_SURVEY: dict[str, Any] = {
    "columns": {}, "id": "source_id", "joins": [], "names": [], "elements": "{X}", "errors": "{X}_ERR"
}  # fmt: skip


class Step(NamedTuple):
    """One cut: stars left after it and those before it, and stars lost by it alone (that pass every other cut)."""

    cut: str
    left: int
    lost_alone: int


class CutFlow(NamedTuple):
    """What a recipe did to `rows` rows of a survey, and what is odd about them; `str` makes it a table."""

    recipe: str
    survey: str
    rows: int
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        width = max(len(name) for name in ("all rows", *(step.cut for step in self.steps)))
        lines = [
            f"{self.recipe} on {self.survey}",
            f"{'cut':{width}}  {'left':>9}  lost by it alone",
            f"{'all rows':{width}}  {self.rows:9d}",
        ]
        lines += [f"{step.cut:{width}}  {step.left:9d}  {step.lost_alone:9d}" for step in self.steps]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


def select(
    path: str | os.PathLike[str],
    recipe_name: str,
    override: Mapping[str, Any] | None = None,
    *,
    gaia: str | os.PathLike[str] | None = None,
    on: str | None = None,
    distance: str | None = None,
) -> tuple[Table, CutFlow]:
    """Read a survey's catalogue and keep the stars of a recipe, under the names that `read_stars` knows.

    Only the columns needed are read; those that a range was asked of (TEFF, LOGG, SNR) are kept. `gaia` names another
    table (Gaia's, a value-added catalogue), whose astrometry takes the place of the survey's and which may hold
    distances; it is joined where column `on` ("OURS" or "OURS=THEIRS") agrees, by default the survey's own identifiers
    (a source id, APOGEE_ID or 2MASS id, sobject_id).
    `distance` names one of `recipes.toml`: with it the table has `distance` and `distance_error` [kpc], which
    `read_stars` takes in place of 1 / parallax. `override` as in `recipe`. The cut flow is stored in the table's
    metadata. Raises `InputError` for an unknown recipe, survey, distance or column.
    """
    surveys, cuts = recipe(recipe_name, override)
    makers, known = book()["distance"], book()["survey"]
    if distance is not None and distance not in makers:
        raise InputError(f"no distance {distance}; choose from {', '.join(makers)}, or leave it out for 1 / parallax")
    needed = {column for cut in cuts.values() for column in columns_of(cut).values()}
    files = [(Path(p), open_table(p)) for p in (path, gaia) if p is not None]
    tried = {name: _Catalogue(files, on, known[name], needed) for name in surveys}
    tried = tried or {"any table": _Catalogue(files, on, _ANY_SURVEY, needed)}
    lacking = {name: catalogue.lacking(needed) for name, catalogue in tried.items()}
    # A joined table may have what another release lacks: the survey is the one whose own names the file has.
    name = min(tried, key=lambda name: (len(lacking[name]), -tried[name].own()))
    catalogue = tried[name]
    if absent := lacking[name]:
        near = similar_names(absent[0], catalogue.names[0].values())
        raise InputError(
            f"{path}: recipe {recipe_name} needs the columns of {' or '.join(tried)}; absent: {', '.join(absent)};"
            f" similar: {', '.join(near) or 'none'}; is it that survey's file, or is a Gaia table to be joined?"
        )
    distances = None if distance is None else _Distance(catalogue, distance, makers[distance])
    return _apply(catalogue, name, cuts, recipe_name, distances)


class _Catalogue:
    """One or two files of a survey. Columns are found under our names (`survey["columns"]`) or the files' own.

    `notes` tells what `read` found odd about the join.
    """

    def __init__(
        self, files: Sequence[tuple[Path, list[Part]]], on: str | None, survey: Mapping[str, Any], needed: Iterable[str]
    ):
        ours = survey["columns"]
        wanted = [ours.get(name, name) for name in needed]
        self.paths = [path for path, _ in files]
        self.parts = [best_part(parts, [*wanted, *ours, *ours.values(), survey["id"]]) for _, parts in files]
        self.names = [{name.lower(): name for name in part.names} for part in self.parts]
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
            tables = [self.parts[0].read(sorted(columns[0]))]
        else:
            keys = self._keys()
            tables = [p.read(sorted(c | {k})) for p, c, k in zip(self.parts, columns, keys, strict=True)]
            rows, matched = self._match(tables[0][keys[0]], tables[1][keys[1]])
            tables[1] = Table(tables[1][rows], masked=True)
            for column in tables[1].itercols():
                column.mask |= ~matched
        return Table({name: tables[file][column] for name, (file, column) in found.items()})

    def _match(self, key: Any, other: Any) -> tuple[np.ndarray, np.ndarray]:
        """For each key the row of the other table that holds it, and whether there is one."""
        found = [identifiers(key), identifiers(other)]
        for names, column, path in zip(found, (key, other), self.paths, strict=True):
            if not names.exact:
                raise InputError(
                    f"{path}: {column.name} is a floating-point number, or was one, which cannot hold every digit of an"
                    " identifier; join on another column, or save it as an integer"
                )
        a, b = (names.values for names in found)
        if a.dtype.kind != b.dtype.kind:
            a, b = a.astype(str), b.astype(str)
        if a.dtype.kind == "U":
            a, b = _without_prefix(a), _without_prefix(b)
        order = np.flatnonzero(found[1].known)
        order = order[np.argsort(b[order], kind="stable")]
        place = np.minimum(np.searchsorted(b[order], a), max(order.size - 1, 0))
        rows = order[place] if order.size else np.zeros(a.size, int)
        matched = (b[rows] == a) & found[0].known & bool(order.size)
        name = self.paths[1].name
        if not matched.any():
            raise InputError(
                f"{self.paths[1]}: none of its {key.name}={other.name} is in {self.paths[0].name}; e.g. {a[0]} there,"
                f" {b[0]} here; say other columns with OURS=THEIRS (--on)"
            )
        if lacking := int(np.sum(~matched)):
            self.notes.append(f"{lacking} of {a.size} rows have no match in {name} ({key.name}={other.name})")
        if repeated := order.size - np.unique(b[order]).size:
            self.notes.append(f"{name} repeats {other.name} in {repeated} rows: the first of each is used")
        return rows, matched


def _without_prefix(names: np.ndarray) -> np.ndarray:
    """APOGEE writes 2M00000002+7417074 where 2MASS, and Gaia's table of its matches, have 00000002+7417074."""
    return np.array([t[2:] if t.startswith("2M") and t[2:3].isdigit() else t for t in names.tolist()], dtype=str)


class _Distance:
    """Distances of another maker, as `recipes.toml` describes them, in the tables of a catalogue."""

    def __init__(self, catalogue: _Catalogue, name: str, maker: Mapping[str, Any]):
        self.unit = u.Unit(maker["unit"])
        self.columns: dict[str, str] = {}
        for role in ("distance", "error", "low", "high"):
            tried = maker.get(role, [])
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


def _apply(
    catalogue: _Catalogue, survey_name: str, cuts: Mapping[str, Any], name: str, distance: _Distance | None
) -> tuple[Table, CutFlow]:
    survey, path = catalogue.survey, catalogue.paths[0]

    def spelled(form: str, element: str) -> str:
        return survey[form].format(X=element, x=element.lower())

    elements = [e for e in survey["names"] if catalogue.find(spelled("elements", e))]
    flags = {
        e: spelled("flags", e)
        for e in elements
        if "flags" in survey and e not in survey.get("flagless", ()) and catalogue.find(spelled("flags", e))
    }
    standard = [*survey["columns"]] or catalogue.parts[0].names
    measured = [spelled(form, e) for form in ("elements", "errors") for e in elements]
    needed = [column for cut in cuts.values() for column in columns_of(cut).values()]
    wanted = [*standard, *needed, survey["id"], "ref_epoch", *measured, *flags.values()]
    table = catalogue.read(list(dict.fromkeys([*wanted, *(distance.columns.values() if distance else ())])))
    stars, notes = -1 - np.arange(len(table)), []
    if survey["id"] in table.colnames:
        names = identifiers(table[survey["id"]])
        stars = names.star_of_row()
        if not names.exact:
            notes = [f"{survey['id']} has lost digits, so that rows of one star cannot be told"]

    passed: dict[str, np.ndarray] = {}
    for cut, arguments in cuts.items():
        values: dict[str, Any] = {a: column_values(table, column) for a, column in columns_of(arguments).items()}
        if arguments["kind"] != "bits_unset":
            values = {a: clean_label(arguments[a], column)[0] for a, column in values.items()}
        rest = {k: v for k, v in arguments.items() if k not in values and k != "kind"}
        if arguments["kind"] == "highest":
            if survey["id"] not in table.colnames:
                raise InputError(f"{path}: no column {survey['id']}, by which cut {cut} tells stars apart")
            rest |= {"star": stars, "among": np.logical_and.reduce([np.ones(len(table), bool), *passed.values()])}
        passed[cut] = CUTS[arguments["kind"]](**values, **rest)
    keep, steps, warnings = _flow(len(table), passed)
    if repeated := int(keep.sum()) - np.unique(stars[keep]).size:
        warnings.append(f"{repeated} of the rows left repeat the {survey['id']} of another")
    flow = CutFlow(name, survey_name, len(table), steps, (*catalogue.notes, *notes, *warnings))

    # What stars were cut by (temperatures, gravities, ...) may be what abundances depend on, too.
    ranged = [cut["column"] for cut in cuts.values() if cut["kind"] == "between"]
    kept = dict.fromkeys([*standard, survey["id"], "ref_epoch", *ranged])
    plain = [name for name in kept if name in table.colnames and table[name].dtype.kind in "biufU"]
    chosen = Table({name: table[name] for name in plain})
    if distance:
        for column, array in distance.values(table).items():
            chosen[column] = array
    for e in elements:
        good = column_values(table, flags[e]) == 0 if e in flags else True
        chosen[e] = np.where(good, column_values(table, spelled("elements", e)), np.nan)
        if (its_error := spelled("errors", e)) in table.colnames:
            chosen[f"{e}_ERR"] = column_values(table, its_error)
    chosen = chosen[keep]
    record = flow._asdict() | {"cuts": cuts, "sources": [p.name for p in catalogue.paths]}
    lost = [f"{step.cut} left {step.left}" for step in flow.steps]
    notes = [f"selected by {name} from {flow.rows} rows of {survey_name}: {', '.join(lost)}", *flow.warnings]
    chosen.meta = {META_KEY: json.dumps({"selection": record, "notes": notes})}
    return chosen, flow


def _flow(rows: int, passed: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[Step, ...], list[str]]:
    """The rows that pass every cut (N,), what each cut did, and which of them left nothing."""
    failed = sum((~p).astype(int) for p in passed.values())
    keep, steps, warnings = np.ones(rows, bool), [], []
    for cut, passes in passed.items():
        before = keep.sum()
        keep = keep & passes
        steps.append(Step(cut, int(keep.sum()), int(np.sum(~passes & (failed == 1)))))
        if not passes.any():
            warnings.append(f"cut {cut} removes every one of {rows} rows on its own")
        elif before and not keep.any():
            warnings.append(f"cut {cut} removes the last {before} rows")
    return keep, tuple(steps), warnings
