"""The classical path."""

import shutil
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from .options import (
    check_folder,
    check_output,
    dask_client,
    dask_option,
    delta_option,
    element_names,
    elements_option,
    file_option,
    method_option,
    number_or_name,
    read_catalogue,
    seed_option,
    star_options,
    stars_used,
    temporary_folder,
)

__all__ = ["classical"]


@click.command()
@star_options
@elements_option
@click.option("--exclude", metavar="A,B", help="Elements to leave out.")
@click.option("--bootstraps", type=int, default=128, show_default=True, metavar="N", help="Resamples of the stars.")
@seed_option
@method_option
@delta_option
@click.option("--surface/--no-surface", default=True, show_default=True, help="Expand the statistic in theta first.")
@click.option(
    "--polish/--no-polish",
    default=None,
    help="Correct optima by plain coefficients, half as long again. Default: where a check asks for it.",
)
@click.option(
    "--bins", type=int, default=3, show_default=True, help="Bins of J_z for chi^2, our own objective; 0: none."
)
@click.option("--neighbours", type=int, default=64, show_default=True, help="Neighbours in action space of each star.")
@click.option("--naive-mean", is_flag=True, help="Their plain mean, not the weighted one of appendix A.")
@click.option(
    "--own-copies", is_flag=True, help="A star's copies in a resample are its neighbours, as in the original."
)
@click.option("--every", is_flag=True, help="c0 and b2 in the objective too.")
@click.option(
    "--detrended",
    is_flag=True,
    help="Abundances less their gross form in the actions, as chi^2 has them: ours, removes the local mean's bias.",
)
@click.option(
    "--angle", default="theta_z", show_default=True, metavar="theta_z|theta_R", help="theta_R: radial coefficients."
)
@click.option(
    "--moment", default="mean", show_default=True, metavar="mean|scatter", help="Of the abundance at an action."
)
@click.option(
    "--nodes",
    "store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for finished passes over the stars. Default: FILE.nodes, removed when FILE is written.",
)
@dask_option
@file_option("Result to write, netCDF (.nc).")
def classical(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    elements: str | None,
    exclude: str | None,
    bootstraps: int,
    seed: int,
    method: str,
    delta: str,
    surface: bool,
    polish: bool | None,
    bins: int,
    neighbours: int,
    naive_mean: bool,
    own_copies: bool,
    every: bool,
    detrended: bool,
    angle: str,
    moment: str,
    store: Path | None,
    dask: str | None,
    output: Path,
) -> None:
    """The classical fit (Price-Whelan et al. 2021): the mass model in which abundances do not vary with theta_z.

    A run that was stopped goes on where it was when it is started again. Any label will do as an element, for
    example an age: --column AGE=age_gyr --elements AGE.

    Example: otibayes classical stars.fits --elements MG_FE,FE_H --bootstraps 128 --output classical.nc
    """
    from ..classical.fit import classical_settings, fit_classical
    from ..classical.objective import Settings
    from ..results.files import save

    settings = Settings(neighbours, own_copies, not naive_mean, angle, moment, every, detrended)
    chosen: dict[str, Any] = {"method": method, "delta": number_or_name(delta), "bootstraps": bootstraps}
    chosen |= {"surface": surface, "polish": polish, "bins": bins, "settings": settings}
    classical_settings(**chosen)
    check_output(output, [stars], ".nodes")
    temporary = output.with_name(f"{output.name}.nodes")
    check_folder(temporary if store is None else store)
    read = read_catalogue(stars, columns, zero_point, elements)
    names = element_names(elements) or list(read.abundances)
    left_out = element_names(exclude) or []
    unknown = [e for e in left_out if e not in names]
    if unknown:
        raise InputError(f"--exclude {unknown[0]}: not among the elements, {', '.join(names)}")
    names = [e for e in names if e not in left_out]
    with temporary_folder(temporary), dask_client(dask) as client:
        tree = fit_classical(read, names, seed=seed, store=store or temporary, client=client, **chosen)
        save(tree, output)
    if store is None:
        shutil.rmtree(temporary, ignore_errors=True)
    if "surface" in tree.children:
        told = tree["surface"].attrs
        rough = float(tree["surface"].roughness.max())
        before = f" ({told['surface_worst']:.2g} before they were polished)" if told["polished"] else ""
        click.echo(
            f"surface: off by {told['worst']:.2g} bootstrap sd at the worst of {tree['surface'].sizes['pair']} random"
            f" optima{before}, where the coefficients themselves are rough by {rough:.2g} rms;"
            f" {told['nodes']} passes over the stars"
        )
    click.echo(stars_used(tree.attrs))
    click.echo(f"written: {output}")
