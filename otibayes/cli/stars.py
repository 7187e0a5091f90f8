"""Stars: synthetic ones, and those of a survey's catalogue."""

import sys
from pathlib import Path
from typing import Any

import click

from ..errors import InputError
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
@click.option("--gaia-errors", is_flag=True, help="Add errors to astrometry and radial velocity.")
@file_option("Star table to write: .fits, .ecsv, .csv or .parquet.")
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
    theta = theta_from(key_values([t for t in truth.split(",") if t.strip()], "the truth"))
    check_table_output(output)
    from ..parallel import cores
    from ..stars import mock, write_table

    chosen: dict[str, Any] = {} if elements is None else {"elements": element_names(elements)}
    table = mock(
        number,
        seed,
        theta,
        d_max=d_max,
        footprint=footprint,
        gaia_errors=gaia_errors,
        processes=cores(),
        progress=_interactive(),
        **chosen,
    )
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")


@click.command("select")
@click.argument("catalogue", type=click.Path(path_type=Path), metavar="IN")
@click.option("--recipe", required=True, metavar="NAME", help="A named set of cuts; an unknown name lists them.")
@click.option("--cut", "cuts", multiple=True, metavar="CUT.ARG=VALUE", help="Change a cut (snr.min=50), or CUT=off.")
@click.option("--gaia", type=click.Path(path_type=Path), metavar="FILE", help="Table whose astrometry is used instead.")
@click.option("--on", default="source_id", show_default=True, metavar="OURS[=THEIRS]", help="Column to join --gaia on.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Chemical plane, x-y and z-vz to draw.")
@file_option("Star table to write: .fits, .ecsv, .csv or .parquet.")
def make_selection(
    catalogue: Path, recipe: str, cuts: tuple[str, ...], gaia: Path | None, on: str, figure: Path | None, output: Path
) -> None:
    """From a survey's catalogue to a star table, with the cut flow printed.

    Example: otibayes select allStar-dr17.fits --recipe pw21-low-alpha --output stars.fits
    """
    check_table_output(output)
    if figure is not None:
        check_output(figure)
    from ..stars import parse_override, read_stars, select, write_table
    from ..stars.selection import recipe as recipe_called

    override = parse_override(cuts)
    table, flow = select(catalogue, recipe, override, gaia=gaia, on=on)
    click.echo(str(flow))
    if len(table) == 0:
        raise InputError(f"{catalogue}: no star passes recipe {recipe}; see the cut flow and relax a cut with --cut")
    write_table(table, output)
    click.echo(f"written: {output} ({len(table)} stars)")
    if figure is not None:
        from ..plot import plot_selection

        plot_selection(read_stars(output), recipe_called(recipe, override)[1]).savefig(figure, dpi=150)
        click.echo(f"written: {figure}")
