"""Stars: synthetic ones, and those of a survey's catalogue."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from .options import check_output, check_table_output, element_names, file_option, key_values, seed_option, theta_from

__all__ = ["make_mock", "make_selection"]


def _interactive() -> bool:
    return sys.stderr.isatty()


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

    options |= {"abundance_errors": not no_abundance_errors, "processes": cores(), "progress": _interactive()}
    table = mock(number, seed, theta, element_names(elements), **options)
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")


def _list_recipes(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from ..stars.survey import book

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
    check_table_output(output)
    if figure is not None:
        check_output(figure)
    from ..stars import parse_override, read_stars, select, write_table
    from ..stars.selection import recipe as recipe_called

    override = parse_override(cuts)
    table, flow = select(catalogue, recipe, override, **joined)
    click.echo(str(flow))
    if len(table) == 0:
        raise InputError(f"{catalogue}: no star passes recipe {recipe}; see the cut flow and relax a cut with --cut")
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")
    stars = read_stars(output)
    for note in stars.provenance.notes:
        if not note.startswith("selected by") and note not in flow.warnings:
            click.echo(f"{output.name}: {note}")
    if figure is not None:
        from ..analysis.plot import plot_selection
        from ..base.store import write_whole

        used, original = recipe_called(recipe, override)[1], recipe_called(recipe)[1]
        polygons = {name for name, cut in used.items() if cut["kind"] == "in_polygon"}
        others = {name: change for name, change in override.items() if name not in polygons}
        others |= dict.fromkeys(polygons & set(original), "off")
        with tempfile.TemporaryDirectory() as folder:
            write_table(select(catalogue, recipe, others, **joined)[0], Path(folder) / "parent.fits")
            parent = read_stars(Path(folder) / "parent.fits")
        drawn = plot_selection(stars, used, parent)
        write_whole(figure, lambda part: drawn.savefig(part, dpi=150))
        click.echo(f"written: {figure}")
