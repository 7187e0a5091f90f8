"""The classical path from stars to a result: `fit_classical`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..base.errors import InputError
from ..base.store import Store
from ..dynamics import MILKY_WAY, MassModel, check_method, phase_space
from ..results.provenance import digest, origins
from ..results.schema import as_tree, constant_data
from ..stars import Stars
from ..stars.preparation import PreparedStars, delta_setting, prepare_stars
from .bootstrap import fit
from .groups import classical_groups
from .objective import ANGLES, MOMENTS, Settings

__all__ = ["classical_settings", "errors_of", "fit_classical"]

_PER_BIN = 100  # stars: with fewer, a bin of J_z may be empty in some mass model


def classical_settings(
    method: str = "staeckel",
    delta: Any = "orbit",
    bootstraps: int = 128,
    surface: bool = True,
    polish: bool | None = None,
    bins: int = 3,
    settings: Settings = Settings(),  # noqa: B008
) -> dict[str, Any]:
    """What a classical result depends on, besides stars, elements and seed; `InputError` where it is unknown."""
    check_method(method)
    if bootstraps < 2:
        raise InputError(f"errors need at least 2 bootstraps, got {bootstraps}")
    if bins < 0:
        raise InputError(f"bins={bins}: give how many bins of J_z chi^2 is to have, or 0 for none")
    for name, known in (("angle", ANGLES), ("moment", MOMENTS)):
        if getattr(settings, name) not in known:
            raise InputError(f"unknown {name} {getattr(settings, name)!r}; choose one of {', '.join(known)}")
    if settings.neighbours < 4:
        raise InputError(f"neighbours={settings.neighbours}: a weighted local mean needs 4 or more")
    if polish and not surface:
        raise InputError("polish corrects a surface; without one there is nothing to polish")
    given = {"method": method, "delta": delta_setting(delta), "bootstraps": bootstraps, "surface": surface}
    return given | {"polish": polish} | settings._asdict() | {"bins": bins}


def fit_classical(
    stars: Stars,
    elements: Sequence[str] | None = None,
    bootstraps: int = 128,
    seed: int = 0,
    method: str = "staeckel",
    delta: Any = "orbit",
    model: MassModel = MILKY_WAY,
    surface: bool = True,
    polish: bool | None = None,
    bins: int = 3,
    settings: Settings = Settings(),  # noqa: B008
    store: str | os.PathLike[str] | None = None,
    client: Any = None,
) -> xr.DataTree:
    """The classical fit (PW21, section 6): Fourier coefficients in theta_z of abundance deviations, made to vanish.

    `elements` (default: all) that every star used must have; `bootstraps` resamples; `method` of `action_angle`;
    `delta`, number, (N,) [kpc], "local" or "orbit", held at its value in the fiducial `model`. `surface=False` goes
    over the stars at every step of every optimisation; `polish` corrects every optimum by the plain coefficients (None:
    where the surface's own check asks for it). `bins` of J_z, with equally many stars in the fiducial model, are those
    of chi^2, an objective of ours beside the paper's (0, or fewer than 100 stars in each: none); `settings` varies the
    statistic. `store`, a folder, keeps every finished pass over the stars, so that a killed run goes on where it
    stopped; `client`, a `distributed.Client`, does them on a cluster.

    Groups: `posterior` (chain = 1, draw = bootstrap, element), `sample_stats`, `optimum` on all stars, `valley`,
    `chi2`, `joint` (absent with too few bootstraps), `surface`, `constant_data`. Raises `InputError` for input that
    cannot be used.
    """
    chosen = classical_settings(method, delta, bootstraps, surface, polish, bins, settings)
    name = digest(json.dumps(origins(stars, elements, seed, chosen, model), sort_keys=True))
    # of what a pass over the stars depends on; `fit` adds the rest
    asked = {"method": method, "delta": chosen["delta"]}
    passes = digest(json.dumps(origins(stars, elements, seed, asked, model), sort_keys=True))
    problem = prepare_stars(stars, elements, delta, model, method)
    if bins and len(problem) >= _PER_BIN * bins:
        fiducial = model.Parameters()
        J_z = np.asarray(problem.actions(phase_space(problem.stars, fiducial), fiducial).J_z)
        edges = np.quantile(J_z, np.arange(1, bins) / bins)
        settings = settings._replace(bins=tuple(float(edge) for edge in edges))
    found = fit(
        problem.stars,
        problem.labels,
        errors_of(problem),
        actions=problem.actions,
        bootstraps=bootstraps,
        seed=seed,
        settings=settings,
        surface=surface,
        polish=polish,
        model=model,
        nodes=Store(None if store is None else Path(store), passes, client),
    )
    groups = classical_groups(found, problem.elements, model, settings.bins)
    groups["constant_data"] = constant_data(problem.stars, problem.elements, problem.delta)
    return as_tree("classical", groups, problem.stars, problem.elements, seed, chosen, model, name)


def errors_of(prepared: PreparedStars) -> np.ndarray | None:
    """Abundance errors (N, E); ones, that is, equal weights, for an element that lacks some or has some of zero."""
    usable = (prepared.errors > 0).all(0)
    return np.where(usable, prepared.errors, 1.0) if usable.any() else None
