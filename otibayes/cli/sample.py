"""The generative path."""

from pathlib import Path
from typing import Any

import click

from .options import (
    check_output,
    delta_option,
    element_names,
    elements_option,
    file_option,
    number_or_name,
    read_catalogue,
    seed_option,
    star_options,
)

__all__ = ["sample"]


@click.command()
@star_options
@elements_option
@seed_option
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
@delta_option
@click.option("--resume", is_flag=True, help="Keep the output where it is already the result of these very inputs.")
@file_option("Result to write, netCDF (.nc).")
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
    from .. import inference, results

    options["delta"] = number_or_name(delta)
    settings = inference.sample_settings(**options)
    check_output(output)
    read = read_catalogue(stars, columns, zero_point, elements)
    if resume and output.exists():
        wanted = inference.identity(read, element_names(elements), seed, settings)
        if results.load(output).attrs.get("identity") == wanted:
            click.echo(f"kept: {output} is the result of these stars, settings, seed and version")
            return
        click.echo(f"{output} is of other stars, settings, seed or version; starting anew")
    tree = inference.sample(read, element_names(elements), seed=seed, **options)
    results.save(tree, output)
    a = tree.attrs
    click.echo(
        f"R-hat <= {a['max_r_hat']:.3f}, ESS >= {a['min_ess_bulk']:.0f}, {a['divergences']} divergences"
        + ("" if a["converged"] else ": NOT CONVERGED, sample longer")
    )
    click.echo(f"written: {output}")
