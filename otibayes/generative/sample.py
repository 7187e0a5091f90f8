"""The generative path from stars to a result: `sample`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..base.parallel import cores
from ..base.progress import Stages
from ..base.store import Store
from ..dynamics import MassModel
from ..results.provenance import digest, open_checkpoint, origins
from ..results.schema import as_tree, constant_data
from ..stars import Stars
from ..stars.preparation import prepare_stars
from .data import likelihood_data
from .model import named_model, requirements_of
from .posterior import sample_posterior
from .prediction import predictions
from .result_groups import posterior_groups, timings_group
from .settings import SampleSettings

__all__ = ["sample", "sample_origins"]


def sample(
    stars: Stars,
    elements: Sequence[str] | None = None,
    seed: int = 0,
    settings: SampleSettings | None = None,
    *,
    mass_model: MassModel | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    client: Any = None,
    **options: Any,
) -> xr.DataTree:
    """The posterior of a generative model, by NUTS.

    `elements` (default: all); a star that lacks some serves with those that it has (docs/stars.md). `settings`,
    or the fields of `SampleSettings` by name: `sample(stars, draws=500)`. A model may bring a `mass_model` of its own,
    which is used where none is given. Where chains have not converged, or the surface or the basis is not good enough,
    the run goes on by itself, two more times at most. docs/generative.md says when a surface is trusted.

    `checkpoint`, a folder, keeps all that is done; with `resume` a run that was killed goes on from there, to the same
    draws. Remove it once the result is saved. Ctrl-C returns the draws so far, marked incomplete (`complete` 0), and
    raises `KeyboardInterrupt` where there are none yet. `client`, a `distributed.Client`, does the surface's passes
    over the stars on a cluster, to the same numbers.

    Groups: see docs/results.md. Raises `InputError` for input that cannot be used, and for a checkpoint of
    other inputs.
    """
    chosen, stage = SampleSettings.given(settings, options), Stages()
    inputs = sample_origins(stars, elements, seed, chosen, mass_model)
    name = digest(json.dumps(inputs, sort_keys=True))
    model = named_model(chosen.model)[1]
    required = requirements_of(model)
    required = required._replace(mass_model=mass_model or required.mass_model)
    with stage("preparation"):
        prepared = prepare_stars(stars, elements, chosen.delta, required.mass_model, extra=required.extra, every=False)
        data = likelihood_data(prepared, chosen.error_classes, required)
    folder = None if checkpoint is None else open_checkpoint(Path(checkpoint), inputs, resume)
    passes = Store(None if folder is None else folder / "passes", name, client, cores())
    found = sample_posterior(data, model, chosen, seed, Store(folder), passes, stage)
    with stage("predictions"):
        drawn = predictions(found.unconstrained, found.data, found.draws, found.statistic, seed)
        rng = np.random.default_rng([seed, 0x6B657074])
        shown = np.sort(rng.permutation(len(data))[: chosen.keep_stars])
        groups = posterior_groups(found, drawn, shown)
    others = np.isin(np.arange(len(prepared)), data.kept, invert=True)
    used = prepared.stars.without({"elements that too few stars have together": others})
    groups["constant_data"] = constant_data(used, prepared.elements, np.asarray(data.delta), required.extra, shown)
    groups["timings"] = timings_group(stage.seconds)
    tree = as_tree("posterior", groups, used, prepared.elements, seed, chosen.record(), required.mass_model, name)
    tree.attrs |= found.convergence | {"inputs": json.dumps(inputs), "complete": int(found.complete)}
    tree.attrs["converged"] *= tree.attrs["complete"]
    return tree


def sample_origins(
    stars: Stars,
    elements: Sequence[str] | None,
    seed: int,
    settings: SampleSettings,
    mass_model: MassModel | None = None,
) -> dict[str, Any]:
    """What a posterior follows from: `origins`."""
    required = requirements_of(named_model(settings.model)[1])
    return origins(stars, elements, seed, settings.record(), mass_model or required.mass_model, required.extra)
