"""Stars: synthetic ones, those of a survey's catalogue, and the actions of either."""

import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from ..base.settings import check_method, delta_setting
from .options import (
    all_or_nothing,
    check_output,
    check_table_output,
    delta_option,
    element_names,
    file_option,
    key_values,
    method_option,
    number_or_name,
    read_catalogue,
    seed_option,
    star_options,
    theta_from,
)

__all__ = ["actions", "make_mock", "make_selection", "parse_override"]


@click.command("mock")
@click.option("--stars", "number", type=int, required=True, metavar="N", help="Number of stars.")
@seed_option
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
@click.option("--gaia-errors", is_flag=True, help="Add errors like Gaia's and APOGEE's to astrometry and velocity.")
@click.option("--no-abundance-errors", is_flag=True, help="Leave out the errors, like APOGEE's, of the abundances.")
@click.option(
    "--scatter-scale", type=float, default=1.0, show_default=True, help="Factor on the abundances' intrinsic scatter."
)
@click.option("--skew", type=float, default=0.0, help="Stress: scatter with a lognormal tail of this shape, e.g. 0.5.")
@click.option("--conical", is_flag=True, help="Stress: mean abundances linear in z_max, a cone at J_z = 0.")
@click.option(
    "--abundance-selection",
    type=float,
    default=0.0,
    metavar="ODDS",
    help="Stress: log odds of being kept, per dex of the first element and kpc of |z|, e.g. 20.",
)
@click.option("--kick", type=float, default=0.0, metavar="KM/S", help="Stress: vz of all stars changed 500 Myr ago.")
@click.option("--growth", type=float, default=0.0, help="Stress: fraction of the disk's mass that came 500 Myr ago.")
@file_option("Star table to write: .fits, .ecsv, .csv or .parquet.")
def make_mock(
    number: int,
    seed: int,
    truth: str,
    elements: str | None,
    no_abundance_errors: bool,
    output: Path,
    **options: Any,
) -> None:
    """A synthetic catalogue of a known mass model, along orbits that gala integrates.

    Abundances are smooth functions of L_z, z_max^2 and (r_apo - r_peri)^2, measured along the orbit, with scatter that
    correlates between elements. The truth and every setting are in the table's metadata. Stresses break one assumption
    of the method each.

    Example: otibayes mock --stars 3000 --seed 1 --truth m_disk=1.1,h_z=0.3 --output stars.fits
    """
    theta = theta_from(key_values([t for t in truth.split(",") if t.strip()], "the truth"))
    check_table_output(output)
    from ..base.parallel import cores
    from ..stars import mock, write_table

    options |= {"abundance_errors": not no_abundance_errors, "processes": cores(), "progress": sys.stderr.isatty()}
    table = mock(number, seed, theta, element_names(elements), **options)
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")


