"""The command line, thin over the Python interface. Heavy imports are inside the commands, so that help is quick."""

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from .stars import Stars

__all__ = ["main"]


class _OneLine(click.Group):
    """A group whose errors are one line on stderr and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as help_wanted:
            click.echo(help_wanted.format_message())
            sys.exit(2)
        except (click.ClickException, InputError, OSError) as error:
            message = error.format_message() if isinstance(error, click.ClickException) else str(error)
            click.echo(f"Error: {' '.join(message.split())}", err=True)
            sys.exit(2)
        except click.Abort:
            click.echo("Error: interrupted; nothing was written", err=True)
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet


@click.group(cls=_OneLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="otibayes")
def main() -> None:
    """Orbital Torus Imaging: the Milky Way's mass from element abundances and actions, classical and Bayesian.

    Start with `otibayes demo`. With a catalogue of your own: `classical` and `sample`, then `compare`.

    Star tables (FITS, ECSV, CSV, Parquet) have ra dec [deg], parallax [mas] or distance [kpc], pmra pmdec [mas/yr],
    radial_velocity [km/s], and abundances such as FE_H, MG_FE with FE_H_ERR, MG_FE_ERR [dex]; other names are mapped
    with --column NAME=THEIRS.
    """


# ---- what several commands share

Decorator = Callable[[Any], Any]


def _together(*options: Decorator) -> Decorator:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_star_options = _together(
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
_elements = click.option(
    "--elements", metavar="A,B", help="Elements to use, e.g. MG_FE,FE_H; stars must have them all. Default: every one."
)
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same result.")
_delta = click.option(
    "--delta",
    default="orbit",
    show_default=True,
    metavar="orbit|local|KPC",
    help="Focal length of the Staeckel fudge: median along the orbit, at the star's place, or one number [kpc].",
)
_method = click.option(
    "--method",
    default="staeckel",
    show_default=True,
    metavar="staeckel|galpy|o2gf",
    help="Action finder. o2gf takes seconds a star.",
)


def _file_option(what: str) -> Decorator:
    return click.option("--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help=what)


def _pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"cannot read {what} {text!r}; write NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _read(path: Path, columns: Sequence[str], zero_point: float, elements: str | None) -> "Stars":
    from .stars import read_stars

    stars = read_stars(path, _pairs(columns, "the column"), _names(elements), zero_point)
    for note in stars.provenance.notes:
        click.echo(f"{path.name}: {note}")
    return stars


def _names(elements: str | None) -> list[str] | None:
    return None if elements is None else [e.strip() for e in elements.split(",") if e.strip()]


def _number_or_name(delta: str) -> float | str:
    try:
        return float(delta)
    except ValueError:
        return delta


def _theta(values: Mapping[str, str | float]) -> Any:
    """Parameters from NAME: VALUE, fiducial where not given."""
    from .parameters import TABLE, Parameters

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


def _can_hold(folder: Path) -> None:
    """Raise `InputError` where files cannot be made in a folder, or it cannot be made itself; leave no trace."""
    present = folder
    while not present.exists() and present != present.parent:
        present = present.parent
    try:
        with tempfile.TemporaryFile(dir=present):
            pass
    except OSError as error:
        raise InputError(f"the output folder {folder} cannot be written: {error.strerror}; choose another") from None


def _check_output(path: Path) -> None:
    """Before anything is computed: can this file be written?"""
    if path.is_dir():
        raise InputError(f"the output {path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise InputError(f"the output folder {path.parent} does not exist; make it first")
    _can_hold(path.parent)


def _check_table_output(path: Path) -> None:
    """The same for a star table, whose format follows from the suffix."""
    from astropy.table import Table

    from .stars import write_table

    _check_output(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".otibayes-") as folder:
        try:
            write_table(Table({"x": [0.0]}), Path(folder) / path.name)
        except InputError as error:
            raise InputError(str(error).replace(folder, str(path.parent))) from None


def _write_comparison(classical: "xr.DataTree", posterior: "xr.DataTree", folder: Path) -> None:
    """Table and figure into `folder`, each whole or not at all; the table and what to know of it on the terminal."""
    from .compare import compare, describe, summary
    from .plot import plot_comparison

    table = compare(classical, posterior)
    figure = plot_comparison(classical, posterior)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".otibayes-") as made:
        table.to_csv(Path(made) / "comparison.csv")
        figure.savefig(Path(made) / "comparison.png", dpi=160)
        for name in ("comparison.csv", "comparison.png"):
            os.replace(Path(made) / name, folder / name)
    click.echo("\n" + summary(table) + "\n")
    for line in describe(classical, posterior):
        click.echo(line)
    click.echo(f"written: {folder / 'comparison.csv'}, {folder / 'comparison.png'}")


# ---- commands


@main.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    metavar="DIR",
    help="Folder for classical.nc, posterior.nc, comparison.csv and comparison.png.",
)
def demo(output: Path) -> None:
    """Both paths on the stars shipped with otibayes, whose true mass model is known: a few minutes.

    The classical fit with 32 bootstraps, the posterior with 4 chains, the comparison of both with the truth; seed 0.
    """
    _can_hold(output)
    from .inference import fit_classical, sample
    from .results import save
    from .stars import embedded_stars

    stars = embedded_stars()
    truth = ", ".join(f"{name} {value:g}" for name, value in stars.provenance.truth)
    click.echo(f"{len(stars)} synthetic stars with {', '.join(stars.abundances)}; truth: {truth}")
    click.echo("classical: Fourier coefficients of abundance deviations in theta_z, 32 bootstraps")
    classical = fit_classical(stars, bootstraps=32, seed=0)
    click.echo("generative: abundances as a Gaussian process over actions, sampled with NUTS")
    posterior = sample(stars, seed=0)
    output.mkdir(parents=True, exist_ok=True)
    save(classical, output / "classical.nc")
    save(posterior, output / "posterior.nc")
    click.echo(f"written: {output / 'classical.nc'}, {output / 'posterior.nc'}")
    _write_comparison(classical, posterior, output)


def _interactive() -> bool:
    return sys.stderr.isatty()


@main.command("mock")
@click.option("--stars", "number", type=int, required=True, metavar="N", help="Number of stars.")
@_seed
@click.option(
    "--truth",
    default="",
    metavar="NAME=VALUE,...",
    help="Parameters that differ from the fiducial model: m_disk [-], h_z [kpc], z_sun [pc], vz_sun [km/s].",
)
@click.option("--elements", metavar="A,B", help="Elements to simulate. Default: every one with a label.")
@click.option("--d-max", type=float, default=2.0, show_default=True, metavar="KPC", help="Stars within this distance.")
@click.option(
    "--footprint",
    default="all-sky",
    show_default=True,
    metavar="all-sky|pencil-beams|magnitude-limit",
    help="Where on the sky stars are seen.",
)
@click.option("--gaia-errors", is_flag=True, help="Add errors to astrometry and radial velocity.")
@_file_option("Star table to write: .fits, .ecsv, .csv or .parquet.")
def make_mock(
    number: int,
    seed: int,
    truth: str,
    elements: str | None,
    d_max: float,
    footprint: str,
    gaia_errors: bool,
    output: Path,
) -> None:
    """A synthetic catalogue of a known mass model, along orbits that gala integrates.

    Example: otibayes mock --stars 3000 --seed 1 --truth m_disk=1.1,h_z=0.3 --output stars.fits
    """
    theta = _theta(_pairs([t for t in truth.split(",") if t.strip()], "the truth"))
    _check_table_output(output)
    from .stars import mock, write_table

    chosen: dict[str, Any] = {} if elements is None else {"elements": _names(elements)}
    table = mock(
        number,
        seed,
        theta,
        d_max=d_max,
        footprint=footprint,
        gaia_errors=gaia_errors,
        progress=_interactive(),
        **chosen,
    )
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")


@main.command("select")
@click.argument("catalogue", type=click.Path(path_type=Path), metavar="IN")
@click.option("--recipe", required=True, metavar="NAME", help="A named set of cuts; an unknown name lists them.")
@click.option("--cut", "cuts", multiple=True, metavar="CUT.ARG=VALUE", help="Change a cut (snr.min=50), or CUT=off.")
@click.option("--gaia", type=click.Path(path_type=Path), metavar="FILE", help="Table whose astrometry is used instead.")
@click.option("--on", default="source_id", show_default=True, metavar="OURS[=THEIRS]", help="Column to join --gaia on.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Chemical plane, x-y and z-vz to draw.")
@_file_option("Star table to write: .fits, .ecsv, .csv or .parquet.")
def make_selection(
    catalogue: Path, recipe: str, cuts: tuple[str, ...], gaia: Path | None, on: str, figure: Path | None, output: Path
) -> None:
    """From a survey's catalogue to a star table, with the cut flow printed.

    Example: otibayes select allStar-dr17.fits --recipe pw21-low-alpha --output stars.fits
    """
    _check_table_output(output)
    if figure is not None:
        _check_output(figure)
    from .stars import parse_override, read_stars, select, write_table
    from .stars.selection import recipe as recipe_called

    override = parse_override(cuts)
    table, flow = select(catalogue, recipe, override, gaia=gaia, on=on)
    click.echo(str(flow))
    if len(table) == 0:
        raise InputError(f"{catalogue}: no star passes recipe {recipe}; see the cut flow and relax a cut with --cut")
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")
    if figure is not None:
        from .plot import plot_selection

        plot_selection(read_stars(output), recipe_called(recipe, override)[1]).savefig(figure, dpi=150)
        click.echo(f"written: {figure}")


@main.command()
@_star_options
@_method
@_delta
@click.option("--m-disk", type=float, help="Disk mass over its fiducial value [-].")
@click.option("--h-z", type=float, help="Disk scale height (Miyamoto-Nagai b) [kpc].")
@click.option("--z-sun", type=float, help="Sun's height above the plane [pc].")
@click.option("--vz-sun", type=float, help="Sun's vertical velocity [km/s].")
@_file_option("Table to write: .fits, .ecsv, .csv or .parquet.")
def actions(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    method: str,
    delta: str,
    output: Path,
    **theta: float | None,
) -> None:
    """Actions, angles and frequencies of stars in one mass model, as a table.

    Columns: row (of the input), J_R L_z J_z [kpc km/s], theta_R theta_phi theta_z [rad], Omega_R Omega_phi Omega_z
    [km/s/kpc], status (0 solved, 1 unbound, 2 not solved; values are then NaN). What is not given is fiducial.

    Example: otibayes actions stars.fits --m-disk 1.1 --output actions.ecsv
    """
    parameters = _theta({name: value for name, value in theta.items() if value is not None})
    from .inference import classical_settings

    classical_settings(method, _number_or_name(delta))  # names are right, before anything is read
    _check_table_output(output)
    import astropy.units as u
    import numpy as np
    from astropy.table import Table

    from .dynamics import MILKY_WAY, action_angle, phase_space
    from .stars import write_table

    if not bool(MILKY_WAY.allowed(parameters)):
        raise InputError("these parameters leave the halo too little mass; lower --m-disk or raise --h-z")
    read = _read(stars, columns, zero_point, None)
    found = action_angle(phase_space(read, parameters), parameters, method, _number_or_name(delta))
    table = Table({"row": np.asarray(read.row)})
    units = {"J": u.kpc * u.km / u.s, "L": u.kpc * u.km / u.s, "t": u.rad, "O": u.km / u.s / u.kpc}
    for name, values in found._asdict().items():
        table[name] = np.asarray(values) if name == "status" else np.asarray(values) * units[name[0]]
    write_table(table, output)
    failed = int(np.sum(np.asarray(found.status) != 0))
    click.echo(f"written: {output} ({len(table)} stars, {failed} of them without actions)")


@main.command()
@_star_options
@_elements
@click.option("--bootstraps", type=int, default=128, show_default=True, metavar="N", help="Resamples of the stars.")
@_seed
@_method
@_delta
@click.option("--surface/--no-surface", default=True, show_default=True, help="Expand the statistic in theta first.")
@click.option("--neighbours", type=int, default=64, show_default=True, help="Neighbours in action space of each star.")
@_file_option("Result to write, netCDF (.nc).")
def classical(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    elements: str | None,
    bootstraps: int,
    seed: int,
    method: str,
    delta: str,
    surface: bool,
    neighbours: int,
    output: Path,
) -> None:
    """The classical fit (Price-Whelan et al. 2021): the mass model in which abundances do not vary with theta_z.

    Example: otibayes classical stars.fits --elements MG_FE,FE_H --bootstraps 128 --output classical.nc
    """
    from .classical.objective import Settings
    from .inference import classical_settings, fit_classical
    from .results import save

    settings = Settings(neighbours=neighbours)
    chosen: dict[str, Any] = {"method": method, "delta": _number_or_name(delta), "bootstraps": bootstraps}
    chosen |= {"surface": surface, "settings": settings}
    classical_settings(**chosen)
    _check_output(output)
    read = _read(stars, columns, zero_point, elements)
    save(fit_classical(read, _names(elements), seed=seed, **chosen), output)
    click.echo(f"written: {output}")


@main.command()
@_star_options
@_elements
@_seed
@click.option(
    "--model",
    default="joint_abundances",
    show_default=True,
    metavar="NAME_OR_PATH",
    help="Generative model: a name in otibayes.models, or your own .py file, which is run.",
)
@click.option(
    "--likelihood", default="hilbert", show_default=True, metavar="hilbert|dense", help="dense: to 2,000 stars."
)
@click.option("--surface/--no-surface", default=True, show_default=True, help="Expand the likelihood in theta first.")
@click.option("--chains", type=int, default=4, show_default=True)
@click.option("--warmup", type=int, default=200, show_default=True, help="Draws of each chain to adapt, not kept.")
@click.option("--draws", type=int, default=850, show_default=True, help="Draws of each chain to keep.")
@click.option(
    "--basis-size", type=int, help="Basis functions of 'hilbert'. Default: as the field's length scales ask for."
)
@_delta
@click.option("--resume", is_flag=True, help="Keep the output where it is already the result of these very inputs.")
@_file_option("Result to write, netCDF (.nc).")
def sample(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    elements: str | None,
    seed: int,
    delta: str,
    resume: bool,
    output: Path,
    **options: Any,
) -> None:
    """The posterior of the mass model: abundances as a Gaussian process over actions, sampled with NUTS.

    Example: otibayes sample stars.fits --elements MG_FE,FE_H --seed 0 --output posterior.nc
    """
    from . import inference, results

    options["delta"] = _number_or_name(delta)
    settings = inference.sample_settings(**options)
    _check_output(output)
    read = _read(stars, columns, zero_point, elements)
    if resume and output.exists():
        wanted = inference.identity(read, _names(elements), seed, settings)
        if results.load(output).attrs.get("identity") == wanted:
            click.echo(f"kept: {output} is the result of these stars, settings, seed and version")
            return
        click.echo(f"{output} is of other stars, settings, seed or version; starting anew")
    tree = inference.sample(read, _names(elements), seed=seed, **options)
    results.save(tree, output)
    a = tree.attrs
    click.echo(
        f"R-hat <= {a['max_r_hat']:.3f}, ESS >= {a['min_ess_bulk']:.0f}, {a['divergences']} divergences"
        + ("" if a["converged"] else ": NOT CONVERGED, sample longer")
    )
    click.echo(f"written: {output}")


@main.command("compare")
@click.argument("classical_file", type=click.Path(path_type=Path), metavar="CLASSICAL.nc")
@click.argument("posterior_file", type=click.Path(path_type=Path), metavar="POSTERIOR.nc")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder; made where absent."
)
def make_comparison(classical_file: Path, posterior_file: Path, output: Path) -> None:
    """Both answers side by side: comparison.csv and comparison.png, and the table printed.

    Example: otibayes compare classical.nc posterior.nc --output comparison
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"the output {output} is a file; give a folder")
    _can_hold(output)
    from .results import load

    _write_comparison(load(classical_file, "classical"), load(posterior_file, "posterior"), output)


if __name__ == "__main__":
    main()
