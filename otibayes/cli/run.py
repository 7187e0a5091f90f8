"""A whole run from one file: select, classical, sample, compare."""

import difflib
import tomllib
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from .classical import classical
from .comparison import write_comparison
from .options import check_folder
from .sample import sample
from .stars import make_selection

__all__ = ["run"]

_RUN = ("output", "seed", "elements")
_STARS = ("catalogue", "columns", "zero_point")
_COMMANDS = {"select": make_selection, "classical": classical, "sample": sample}
_GIVEN = {"output", "seed", "elements", "column", "zero-point", "figure", "resume", "recipes", "help"}  # by the run


@click.command()
@click.argument("run_file", type=click.Path(path_type=Path), metavar="RUN.toml")
@click.option("--init", is_flag=True, help="Write a commented run file to start from, and exit.")
def run(run_file: Path, init: bool) -> None:
    """From a catalogue to the report, as a run file says: select, classical, sample, compare.

    Everything goes to one folder: stars.fits, classical.nc, posterior.nc, comparison.csv, comparison.png, report.html.
    A run that was stopped goes on where it was when it is started again.

    Example: otibayes run --init run.toml; edit run.toml; otibayes run run.toml
    """
    if init:
        from ..base.store import write_whole

        if run_file.exists():
            raise InputError(f"{run_file} exists already; give another name, or remove it")
        text = files(__package__).joinpath("run.toml").read_text().format(name=run_file)
        write_whole(run_file, lambda part: part.write_text(text))
        click.echo(f"written: {run_file}; edit it, then: otibayes run {run_file}")
        return
    text, plan = _read(run_file)
    output = run_file.parent / plan["run"]["output"]
    steps = _steps(run_file, plan, output)  # all of them, before any is run
    check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    for context in steps:
        click.echo(f"\notibayes {context.info_name}")
        with context:
            context.command.invoke(context)
    from ..analysis.report import Picture
    from ..results.files import load

    drawn = output / "selection.png"
    caption = "Left: the chemical plane with the recipe's polygon. Middle: from above. Right: height and velocity."
    pictures = [Picture("The selection", caption, drawn.read_bytes())] if "select" in plan else []
    results = (load(output / "classical.nc", "classical"), load(output / "posterior.nc", "posterior"))
    write_comparison(*results, output, [f"otibayes run {run_file}"], pictures, text)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """The text and content of a run file; `InputError` where it cannot be read or a section or key is unknown."""
    try:
        text = path.read_text()
        plan = tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; write one with otibayes run --init {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from None
    known = {"run": set(_RUN), "stars": set(_STARS)}
    known |= {name: {_key(option) for option in _options(command)} for name, command in _COMMANDS.items()}
    _check(path, "sections", plan, known)
    for section, values in plan.items():
        if not isinstance(values, Mapping):
            raise InputError(f"{path}: {section} is a value where a section is needed; write [{section}]")
        _check(path, f"keys of [{section}]", values, known[section])
    for section, key in (("run", "output"), ("stars", "catalogue")):
        if not isinstance(plan.get(section, {}).get(key), str):
            raise InputError(f'{path}: [{section}] needs {key} = "..."; otibayes run --init writes an example')
    return text, plan


def _check(path: Path, what: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(sorted(known))}"
            raise InputError(f"{path}: unknown {name!r} among the {what}; {hint}")


def _options(command: click.Command) -> list[click.Option]:
    """Options of a command that a run file may give."""
    options = [p for p in command.params if isinstance(p, click.Option)]
    return [option for option in options if _name(option) not in _GIVEN]


def _name(option: click.Option) -> str:
    return max(option.opts, key=len).removeprefix("--")


def _key(option: click.Option) -> str:
    return _name(option).replace("-", "_")


def _steps(path: Path, plan: Mapping[str, Any], output: Path) -> list[click.Context]:
    """The commands in their order, with their options read and checked."""
    from ..stars.stars import names_of

    given, stars = plan["run"], plan["stars"]
    catalogue = path.parent / stars["catalogue"]
    steps = []
    if "select" in plan:
        made = output / "stars.fits"
        options = ["--output", str(made), "--figure", str(output / "selection.png")]
        steps.append(("select", [str(catalogue), *options]))
        catalogue = made
    shared = ["--seed", str(given.get("seed", 0))]
    if elements := given.get("elements"):
        shared += ["--elements", ",".join(names_of(elements))]
    for name, theirs in stars.get("columns", {}).items():
        shared += ["--column", f"{name}={theirs}"]
    if "zero_point" in stars:
        shared += ["--zero-point", str(stars["zero_point"])]
    posterior = output / "posterior.nc"
    resume = ["--resume"] if posterior.exists() or posterior.with_name("posterior.nc.checkpoint").exists() else []
    steps.append(("classical", [str(catalogue), *shared, "--output", str(output / "classical.nc")]))
    steps.append(("sample", [str(catalogue), *shared, *resume, "--output", str(posterior)]))
    return [_COMMANDS[name].make_context(name, [*line, *_arguments(plan, name)]) for name, line in steps]


def _arguments(plan: Mapping[str, Any], section: str) -> list[str]:
    """A section's keys as options on a command line."""
    by_key = {_key(option): option for option in _options(_COMMANDS[section])}
    line: list[str] = []
    for key, value in plan.get(section, {}).items():
        option = by_key[key]
        if isinstance(value, bool):
            line += option.opts[:1] if value else option.secondary_opts[:1]
        elif option.multiple:
            line += [text for one in value for text in (option.opts[0], str(one))]
        else:
            line += [option.opts[0], ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return line