def _list_recipes(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from ..stars.recipes import book

    for kind in ("recipe", "survey", "distance"):
        for name, entry in book()[kind].items():
            click.echo(f"{kind} {name}: {entry['about']}\n    source: {entry['source']}")
    context.exit()


@click.command("select")
@click.argument("catalogue", type=click.Path(path_type=Path), metavar="IN")
@click.option("--recipe", required=True, metavar="NAME", help="A named set of cuts; see --recipes.")
@click.option(
    "--recipes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="Show every recipe, survey and distance with its source, and exit.",
)
@click.option("--cut", "cuts", multiple=True, metavar="CUT.ARG=VALUE", help="Change a cut (snr.min=50), or CUT=off.")
@click.option(
    "--gaia", type=click.Path(path_type=Path), metavar="FILE", help="Table to join: Gaia's, a value-added one."
)
@click.option("--on", metavar="OURS[=THEIRS]", help="Columns to join it on. Default: the survey's own identifiers.")
@click.option("--distance", metavar="NAME", help="Distances in place of 1 / parallax, e.g. photogeo; see --recipes.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Chemical plane, x-y and z-vz to draw.")
@file_option("Star table to write: .fits, .ecsv, .csv or .parquet.")
def make_selection(
    catalogue: Path, recipe: str, cuts: tuple[str, ...], figure: Path | None, output: Path, **joined: Any
) -> None:
    """From a survey's catalogue to a star table, with the cut flow printed.

    "Lost by it alone" counts the stars that pass every other cut. What is odd about the stars is told at the end.

    Examples: otibayes select allStar-dr17-synspec_rev1.fits --recipe pw21-low-alpha --output stars.fits

    otibayes select galah_dr4_allstar_240705.fits --gaia galah_dr4_vac_wise_tmass_gaiadr3_240705.fits
    --recipe galah-dr4-low-alpha --cut snr.min=50 --cut logg=off --output stars.fits
    """
    inputs = [catalogue, joined["gaia"]]
    check_table_output(output, inputs)
    if figure is not None:
        check_output(figure, inputs)
        if figure.resolve() == output.resolve():
            raise InputError(f"--figure and --output are both {output}; give two names")
    from ..stars import read_stars, select, write_table

    override = parse_override(cuts)
    table, flow = select(catalogue, recipe, override, **joined)
    click.echo(str(flow))
    if len(table) == 0:
        raise InputError(f"{catalogue}: no star passes recipe {recipe}; see the cut flow and relax a cut with --cut")
    with tempfile.TemporaryDirectory() as folder:
        write_table(table, Path(folder) / output.name)
        stars = read_stars(Path(folder) / output.name)
    drawn = None if figure is None else _figure_of(catalogue, recipe, override, joined, stars)
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")
    for note in stars.provenance.notes:
        if not note.startswith("selected by") and note not in flow.warnings:
            click.echo(f"{output.name}: {note}")
    if figure is not None and drawn is not None:
        with all_or_nothing(figure.parent) as folder:
            drawn.savefig(folder / figure.name, dpi=150)


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
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise InputError(f"cannot read the cut '{text:.80}'; write CUT.ARGUMENT=VALUE or CUT=off") from None
    return override


def _figure_of(catalogue: Path, recipe: str, override: dict[str, Any], joined: dict[str, Any], stars: Any) -> Any:
    """Figure 1: the selected stars, before those that pass every cut but the polygons."""
    from ..analysis.plot import plot_selection
    from ..stars import read_stars, select, write_table
    from ..stars.recipes import recipe as recipe_called

    used, original = recipe_called(recipe, override)[1], recipe_called(recipe)[1]
    polygons = {name for name, cut in used.items() if cut["kind"] == "in_polygon"}
    others = {name: change for name, change in override.items() if name not in polygons}
    others |= dict.fromkeys(polygons & set(original), "off")
    with tempfile.TemporaryDirectory() as folder:
        write_table(select(catalogue, recipe, others, **joined)[0], Path(folder) / "parent.fits")
        parent = read_stars(Path(folder) / "parent.fits")
    return plot_selection(stars, used, parent)


@click.command()
@star_options
@method_option
@delta_option
@click.option("--m-disk", type=float, help="Disk mass over its fiducial value [-].")
@click.option("--h-z", type=float, help="Disk scale height (Miyamoto-Nagai b) [kpc].")
@click.option("--z-sun", type=float, help="Sun's height above the plane [pc].")
@click.option("--vz-sun", type=float, help="Sun's vertical velocity [km/s].")
@file_option("Table to write: .fits, .ecsv, .csv or .parquet.")
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
    [km/s/kpc], status (0 solved, 1 unbound, 2 not solved, 3 not finite; values are then NaN). What is not given is
    fiducial.

    Example: otibayes actions stars.fits --m-disk 1.1 --output actions.ecsv
    """
    parameters = theta_from({name: value for name, value in theta.items() if value is not None})
    check_method(method)
    delta_setting(number_or_name(delta))  # names are right, before anything is read
    check_table_output(output, [stars])
    import astropy.units as u
    import numpy as np
    from astropy.table import Table

    from ..dynamics import MILKY_WAY, action_angle, phase_space
    from ..stars import write_table

    if not bool(MILKY_WAY.allowed(parameters)):
        raise InputError("these parameters leave the halo too little mass; lower --m-disk or raise --h-z")
    read = read_catalogue(stars, columns, zero_point, None)
    solution = action_angle(phase_space(read, parameters), parameters, method, number_or_name(delta))
    table = Table({"row": np.asarray(read.row)})
    units = {"J": u.kpc * u.km / u.s, "L": u.kpc * u.km / u.s, "t": u.rad, "O": u.km / u.s / u.kpc}
    for name, values in solution._asdict().items():
        table[name] = np.asarray(values) if name == "status" else np.asarray(values) * units[name[0]]
    write_table(table, output)
    failed = int(np.sum(np.asarray(solution.status) != 0))
    click.echo(f"written: {output} ({len(table)} stars, {failed} of them without actions)")
