"""The generative path."""

import json
import shutil
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from ..generative.settings import SampleSettings
from .options import (
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

__all__ = ["sample"]


@click.command()
@star_options
@elements_option
@seed_option
@setting_options(SampleSettings)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where a run of the same inputs was killed.",
)
@dask_option
@file_option("Result to write, netCDF (.nc).")
def sample(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    elements: str | None,
    seed: int,
    resume: bool,
    dask: str | None,
    output: Path,
    **options: Any,
) -> None:
    """The posterior of the mass model: abundances as a Gaussian process over actions, sampled with NUTS.

    What is done so far is kept beside the output, in FILE.checkpoint, until the end. A run that was killed or
    interrupted goes on from there with --resume, to the same draws as an uninterrupted one. Ctrl-C writes the draws so
    far, if any, marked incomplete.

    Example: otibayes sample stars.fits --elements MG_FE,FE_H --seed 0 --output posterior.nc
    """
    from ..generative import sample as sampling
    from ..generative.model import extra_columns
    from ..results import files as results

    settings = SampleSettings(**options | {"delta": number_or_name(options["delta"])})
    settings.record()  # an unknown model is refused before anything is read
    check_output(output, [stars, options["model"]], ".checkpoint")
    read = read_catalogue(stars, columns, zero_point, elements, extra_columns(settings.model))
    names = element_names(elements)
    if resume and output.exists() and _is_done(output, sampling.sample_origins(read, names, seed, settings)):
        click.echo(f"kept: {output} is the complete result of these stars, settings, seed and version")
        return
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    go_on = f"kept: {checkpoint}; the same command with --resume goes on from there"
    try:
        with temporary_folder(checkpoint), dask_client(dask) as client:
            tree = sampling.sample(read, names, seed, settings, checkpoint=checkpoint, resume=resume, client=client)
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
    click.echo(f"Error: interrupted: {done} of {settings.draws} draws of each chain are in it; {go_on}", err=True)
    click.get_current_context().exit(130)


def _is_done(output: Path, inputs: dict[str, Any]) -> bool:
    """Whether the output is the complete result of these inputs; `InputError` where it is of others."""
    from ..results.files import load
    from ..results.provenance import differences

    before = load(output, "posterior").attrs
    if different := differences(json.loads(before.get("inputs", "{}")), inputs):
        raise InputError(
            f"{output} is of another run: {'; '.join(different)}; give another --output, or leave --resume out to"
            " replace it"
        )
    return bool(before["complete"])
