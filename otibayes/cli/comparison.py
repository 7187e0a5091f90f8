"""Both paths and their three answers side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..base.errors import InputError
from ..base.files import write_whole
from .options import check_folder

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["demo", "make_comparison"]


def write_comparison(classical: "xr.DataTree", posterior: "xr.DataTree", folder: Path) -> None:
    """Table and figure into `folder`, each whole or not at all; the table and what to know of it on the terminal."""
    from ..analysis.comparison import compare, describe, summary
    from ..analysis.plot import plot_comparison

    table = compare(classical, posterior)
    figure = plot_comparison(classical, posterior)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "comparison.csv", table.to_csv)
    write_whole(folder / "comparison.png", lambda part: figure.savefig(part, dpi=160))
    click.echo("\n" + summary(table) + "\n")
    for line in describe(classical, posterior):
        click.echo(line)
    click.echo(f"written: {folder / 'comparison.csv'}, {folder / 'comparison.png'}")


@click.command()
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

    Equation 8 and chi^2 with 64 bootstraps, the posterior with 4 chains, and their comparison with the truth; seed 0.
    """
    check_folder(output)
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
    output.mkdir(parents=True, exist_ok=True)
    save(classical, output / "classical.nc")
    save(posterior, output / "posterior.nc")
    click.echo(f"written: {output / 'classical.nc'}, {output / 'posterior.nc'}")
    write_comparison(classical, posterior, output)


@click.command("compare")
@click.argument("classical_file", type=click.Path(path_type=Path), metavar="CLASSICAL.nc")
@click.argument("posterior_file", type=click.Path(path_type=Path), metavar="POSTERIOR.nc")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder; made where absent."
)
def make_comparison(classical_file: Path, posterior_file: Path, output: Path) -> None:
    """Equation 8, chi^2 and the posterior side by side: comparison.csv and comparison.png, and the table printed.

    Example: otibayes compare classical.nc posterior.nc --output comparison
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"the output {output} is a file; give a folder")
    check_folder(output)
    from ..results.files import load

    write_comparison(load(classical_file, "classical"), load(posterior_file, "posterior"), output)
