"""What is made of results: both paths side by side, the paper's figures and its Table 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..base.errors import InputError
from .options import (
    all_or_nothing,
    check_folder_output,
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

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["demo", "figures", "make_comparison", "table1"]

_exclude = click.option(
    "--exclude", metavar="A,B", help="Elements to leave out of a second joint constraint, as the paper does two."
)
_folder = click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder; made where absent."
)
_SUFFIXES = ("pdf", "svg", "png")


def write_comparison(
    classical: "xr.DataTree",
    posterior: "xr.DataTree",
    folder: Path,
    commands: Sequence[str],
    pictures: Sequence[Any] = (),
    run_file: str = "",
) -> None:
    """Table, figure and report into `folder`, all or none; the table and what to doubt on the terminal.

    `commands`, `pictures` and `run_file` as in `otibayes.analysis.report.report`.
    """
    from ..analysis.comparison import compare, describe, summary
    from ..analysis.plot import plot_comparison
    from ..analysis.report import report

    table = compare(classical, posterior)
    figure = plot_comparison(classical, posterior)
    page = report(classical, posterior, commands, pictures, run_file)
    lines = ["", summary(table), "", *describe(classical, posterior)]
    with all_or_nothing(folder) as part:
        table.to_csv(part / "comparison.csv")
        figure.savefig(part / "comparison.png", dpi=160)
        (part / "report.html").write_text(page, encoding="utf-8")
        click.echo("\n".join(lines))


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    metavar="DIR",
    help="Folder for classical.nc, posterior.nc, comparison.csv, comparison.png and report.html.",
)
def demo(output: Path) -> None:
    """Both paths on the stars shipped with otibayes, whose true mass model is known: a few minutes.

    Equation 8 and chi^2 with 64 bootstraps, the posterior with 4 chains, and their comparison with the truth; seed 0.
    """
    check_folder_output(output)
    from ..classical.fit import fit_classical
    from ..generative.sample import sample
    from ..results.files import save
    from ..stars import embedded_stars

    stars = embedded_stars()
    truth = ", ".join(f"{name} {value:g}" for name, value in stars.provenance.truth)
    click.echo(f"{len(stars)} synthetic stars with {', '.join(stars.abundances)}; truth: {truth}")
    click.echo("classical: equation 8 and chi^2 of Fourier coefficients in theta_z, 64 bootstraps")
    classical = fit_classical(stars, bootstraps=64, seed=0)
    click.echo("generative: abundances as a Gaussian process over actions, sampled with NUTS")
    posterior = sample(stars, seed=0)
    with all_or_nothing(output) as part:
        save(classical, part / "classical.nc")
        save(posterior, part / "posterior.nc")
    write_comparison(classical, posterior, output, ["otibayes demo"])


@click.command("compare")
@click.argument("classical_file", type=click.Path(path_type=Path), metavar="CLASSICAL.nc")
@click.argument("posterior_file", type=click.Path(path_type=Path), metavar="POSTERIOR.nc")
@_folder
def make_comparison(classical_file: Path, posterior_file: Path, output: Path) -> None:
    """Equation 8, chi^2 and the posterior side by side: a table, a figure, and report.html, and the table printed.

    Example: otibayes compare classical.nc posterior.nc --output comparison
    """
    check_folder_output(output)
    from ..results.files import load

    command = f"otibayes compare {classical_file} {posterior_file} --output {output}"
    write_comparison(load(classical_file, "classical"), load(posterior_file, "posterior"), output, [command])


@click.command(short_help="The paper's figures, of a star table or of a classical result.")
@star_options
@_folder
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
    if suffix not in _SUFFIXES:
        raise InputError(f"unknown format {suffix!r}; choose {', '.join(_SUFFIXES)}")
    check_folder_output(output)
    if stars.suffix == ".nc":
        _of_result(stars, element_names(exclude) or [], output, suffix)
        return
    from ..classical.settings import ClassicalSettings
    from ..stars.preparation import prepare_stars

    others = theta_from(key_values([t for t in theta.split(",") if t.strip()], "the parameters"))
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
    from ..base.store import Store

    with dask_client(dask) as client, all_or_nothing(output) as folder:
        prepared = prepare_stars(read, [one], settings.delta, method=method)
        drawn = {
            2: plot_mean_abundances(read, names, others),
            4: plot_orbits(read, one, masses, others),
            5: plot_deviations(prepared, one, masses, others, settings, seed),
            6: plot_coefficients(prepared, one, theta=others, settings=settings, seed=seed, store=Store(client=client)),
        }
        for number, figure in drawn.items():
            figure.savefig(folder / f"figure{number}.{suffix}", dpi=200)


def _of_result(path: Path, exclude: list[str], output: Path, suffix: str) -> None:
    from ..analysis.plot import plot_constraint, plot_projections
    from ..analysis.table_1 import table_1, table_1_text
    from ..results.files import load

    tree = load(path, "classical")
    table = table_1(tree, exclude)
    with all_or_nothing(output) as folder:
        plot_constraint(tree, exclude=exclude).savefig(folder / f"figure7.{suffix}", dpi=200)
        plot_projections(tree, exclude=exclude).savefig(folder / f"figure8.{suffix}", dpi=200)
        _flat(table).to_csv(folder / "table1.csv")
    click.echo("\n" + table_1_text(table))


@click.command(short_help="The paper's Table 1: joint constraints of a classical result.")
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
        check_output(output, [classical_file])
    from ..analysis.table_1 import table_1, table_1_text
    from ..results.files import load

    table = table_1(load(classical_file, "classical"), element_names(exclude) or [])
    click.echo(table_1_text(table))
    if output is not None:
        with all_or_nothing(output.parent) as folder:
            _flat(table).to_csv(folder / output.name)


def _flat(table: "pd.DataFrame") -> "pd.DataFrame":
    """With one line of column names, as CSV has."""
    flat = table.copy()
    flat.columns = [" ".join(part for part in column if part) for column in table.columns]
    return flat
