"""The generative path from stars to a result: `sample`."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..base.errors import InputError
from ..base.nodes import Nodes
from ..base.parallel import cores
from ..dynamics import MassModel
from ..results.provenance import digest, origins
from ..results.schema import as_tree, constant_data
from ..stars import Stars
from ..stars.preparation import delta_setting, prepare_stars
from .checkpoint import FORGETFUL, open_checkpoint
from .cosine_sums import Moments
from .data import prepare
from .field import draw_all
from .groups import convergence, posterior_groups
from .likelihood import LIKELIHOODS
from .model_files import Model, check_model, named_model
from .nuts import Settings as NutsSettings
from .posterior import check_surface, sample_posterior
from .requirements import requirements_of

__all__ = ["sample", "sample_origins", "sample_settings"]

_NUTS = NutsSettings()
_CHECKABLE = 50  # draws: with fewer the tail of the surface's importance weights cannot be fitted


def sample_settings(
    model: str | os.PathLike[str] | Model = "joint_abundances",
    likelihood: str = "hilbert",
    surface: bool = True,
    chains: int = _NUTS.chains,
    warmup: int = _NUTS.warmup,
    draws: int = _NUTS.draws,
    basis_size: int | None = None,
    delta: Any = "orbit",
    error_classes: int = 0,
) -> dict[str, Any]:
    """What a posterior depends on, besides stars, elements and seed, ready for JSON; `InputError` where unknown.

    A user's model is known by its file's digest.
    """
    if likelihood not in LIKELIHOODS:
        raise InputError(f"unknown likelihood {likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")
    check_surface(likelihood, surface)
    least = {"chains": 1, "warmup": 1, "draws": 4, "basis_size": 1, "error_classes": 0}
    given = {"chains": chains, "warmup": warmup, "draws": draws, "basis_size": basis_size}
    given["error_classes"] = error_classes
    for name, value in given.items():
        if value is not None and value < least[name]:
            raise InputError(f"{name}={value} is too small; at least {least[name]} is needed")
    if surface and chains * draws < _CHECKABLE:
        raise InputError(
            f"{chains} x {draws} draws are too few to check the surface; {_CHECKABLE} or more are needed, or"
            " surface=False (--no-surface)"
        )
    name, _ = named_model(model)
    return {"model": name, "likelihood": likelihood, "surface": surface, "delta": delta_setting(delta)} | given


def sample(
    stars: Stars,
    elements: Sequence[str] | None = None,
    seed: int = 0,
    model: str | os.PathLike[str] | Model = "joint_abundances",
    likelihood: str = "hilbert",
    surface: bool = True,
    chains: int = _NUTS.chains,
    warmup: int = _NUTS.warmup,
    draws: int = _NUTS.draws,
    basis_size: int | None = None,
    delta: Any = "orbit",
    error_classes: int = 0,
    mass_model: MassModel | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    client: Any = None,
) -> xr.DataTree:
    """The posterior of a generative `model`, by NUTS.

    `elements` (default: all); a star that lacks some serves with those that it has. `model` is the name of one in
    `otibayes.models`, a function of a `Likelihood`, or the path of a file that defines one (it is run). `likelihood`
    "hilbert" (a basis of `basis_size` cosine products; None: as many as the field's length scales ask for) or "dense"
    (at most 2,000 stars, without surface). `surface` expands the likelihood in theta before sampling. `delta` as in
    `fit_classical`.
    `error_classes` 0 leaves abundance errors to the scatter; a positive number adds each star's own to it, in as many
    classes of like errors. A model may bring a `mass_model` of its own, which is used where none is given.

    `checkpoint`, a folder, is where all that is done is kept; with `resume` a run that was killed goes on from there,
    to the same draws. Remove it once the result is saved. Ctrl-C returns the draws so far, marked incomplete
    (`complete` 0), and raises `KeyboardInterrupt` where there are none yet. `client`, a `distributed.Client`, does the
    surface's passes over the stars on a cluster, to the same numbers.

    Groups: see docs/results.md. Raises `InputError` for input that cannot be used, and for a checkpoint of
    other inputs.
    """
    chosen = sample_settings(model, likelihood, surface, chains, warmup, draws, basis_size, delta, error_classes)
    told = sample_origins(stars, elements, seed, model, chosen, mass_model)
    name = digest(json.dumps(told, sort_keys=True))
    function = named_model(model)[1]
    asked = requirements_of(function)
    mass_model, extra = mass_model or asked.mass_model, asked.extra
    prepared = prepare_stars(stars, elements, delta, mass_model, extra=extra, every=False)
    data = prepare(prepared, extra, error_classes, asked.tails)
    check_model(function, data)
    kept = FORGETFUL if checkpoint is None else open_checkpoint(checkpoint, told, resume)
    store = None if kept.folder is None else kept.folder / "passes"
    passes = Nodes("stars", "pass", store, name, client, cores(), Moments(*[0] * len(Moments._fields)))
    found = sample_posterior(
        data,
        function,
        kind=likelihood,
        surface=surface,
        basis_size=basis_size,
        settings=NutsSettings(chains, warmup, draws, seed),
        checkpoint=kept,
        map=passes,
    )
    groups = posterior_groups(found, draw_all(function, found.data, found.draws, found.statistic, seed))
    stars, elements = prepared.stars[data.kept], prepared.elements
    groups["constant_data"] = constant_data(stars, elements, np.asarray(data.delta), extra)
    tree = as_tree("posterior", groups, stars, elements, seed, chosen, mass_model, name)
    tree.attrs |= convergence(groups["posterior"], groups["sample_stats"])
    tree.attrs |= {"inputs": json.dumps(told), "complete": int(found.complete)}
    tree.attrs["converged"] *= tree.attrs["complete"]
    return tree


def sample_origins(
    stars: Stars,
    elements: Sequence[str] | None,
    seed: int,
    model: str | os.PathLike[str] | Model,
    settings: Mapping[str, Any],
    mass_model: MassModel | None = None,
) -> dict[str, Any]:
    """What a posterior follows from (`origins`), its `settings` those of `sample_settings`."""
    asked = requirements_of(named_model(model)[1])
    return origins(stars, elements, seed, settings, mass_model or asked.mass_model, asked.extra)
