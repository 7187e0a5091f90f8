"""What several commands share: options, their values, and checks of what they are to write."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..base.errors import InputError
from ..base.settings import DELTA, METHOD

if TYPE_CHECKING:
    from ..stars import Stars

__all__ = [
    "Decorator",
    "all_or_nothing",
    "check_folder",
    "check_folder_output",
    "check_output",
    "check_table_output",
    "dask_client",
    "dask_option",
    "delta_option",
    "element_names",
    "elements_option",
    "file_option",
    "key_values",
    "method_option",
    "number_or_name",
    "read_catalogue",
    "seed_option",
    "setting_options",
    "star_options",
    "stars_used",
    "temporary_folder",
    "theta_from",
]


Decorator = Callable[[Any], Any]


def _together(*options: Decorator) -> Decorator:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


star_options = _together(
    click.argument("stars", type=click.Path(path_type=Path)),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="NAME=THEIRS",
        help="Our column NAME is called THEIRS in the table; repeatable. E.g. --column radial_velocity=rv.",
    ),
    click.option(
        "--zero-point",
        type=float,
        default=0.0,
        show_default=True,
        metavar="MAS",
        help="Parallax zero point [mas], Gaia's sign: distance = 1 / (parallax - zero point), e.g. -0.05.",
    ),
)
elements_option = click.option(
    "--elements", metavar="A,B", help="Elements to use, e.g. MG_FE,FE_H. Default: every one."
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Same seed, same result."
)
delta_option = click.option("--delta", show_default=True, **DELTA)
method_option = click.option("--method", show_default=True, **METHOD)


def setting_options(settings: type) -> Decorator:
    """An option for each field of a settings dataclass, with the default and the help that the field has."""

    def option(f: Field) -> Decorator:
        name, about = f"--{f.name.replace('_', '-')}", f.metadata
        if isinstance(f.default, bool):
            return click.option(f"{name}/--no-{name[2:]}", default=f.default, show_default=True, help=about["help"])
        return click.option(
            name,
            type=about.get("type") or type(f.default),
            default=f.default,
            show_default=f.default is not None,
            metavar=about["metavar"],
            help=about["help"],
        )

    return _together(*map(option, fields(settings)))


dask_option = click.option(
    "--dask", metavar="ADDRESS", help="Do the passes over the stars on the workers of this Dask scheduler."
)


@contextmanager
def dask_client(address: str | None) -> Iterator[Any]:
    """A client of the scheduler, closed at the end; None where no address is given."""
    if address is None:
        yield None
        return
    from ..base.cluster import connect

    with connect(address) as client:
        yield client


def file_option(what: str) -> Decorator:
    return click.option("--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help=what)


def key_values(texts: Sequence[str], what: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"cannot read {what} {text!r}; write NAME=VALUE")
        if name.strip() in pairs:
            raise InputError(f"{name.strip()} is given twice; give one value")
        pairs[name.strip()] = value.strip()
    return pairs


def read_catalogue(
    path: Path, columns: Sequence[str], zero_point: float, elements: str | None, extra: Sequence[str] = ()
) -> "Stars":
    from ..stars import read_stars

    stars = read_stars(path, key_values(columns, "the column"), element_names(elements), zero_point, extra)
    for note in stars.provenance.notes:
        click.echo(f"{path.name}: {note}")
    return stars


def stars_used(attributes: Any) -> str:
    """How many stars a result is of, and why the others are not in it."""
    dropped = json.loads(attributes["dropped"])
    reasons = ", ".join(f"{count} with {reason}" for reason, count in dropped.items())
    total = attributes["stars"] + sum(dropped.values())
    return f"stars: {attributes['stars']} of {total} used" + (f"; {reasons}" if reasons else "")


def element_names(elements: str | None) -> list[str] | None:
    return None if elements is None else [e.strip() for e in elements.split(",") if e.strip()]


def number_or_name(delta: str) -> float | str:
    try:
        return float(delta)
    except ValueError:
        return delta


def theta_from(values: Mapping[str, str | float]) -> Any:
    """Parameters from NAME: VALUE, fiducial where not given."""
    from ..base.parameters import TABLE, Parameters

    bounds = {p.name: p for p in TABLE}
    numbers = {}
    for name, value in values.items():
        if name not in bounds:
            raise InputError(f"unknown parameter {name!r}; choose from {', '.join(bounds)}")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise InputError(f"{name}={value!r} is not a number") from None
        p = bounds[name]
        if not p.low <= numbers[name] <= p.high:
            unit = f" {p.unit}" if p.unit else ""
            raise InputError(f"{name}={value} is outside its bounds, {p.low:g} to {p.high:g}{unit}")
    return Parameters(**numbers)


def check_folder(folder: Path) -> None:
    """Raise `InputError` where files cannot be made in a folder, or it cannot be made itself; leave no trace."""
    present = folder
    while not present.exists() and present != present.parent:
        present = present.parent
    try:
        with tempfile.TemporaryFile(dir=present):
            pass
    except OSError as error:
        raise InputError(f"the output folder {folder} cannot be written: {error.strerror}; choose another") from None


def check_folder_output(folder: Path) -> None:
    """Raise `InputError` where this is no folder for files, or cannot be made."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output {folder} is a file; give a folder")
    check_folder(folder)


def check_output(path: Path, inputs: Iterable[str | Path | None] = (), temporary: str = "") -> None:
    """Before anything is read: can this file be written, without harm to the `inputs`?

    `temporary` is what a command adds to the name for a folder of its own, which it removes at the end.
    """
    if path.is_dir():
        raise InputError(f"the output {path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise InputError(f"the output folder {path.parent} does not exist; make it first")
    for source in (Path(name) for name in inputs if name is not None):
        if path.exists() and source.exists() and path.samefile(source):
            raise InputError(f"the output {path} is the input {source}, which would be lost; give another name")
        if temporary and path.with_name(path.name + temporary).resolve() in source.resolve().parents:
            raise InputError(f"the input {source} lies in the folder {path.name}{temporary}, which is removed; move it")
    check_folder(path.parent)


def check_table_output(path: Path, inputs: Iterable[str | Path | None] = ()) -> None:
    """The same for a star table, whose format follows from the suffix."""
    from astropy.table import Table

    from ..stars import write_table

    check_output(path, inputs)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".otibayes-") as folder:
        try:
            write_table(Table({"x": [0.0]}), Path(folder) / path.name)
        except InputError as error:
            raise InputError(str(error).replace(folder, str(path.parent))) from None


@contextmanager
def all_or_nothing(output: Path) -> Iterator[Path]:
    """A folder to write files into, all of which are moved to `output` (made where absent) at the end, or none."""
    parent = next(folder for folder in (output, *output.absolute().parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(dir=parent, prefix=".otibayes-") as folder:
        yield Path(folder)
        files = sorted(Path(folder).iterdir())
        output.mkdir(parents=True, exist_ok=True)
        for file in files:
            os.replace(file, output / file.name)
    click.echo(f"written: {', '.join(str(output / file.name) for file in files)}")


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder for work under way, removed after an error unless it was there before.

    What was finished stays where the same command could go on with it: after an interruption, a failure that nobody
    foresaw, or a disk that is full.
    """
    before = folder.exists()
    try:
        yield folder
    except InputError as error:
        if not before and not isinstance(error.__cause__, OSError):
            shutil.rmtree(folder, ignore_errors=True)
        raise
