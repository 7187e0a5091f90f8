"""The generative path."""

import json
import shutil
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from .options import (
    check_output,
    dask_client,
    dask_option,
    delta_option,
    element_names,
    elements_option,
    file_option,
    number_or_name,
    read_catalogue,
    seed_option,
    star_options,
    stars_used,
    temporary_folder,
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
@click.option(
    "--error-classes",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="0: abundance errors are part of the scatter. N: add each star's own, in N classes of like errors.",
)
@delta_option
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where a run of these very inputs was killed.",
)
@dask_option
@file_option("Result to write, netCDF (.nc).")
def sample(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    elements: str | None,
    seed: int,
    delta: str,
    resume: bool,
    dask: str | None,
    output: Path,
    **options: Any,
) -> None:
    """The posterior of the mass model: abundances as a Gaussian process over actions, sampled with NUTS.

    What is done so far is kept beside the output, in FILE.checkpoint, until the end. A run that was killed or
    interrupted goes on from there with --resume, to the very draws of an uninterrupted one. Ctrl-C writes the draws so
    far, if any, marked incomplete.

    Example: otibayes sample stars.fits --elements MG_FE,FE_H --seed 0 --output posterior.nc
    """
    from ..generative import model_files as modelfile
    from ..generative import sample as sampling
    from ..results import files as results

    options["delta"] = number_or_name(delta)
    settings = sampling.sample_settings(**options)
    check_output(output, [stars, options["model"]], ".checkpoint")
    read = read_catalogue(stars, columns, zero_point, elements, modelfile.extra_columns(options["model"]))
    names = element_names(elements)
    if resume and output.exists():
        wanted = sampling.sample_origins(read, names, seed, options["model"], settings)
        if _is_done(output, wanted):
            click.echo(f"kept: {output} is the complete result of these stars, settings, seed and version")
            return
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    go_on = f"kept: {checkpoint}; the same command with --resume goes on from there"
    try:
        with temporary_folder(checkpoint), dask_client(dask) as client:
            tree = sampling.sample(
                read, names, seed=seed, checkpoint=checkpoint, resume=resume, client=client, **options
            )
    except KeyboardInterrupt:
        kept = go_on if checkpoint.exists() else "nothing was written"
        click.echo(f"Error: interrupted before there were draws; {kept}", err=True)
        click.get_current_context().exit(130)
    results.save(tree, output)
    a = tree.attrs
    click.echo(
        f"R-hat <= {a['max_r_hat']:.3f}, ESS >= {a['min_ess_bulk']:.0f}, {a['divergences']} divergences"
        + ("" if a["converged"] else ": NOT CONVERGED, sample longer")
    )
    click.echo(stars_used(a))
    click.echo(f"written: {output}")
    if a["complete"]:
        shutil.rmtree(checkpoint)
        return
    done = tree["posterior"].sizes["draw"]
    click.echo(f"Error: interrupted: {done} of {options['draws']} draws of each chain are in it; {go_on}", err=True)
    click.get_current_context().exit(130)


def _is_done(output: Path, inputs: dict[str, Any]) -> bool:
    """Whether the output is the complete result of these inputs; `InputError` where it is of others."""
    from ..generative import differences
    from ..results.files import load

    before = load(output, "posterior").attrs
    if different := differences(json.loads(before.get("inputs", "{}")), inputs):
        raise InputError(
            f"{output} is of another run: {'; '.join(different)}; give another --output, or leave --resume out to"
            " replace it"
        )
    return bool(before["complete"])
