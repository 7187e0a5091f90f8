"""From a survey's catalogue to a star table, by a named recipe, with a record of what every cut did.

Recipes are data (`recipes.toml`); their cuts are pure functions of columns (`cuts.py`).
"""

import importlib.resources
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table

from ..errors import InputError
from .cuts import CUTS, columns_of
from .table import META_KEY, column_names, column_values, read_columns, similar_names

__all__ = ["CutFlow", "Step", "parse_override", "recipe", "recipes", "select"]


class Step(NamedTuple):
    """One cut: stars left after it and those before it, and stars lost by it alone (that pass every other cut)."""

    cut: str
    left: int
    lost_alone: int


class CutFlow(NamedTuple):
    """What a recipe did to `rows` rows; `str` makes it a table."""

    recipe: str
    rows: int
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        width = max(len("all rows"), *(len(step.cut) for step in self.steps))
        lines = [f"{'cut':{width}}  {'left':>9}  lost by it alone", f"{'all rows':{width}}  {self.rows:9d}"]
        lines += [f"{step.cut:{width}}  {step.left:9d}  {step.lost_alone:9d}" for step in self.steps]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


def _book() -> dict[str, Any]:
    return tomllib.loads((importlib.resources.files(__package__) / "recipes.toml").read_text())


def recipes() -> dict[str, str]:
    """Every recipe's name, and what it is."""
    return {name: entry["about"] for name, entry in _book()["recipe"].items()}


def recipe(name: str, override: Mapping[str, Any] | None = None) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The surveys that a recipe is for, and its cuts by name, as overridden.

    `override` maps a cut to the arguments to change, {"snr": {"min": 50}}, or to "off"; a new cut must say its kind.
    Raises `InputError` for an unknown recipe or cut.
    """
    book = _book()["recipe"]
    if name not in book:
        raise InputError(f"no recipe {name}; choose from {', '.join(book)}")
    base = book.get(book[name].get("like", ""), {})
    surveys, cuts = (base or book[name])["surveys"], dict(base.get("cuts", {}))
    for source in (book[name]["cuts"], override or {}):
        for cut, change in source.items():
            if change == "off" and cut in cuts:
                del cuts[cut]
            elif isinstance(change, Mapping) and (cut in cuts or change.get("kind") in CUTS):
                cuts[cut] = {**cuts.get(cut, {}), **change}
            else:
                raise InputError(f"recipe {name} has no cut {cut} to change to {change}; its cuts: {', '.join(cuts)}")
    # Which row of a star is best can be told only among those that pass everything else.
    return surveys, dict(sorted(cuts.items(), key=lambda item: item[1]["kind"] == "highest"))


def parse_override(texts: Sequence[str]) -> dict[str, Any]:
    """Overrides as the command line writes them: "snr.min=50", "low-alpha=off"; values as in TOML."""
    override: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        cut, _, argument = key.partition(".")
        try:
            if argument:
                override.setdefault(cut, {})[argument] = tomllib.loads(f"value = {value}")["value"]
            elif value == "off":
                override[cut] = "off"
            else:
                raise ValueError
        except (ValueError, AttributeError):
            raise InputError(f"cannot read the cut '{text}'; write CUT.ARGUMENT=VALUE or CUT=off") from None
    return override


class _Catalogue:
    """A survey's file, and a Gaia table beside it, under the names of `read_stars` and those of the survey."""

    def __init__(self, path: Path, gaia: Path | None, on: str, ours: Mapping[str, str]):
        self.paths = [path] if gaia is None else [path, gaia]
        self.ours = ours
        self.names = [{name.lower(): name for name in column_names(p)} for p in self.paths]
        key, _, other = on.partition("=")
        self.keys = [key, other or key][: len(self.paths)]

    def find(self, name: str) -> tuple[int, str] | None:
        """Which file (0 or 1) has the column called `name`, and the file's own name for it."""
        theirs = self.ours.get(name, name).lower()
        # The Gaia table's astrometry takes the place of the survey's: that is why it is there.
        if len(self.paths) == 2 and name in self.ours and name in self.names[1] and "velocity" not in name:
            return 1, self.names[1][name]
        return next(((i, names[theirs]) for i, names in enumerate(self.names) if theirs in names), None)

    def read(self, wanted: Sequence[str]) -> Table:
        """The wanted columns that there are, under the wanted names."""
        found = {name: where for name in wanted if (where := self.find(name)) is not None}
        columns = [{column for file, column in found.values() if file == i} for i in range(len(self.paths))]
        if len(self.paths) == 2:
            for i, (key, names, path) in enumerate(zip(self.keys, self.names, self.paths, strict=True)):
                if key.lower() not in names:
                    near = similar_names(key, names.values())
                    raise InputError(f"{path}: no column {key} to join on; similar: {', '.join(near) or 'none'}")
                self.keys[i] = names[key.lower()]
                columns[i].add(self.keys[i])
        tables = [read_columns(path, sorted(c)) for path, c in zip(self.paths, columns, strict=True)]
        if len(tables) == 2:
            rows, matched = _match(tables[0][self.keys[0]], tables[1][self.keys[1]])
            tables[1] = Table(tables[1][rows], masked=True)
            for column in tables[1].itercols():
                column.mask |= ~matched
        return Table({name: tables[file][column] for name, (file, column) in found.items()})


