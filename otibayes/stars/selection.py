"""From a survey's catalogue to a star table, by a named recipe, with a record of what every cut did.

Recipes are data (`recipes.toml`); their cuts are pure functions of columns (`cuts.py`).
"""

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table

from ..base.errors import InputError
from .cuts import CUTS, columns_of
from .survey import Catalogue, Distance, book
from .table import META_KEY, column_names, column_values, similar_names

__all__ = ["CutFlow", "Step", "distance_makers", "parse_override", "recipe", "recipes", "select"]


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


def recipes() -> dict[str, str]:
    """Every recipe's name, and what it is."""
    return {name: entry["about"] for name, entry in book()["recipe"].items()}


def distance_makers() -> dict[str, str]:
    """Every distance's name, and what it is."""
    return {name: entry["about"] for name, entry in book()["distance"].items()}


def recipe(name: str, override: Mapping[str, Any] | None = None) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The surveys that a recipe is for, and its cuts by name, as overridden.

    `override` maps a cut to the arguments to change, {"snr": {"min": 50}}, or to "off"; a new cut must say its kind.
    Raises `InputError` for an unknown recipe or cut.
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
    `distance` is one of `distance_makers()`: with it the table has `distance` and `distance_error` [kpc], which
    `read_stars` takes in place of 1 / parallax. `override` as in `recipe`. The cut flow is stored in the table's
    metadata. Raises `InputError` for an unknown recipe, survey, distance or column.
    """
    path = Path(path)
    surveys, cuts = recipe(recipe_name, override)
    known = book()["survey"]
    needed = {column for cut in cuts.values() for column in columns_of(cut).values()}
    plain: dict[str, Any] = {
        "columns": {}, "id": "source_id", "joins": [], "names": [], "elements": "{X}", "errors": "{X}_ERR"
    }  # fmt: skip
    other = Path(gaia) if gaia else None
    tried = {name: Catalogue(path, other, on, known[name]) for name in surveys}
    tried = tried or {"any table": Catalogue(path, other, on, plain)}
    lacking = {name: catalogue.lacking(needed) for name, catalogue in tried.items()}
    # A joined table may have what another release lacks: the survey is the one whose own names the file has.
    name = min(tried, key=lambda name: (len(lacking[name]), -tried[name].own()))
    catalogue = tried[name]
    if lacking[name]:
        absent = lacking[name]
        near = similar_names(absent[0], catalogue.names[0].values())
        raise InputError(
            f"{path}: recipe {recipe_name} needs the columns of {' or '.join(tried)}; absent: {', '.join(absent)};"
            f" similar: {', '.join(near) or 'none'}; is it that survey's file, or is a Gaia table to be joined?"
        )
    return _apply(catalogue, name, cuts, recipe_name, Distance(catalogue, distance) if distance else None)


def _apply(
    catalogue: Catalogue, survey_name: str, cuts: Mapping[str, Any], name: str, distance: Distance | None
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
    standard = [*survey["columns"]] or column_names(path)
    measured = [spelled(form, e) for form in ("elements", "errors") for e in elements]
    needed = [column for cut in cuts.values() for column in columns_of(cut).values()]
    wanted = [*standard, *needed, survey["id"], "ref_epoch", *measured, *flags.values()]
    table = catalogue.read(list(dict.fromkeys([*wanted, *(distance.columns.values() if distance else ())])))
    identifier = np.asarray(table[survey["id"]]).astype(str) if survey["id"] in table.colnames else None

    passed: dict[str, np.ndarray] = {}
    for cut, arguments in cuts.items():
        values: dict[str, Any] = {a: column_values(table, column) for a, column in columns_of(arguments).items()}
        rest = {k: v for k, v in arguments.items() if k not in values and k != "kind"}
        if arguments["kind"] == "highest":
            if identifier is None:
                raise InputError(f"{path}: no column {survey['id']}, by which cut {cut} tells stars apart")
            rest |= {
                "identifier": identifier,
                "among": np.logical_and.reduce([np.ones(len(table), bool), *passed.values()]),
            }
        try:
            passed[cut] = CUTS[arguments["kind"]](**values, **rest)
        except TypeError as error:
            given = {k: v for k, v in arguments.items() if k != "kind"}
            raise InputError(f"cut {cut} ({arguments['kind']}) cannot use {given}: {error}") from None
    keep, steps, warnings = _flow(len(table), passed)
    if identifier is not None and (repeated := int(keep.sum()) - np.unique(identifier[keep]).size):
        warnings.append(f"{repeated} of the rows left repeat the {survey['id']} of another")
    flow = CutFlow(name, survey_name, len(table), steps, (*catalogue.notes, *warnings))

    # What stars were cut by (temperatures, gravities, ...) may be what abundances depend on, too.
    ranged = [cut["column"] for cut in cuts.values() if cut["kind"] == "between"]
    kept = dict.fromkeys([*standard, survey["id"], "ref_epoch", *ranged])
    chosen = Table({name: table[name] for name in kept if name in table.colnames})
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
