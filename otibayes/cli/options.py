"""What several commands share: options, their values, and checks of what they are to write."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..base.errors import InputError

if TYPE_CHECKING:
    from ..stars import Stars

__all__ = [
    "Decorator",
    "check_folder",
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
    "--elements", metavar="A,B", help="Elements to use, e.g. MG_FE,FE_H; stars must have them all. Default: every one."
)
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same result.")
delta_option = click.option(
    "--delta",
    default="orbit",
    show_default=True,
    metavar="orbit|local|KPC",
    help="Focal length of the Staeckel fudge: median along the orbit, at the star's place, or one number [kpc].",
)
method_option = click.option(
    "--method",
    default="staeckel",
    show_default=True,
    metavar="staeckel|galpy|o2gf",
    help="Action finder. o2gf takes seconds a star.",
)


dask_option = click.option(
    "--dask", metavar="ADDRESS", help="Do the passes over the stars on the workers of this Dask scheduler."
)


def setting_options(settings: Any) -> Decorator:
    """An option for each field of a settings dataclass: its name, type, default, and the help in its metadata."""

    def option(field: Any) -> Decorator:
        name, default, help = field.name.replace("_", "-"), field.default, field.metadata["help"]
        if isinstance(default, bool):
            return click.option(f"--{name}/--no-{name}" if default else f"--{name}", default=default, help=help)
        metavar = field.metadata["metavar"]
        return click.option(
            f"--{name}", type=type(default), default=default, show_default=True, metavar=metavar, help=help
        )

    return _together(*map(option, fields(settings)))


@contextmanager
def dask_client(address: str | None) -> Iterator[Any]:
    """A client of the scheduler, closed at the end; None where no address is given."""
    if address is None:
        yield None
        return
    from ..base.nodes import connect

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


def check_output(path: Path) -> None:
    """Before anything is computed: can this file be written?"""
    if path.is_dir():
        raise InputError(f"the output {path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise InputError(f"the output folder {path.parent} does not exist; make it first")
    check_folder(path.parent)


def check_table_output(path: Path) -> None:
    """The same for a star table, whose format follows from the suffix."""
    from astropy.table import Table

    from ..stars import write_table

    check_output(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".otibayes-") as folder:
        try:
            write_table(Table({"x": [0.0]}), Path(folder) / path.name)
        except InputError as error:
            raise InputError(str(error).replace(folder, str(path.parent))) from None
