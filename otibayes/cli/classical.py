"""The classical path."""

from pathlib import Path
from typing import Any

import click

from .options import (
    check_output,
    delta_option,
    element_names,
    elements_option,
    file_option,
    method_option,
    number_or_name,
    read_catalogue,
    seed_option,
    star_options,
)

__all__ = ["classical"]


@click.command()
@star_options
@elements_option
@click.option("--bootstraps", type=int, default=128, show_default=True, metavar="N", help="Resamples of the stars.")
@seed_option
@method_option
@delta_option
@click.option("--surface/--no-surface", default=True, show_default=True, help="Expand the statistic in theta first.")
@click.option("--neighbours", type=int, default=64, show_default=True, help="Neighbours in action space of each star.")
@file_option("Result to write, netCDF (.nc).")
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
    from ..classical.objective import Settings
    from ..inference import classical_settings, fit_classical
    from ..results import save

    settings = Settings(neighbours=neighbours)
    chosen: dict[str, Any] = {"method": method, "delta": number_or_name(delta), "bootstraps": bootstraps}
    chosen |= {"surface": surface, "settings": settings}
    classical_settings(**chosen)
    check_output(output)
    read = read_catalogue(stars, columns, zero_point, elements)
    save(fit_classical(read, element_names(elements), seed=seed, **chosen), output)
    click.echo(f"written: {output}")
