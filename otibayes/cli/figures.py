"""The paper's figures and its Table 1, of any catalogue or classical result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from ..base.files import write_whole
from .options import (
    check_folder,
    check_output,
    dask_client,
    dask_option,
    delta_option,
    element_names,
    elements_option,
    key_values,
    method_option,
    number_or_name,
    read_catalogue,
    seed_option,
    star_options,
    theta_from,
)

__all__ = ["figures", "table1"]

_exclude = click.option(
    "--exclude", metavar="A,B", help="Elements to leave out of a second joint constraint, as the paper does two."
)
_SUFFIXES = (".png", ".pdf", ".svg")


@click.command()
@star_options
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder; made where absent."
)
@elements_option
@click.option("--element", metavar="A", help="The one element of figures 4 to 6. Default: the first.")
@click.option(
    "--m-disk", default="0.4,1,1.6", show_default=True, metavar="A,B,C", help="Disk masses of figures 4 and 5 [-]."
)
@click.option(
    "--theta",
    default="",
    metavar="NAME=VALUE,...",
    help="Parameters that differ from the fiducial model: h_z [kpc], ...",
)
@click.option("--bootstraps", type=int, default=128, show_default=True, metavar="N", help="Resamples, figures 5 and 6.")
@seed_option
@method_option
@delta_option
@_exclude
@dask_option
@click.option("--format", "suffix", default="pdf", show_default=True, metavar="pdf|svg|png", help="Vector or pixels.")
def figures(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    output: Path,
    elements: str | None,
    element: str | None,
    m_disk: str,
    theta: str,
    bootstraps: int,
    seed: int,
    method: str,
    delta: str,
    exclude: str | None,
    dask: str | None,
    suffix: str,
) -> None:
    """The figures of Price-Whelan et al. (2021), of a star table or of a classical result (.nc).

    Of a star table: 2 (mean abundances in z-vz cells), 4 (orbits of fixed actions over them), 5 (deviations against
    theta_z), 6 (coefficients against m_disk, with the mass at which a2 vanishes). Of a result of `otibayes classical`:
    7 and 8 (ellipses of every element, and joint), and table1.csv.

    Examples: otibayes figures stars.fits --element O_FE --output figures

      otibayes figures classical.nc --exclude MG_FE,SI_FE --output figures
    """
    if f".{suffix}" not in _SUFFIXES:
        raise InputError(f"unknown format {suffix!r}; choose pdf, svg or png")
    if output.exists() and not output.is_dir():
        raise InputError(f"the output {output} is a file; give a folder")
    check_folder(output)
    if stars.suffix == ".nc":
        _of_result(stars, element_names(exclude) or [], output, suffix)
        return
    from ..classical.settings import ClassicalSettings
    from ..stars.preparation import prepare_stars

    there = theta_from(key_values([t for t in theta.split(",") if t.strip()], "the parameters"))
    masses = [theta_from({"m_disk": text}).m_disk for text in m_disk.split(",") if text.strip()]
    if not masses:
        raise InputError("--m-disk is empty; give disk masses such as 0.4,1,1.6")
    settings = ClassicalSettings(bootstraps=bootstraps, method=method, delta=number_or_name(delta))
    read = read_catalogue(stars, columns, zero_point, elements)
    names = element_names(elements) or list(read.abundances)
    if not names:
        raise InputError(f"{stars}: has no abundances; name a column with --column MG_FE=THEIRS")
    one = names[0] if element is None else element
    from ..analysis.plot import plot_coefficients, plot_deviations, plot_mean_abundances, plot_orbits

    _write(plot_mean_abundances(read, names, there), output / f"figure2.{suffix}")
    _write(plot_orbits(read, one, masses, there), output / f"figure4.{suffix}")
    from ..base.nodes import Nodes

    prepared = prepare_stars(read, [one], settings.delta, method=method)
    _write(plot_deviations(prepared, one, masses, there, settings, seed), output / f"figure5.{suffix}")
    with dask_client(dask) as client:
        drawn = plot_coefficients(prepared, one, theta=there, settings=settings, seed=seed, nodes=Nodes(client=client))
    _write(drawn, output / f"figure6.{suffix}")


def _of_result(path: Path, exclude: list[str], output: Path, suffix: str) -> None:
    from ..analysis.plot import plot_constraint, plot_projections
    from ..analysis.table_1 import table_1, table_1_text
    from ..results.files import load

    tree = load(path, "classical")
    table = table_1(tree, exclude)
    _write(plot_constraint(tree, exclude=exclude), output / f"figure7.{suffix}")
    _write(plot_projections(tree, exclude=exclude), output / f"figure8.{suffix}")
    _write_csv(table, output / "table1.csv")
    click.echo("\n" + table_1_text(table))


@click.command()
@click.argument("classical_file", type=click.Path(path_type=Path), metavar="CLASSICAL.nc")
@_exclude
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Also write it: .csv.")
def table1(classical_file: Path, exclude: str | None, output: Path | None) -> None:
    """Table 1 of Price-Whelan et al. (2021): the joint constraint of all elements, and without some.

    As the paper's product of Gaussians; with the cross-covariance of the elements, which share their stars; and of
    chi^2 in bins of J_z, which is ours. M_disk in Msun, M_disk/M_halo within 8.1 kpc.

    Example: otibayes table1 classical.nc --exclude MG_FE,SI_FE
    """
    if output is not None:
        check_output(output)
    from ..analysis.table_1 import table_1, table_1_text
    from ..results.files import load

    table = table_1(load(classical_file, "classical"), element_names(exclude) or [])
    click.echo(table_1_text(table))
    if output is not None:
        _write_csv(table, output)


def _write(figure: Any, path: Path) -> None:
    _written(path, lambda made: figure.savefig(made, dpi=200))


def _write_csv(table: Any, path: Path) -> None:
    flat = table.copy()
    flat.columns = [" ".join(part for part in column if part) for column in table.columns]
    _written(path, flat.to_csv)


def _written(path: Path, write: Callable[[Path], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)
    click.echo(f"written: {path}")