def _match(keys: Any, others: Any) -> tuple[np.ndarray, np.ndarray]:
    """For each key the row of `others` that holds it, and whether there is one."""
    a, b = np.char.strip(np.asarray(keys).astype(str)), np.char.strip(np.asarray(others).astype(str))
    order = np.argsort(b, kind="stable")
    rows = order[np.minimum(np.searchsorted(b, a, sorter=order), b.size - 1)]
    return rows, b[rows] == a


def select(
    path: str | os.PathLike[str],
    recipe_name: str,
    override: Mapping[str, Any] | None = None,
    *,
    gaia: str | os.PathLike[str] | None = None,
    on: str = "source_id",
) -> tuple[Table, CutFlow]:
    """Read a survey's catalogue and keep the stars of a recipe, under the names that `read_stars` knows.

    Only the columns needed are read. `gaia` names a table whose astrometry takes the place of the survey's, joined
    where column `on` ("OURS" or "OURS=THEIRS": a source id, APOGEE_ID, a 2MASS id) agrees. `override` as in `recipe`.
    The cut flow is stored in the table's metadata. Raises `InputError` for an unknown recipe, survey or column.
    """
    path = Path(path)
    surveys, cuts = recipe(recipe_name, override)
    book = _book()["survey"]
    needed = {column for cut in cuts.values() for column in columns_of(cut).values()}
    plain: dict[str, Any] = {"columns": {}, "id": "source_id", "names": [], "elements": "{X}", "errors": "{X}_ERR"}
    tried = {name: book[name] for name in surveys} or {"any table": plain}
    lacking = {}
    for survey in tried.values():
        catalogue = _Catalogue(path, Path(gaia) if gaia else None, on, survey["columns"])
        lacking[survey["id"]] = [n for n in [*survey["columns"], *sorted(needed)] if catalogue.find(n) is None]
        if not lacking[survey["id"]]:
            break
    else:
        absent = [survey["columns"].get(n, n) for n in lacking[survey["id"]]]
        near = similar_names(absent[0], catalogue.names[0].values())
        raise InputError(
            f"{path}: recipe {recipe_name} needs the columns of {' or '.join(tried)}; absent: {', '.join(absent)};"
            f" similar: {', '.join(near) or 'none'}; is it that survey's file, or is a Gaia table to be joined?"
        )
    return _apply(catalogue, survey, cuts, needed, recipe_name)


def _apply(
    catalogue: _Catalogue, survey: Mapping[str, Any], cuts: Mapping[str, Any], needed: set[str], name: str
) -> tuple[Table, CutFlow]:
    def spelled(form: str, element: str) -> str:
        return form.format(X=element, x=element.lower())

    elements = [e for e in survey["names"] if catalogue.find(spelled(survey["elements"], e))]
    columns = {e: spelled(survey["elements"], e) for e in elements}
    columns |= {f"{e}_ERR": spelled(survey["errors"], e) for e in elements}
    flags = {e: spelled(survey["flags"], e) for e in elements} if "flags" in survey else {}
    standard = [*survey["columns"]] or column_names(catalogue.paths[0])
    table = catalogue.read(list(dict.fromkeys([*standard, *needed, survey["id"], *columns.values(), *flags.values()])))

    passed: dict[str, np.ndarray] = {}
    for cut, arguments in cuts.items():
        values: dict[str, Any] = {a: column_values(table, column) for a, column in columns_of(arguments).items()}
        rest = {k: v for k, v in arguments.items() if k not in values and k != "kind"}
        if arguments["kind"] == "highest":
            if survey["id"] not in table.colnames:
                raise InputError(
                    f"{catalogue.paths[0]}: no column {survey['id']}, by which cut {cut} tells stars apart"
                )
            among = np.logical_and.reduce([np.ones(len(table), bool), *passed.values()])
            rest = {"identifier": np.asarray(table[survey["id"]]).astype(str), "among": among}
        try:
            passed[cut] = CUTS[arguments["kind"]](**values, **rest)
        except TypeError as error:
            raise InputError(f"cut {cut} ({arguments['kind']}) cannot use {rest}: {error}") from None
    keep, flow = _flow(name, len(table), passed)

    chosen = Table({n: table[n] for n in standard if n in table.colnames})
    if survey["id"] in table.colnames:
        chosen[survey["id"]] = table[survey["id"]]
    for ours, theirs in columns.items():
        if theirs in table.colnames:
            values_ = column_values(table, theirs)
            element = ours.removesuffix("_ERR")
            if element in flags and flags[element] in table.colnames:
                values_ = np.where(column_values(table, flags[element]) == 0, values_, np.nan)
            chosen[ours] = values_
    record = {"recipe": name, "cuts": cuts, "rows": flow.rows, "steps": flow.steps, "source": catalogue.paths[0].name}
    chosen = chosen[keep]
    lost = [f"{step.cut} left {step.left}" for step in flow.steps]
    notes = [f"selected by {name} from {flow.rows} rows: {', '.join(lost)}", *flow.warnings]
    chosen.meta = {META_KEY: json.dumps({"selection": record, "notes": notes})}
    return chosen, flow


def _flow(name: str, rows: int, passed: Mapping[str, np.ndarray]) -> tuple[np.ndarray, CutFlow]:
    """The rows that pass every cut (N,), and the cut flow."""
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
    return keep, CutFlow(name, rows, tuple(steps), tuple(warnings))
