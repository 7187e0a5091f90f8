"""The classical path."""

import shutil
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from ..classical.settings import ClassicalSettings
from .options import (
    check_folder,
    check_output,
    dask_client,
    dask_option,
    element_names,
    elements_option,
    file_option,
    number_or_name,
    read_catalogue,
    seed_option,
    setting_options,
    star_options,
    stars_used,
    temporary_folder,
)

__all__ = ["classical"]


@click.command(short_help="The classical fit: equation 8 and chi^2, with bootstraps.")
@star_options
@elements_option
@click.option("--exclude", metavar="A,B", help="Elements to leave out.")
@seed_option
@setting_options(ClassicalSettings)
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
    seed: int,
    store: Path | None,
    dask: str | None,
    output: Path,
    **chosen: Any,
) -> None:
    """The classical fit (Price-Whelan et al. 2021): the mass model in which abundances do not vary with theta_z.

    Equation 8 of the paper, whose errors are across its valley only, and chi^2 in bins of J_z, which has no valley. A
    run that was stopped goes on where it was when it is started again. Any label can be an element, for example an
    age: --column AGE=age_gyr --elements AGE.

    Example: otibayes classical stars.fits --elements MG_FE,FE_H --bootstraps 128 --output classical.nc
    """
    from ..classical.fit import fit_classical
    from ..results.files import save

    settings = ClassicalSettings(**chosen | {"delta": number_or_name(chosen["delta"])})
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
        tree = fit_classical(read, names, seed=seed, settings=settings, store=store or temporary, client=client)
        save(tree, output)
    if store is None:
        shutil.rmtree(temporary, ignore_errors=True)
    if "surface" in tree.children:
        surface = tree["surface"].dataset
        click.echo(
            f"surface: plain less surface coefficients at {surface.sizes['pair']} random optima, rms by element:"
            f" {float(surface.rms.min()):.2g} to {float(surface.rms.max()):.2g} bootstrap sd;"
            f" {surface.attrs['passes']} passes over the stars"
        )
    click.echo(stars_used(tree.attrs))
    click.echo(f"written: {output}")
