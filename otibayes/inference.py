"""Both paths from stars to a result: the classical fit, and the posterior of a generative model."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .classical.bootstrap import fit
from .classical.objective import ANGLES, MOMENTS, Settings
from .dynamics import METHODS, MILKY_WAY, MassModel, SampleActions, Status, action_angle, focal_length, phase_space
from .errors import InputError
from .generative import (
    FORGETFUL,
    LIKELIHOODS,
    Moments,
    NutsSettings,
    check_surface,
    draw_all,
    needs_of,
    open_checkpoint,
    prepare,
    sample_posterior,
)
from .modelfile import Model, named_model
from .nodes import Nodes
from .origins import digest, identity, origins
from .parallel import cores
from .posterior import convergence, posterior_groups
from .schema import as_tree, classical_groups, constant_data
from .stars import Stars

__all__ = [
    "ClassicalProblem",
    "classical_problem",
    "classical_settings",
    "fit_classical",
    "sample",
    "sample_origins",
    "sample_settings",
]

_NUTS = NutsSettings()
_PER_BIN = 100  # stars: with fewer, a bin of J_z may be empty in some mass model
_CHECKABLE = 50  # draws: with fewer the tail of the surface's importance weights cannot be fitted


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
    if method not in METHODS:
        raise InputError(f"unknown action method {method!r}; choose one of {', '.join(METHODS)}")
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
    given = {"method": method, "delta": _delta_setting(delta), "bootstraps": bootstraps, "surface": surface}
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
    name = identity(stars, elements, seed, chosen)
    # of what a pass over the stars depends on; `fit` adds the rest
    asked = {"method": method, "delta": chosen["delta"]}
    passes = digest(json.dumps(origins(stars, elements, seed, asked, model), sort_keys=True))
    problem = classical_problem(stars, elements, method, delta, model)
    if bins and len(problem.stars) >= _PER_BIN * bins:
        fiducial = model.Parameters()
        J_z = np.asarray(problem.actions(phase_space(problem.stars, fiducial), fiducial).J_z)
        edges = np.quantile(J_z, np.arange(1, bins) / bins)
        settings = settings._replace(bins=tuple(float(edge) for edge in edges))
    found = fit(
        problem.stars,
        problem.labels,
        problem.sigma,
        actions=problem.actions,
        bootstraps=bootstraps,
        seed=seed,
        settings=settings,
        surface=surface,
        polish=polish,
        model=model,
        nodes=Nodes(store=store, client=client, fingerprint=passes),
    )
    groups = classical_groups(found, problem.elements, model, settings.bins)
    groups["constant_data"] = constant_data(problem.stars, problem.elements, problem.delta)
    return as_tree("classical", groups, problem.stars, problem.elements, seed, chosen, model, name)


class ClassicalProblem(NamedTuple):
    """Stars made ready: N `stars` whose angles `actions(w, theta)` finds, `labels` and errors `sigma` (N, E)."""

    stars: Stars
    elements: tuple[str, ...]
    labels: np.ndarray
    sigma: np.ndarray | None
    delta: np.ndarray
    actions: SampleActions


def classical_problem(
    stars: Stars,
    elements: Sequence[str] | None = None,
    method: str = "staeckel",
    delta: Any = "orbit",
    model: MassModel = MILKY_WAY,
) -> ClassicalProblem:
    """What `fit_classical` and the figures start from; arguments and errors as there."""
    stars, elements, delta = _ready(stars, elements, delta, model)
    data = prepare(stars, elements, model, delta)  # the stars that the generative path would use, no others
    stars, delta = stars[data.kept], delta[data.kept]
    stars, delta = _with_angles(stars, delta, method, model)
    actions = SampleActions(delta, method, model)
    labels = np.stack([stars.abundances[e] for e in elements], 1)
    return ClassicalProblem(stars, elements, labels, _errors(stars, elements), delta, actions)


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
    return {"model": name, "likelihood": likelihood, "surface": surface, "delta": _delta_setting(delta)} | given


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
    asked = needs_of(function)
    mass_model, extra = mass_model or asked.mass_model, asked.extra
    stars, elements, delta = _ready(stars, elements, delta, mass_model, extra, every=False)
    data = prepare(stars, elements, mass_model, delta, extra, error_classes, asked.tails)
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
    stars = _without(stars, data.kept, "undefined actions within the prior")
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
    asked = needs_of(named_model(model)[1])
    return origins(stars, elements, seed, settings, mass_model or asked.mass_model, asked.extra)


# ---- stars and models, made ready


def _delta_setting(delta: Any) -> Any:
    if isinstance(delta, str):
        if delta not in ("local", "orbit"):
            raise InputError(f"delta must be a number or array [kpc], 'local' or 'orbit'; got {delta!r}")
        return delta
    values = np.asarray(delta, float)
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError("delta [kpc] must be positive and finite everywhere")
    return float(values) if values.ndim == 0 else f"array {hashlib.sha256(values.tobytes()).hexdigest()}"


def _ready(
    stars: Stars,
    elements: Sequence[str] | None,
    delta: Any,
    model: MassModel,
    extra: Sequence[str] = (),
    every: bool = True,
) -> tuple[Stars, tuple[str, ...], np.ndarray]:
    """Stars that have all elements (or, without `every`, any) and all extra columns, the elements, and Delta (N,) [kpc]
    in the fiducial model."""
    elements = tuple(stars.abundances) if elements is None else tuple(elements)
    if not elements:
        raise InputError("no elements: the catalogue has no abundances, or none was asked for")
    repeated = sorted({e for e in elements if elements.count(e) > 1})
    if repeated:
        raise InputError(f"element {repeated[0]} is given twice; name each once")
    for name in extra:
        if name not in stars.extra:
            raise InputError(f"the model needs {name} of every star; read it with read_stars(..., extra=['{name}'])")
        known = np.isfinite(stars.extra[name])
        if np.ndim(delta) == 1 and len(delta) == len(stars):
            delta = np.asarray(delta)[known]
        stars = _without(stars, known, f"{name} missing")
    before = len(stars)
    known = [np.isfinite(stars.abundances[e]) for e in elements if e in stars.abundances]
    complete = np.all(known, axis=0) if every else np.any(known, axis=0)
    stars = stars.with_elements(elements, every)
    theta = model.Parameters()
    if isinstance(delta, str):
        delta = focal_length(phase_space(stars, theta), theta, delta, model)
    elif np.ndim(delta) == 1 and np.shape(delta) == (before,):
        delta = np.asarray(delta, float)[complete]
    elif np.ndim(delta) != 0:
        raise InputError(f"delta has shape {np.shape(delta)}; give one number, or one for each of {before} stars")
    return stars, elements, np.array(np.broadcast_to(np.asarray(delta, float), (len(stars),)))


def _without(stars: Stars, kept: Any, reason: str) -> Stars:
    """The stars `kept` (a mask or indices), the others counted in the provenance."""
    chosen = stars[kept]
    lost = len(stars) - len(chosen)
    if not lost:
        return chosen
    return replace(chosen, provenance=replace(stars.provenance, dropped=(*stars.provenance.dropped, (reason, lost))))


def _with_angles(stars: Stars, delta: np.ndarray, method: str, model: MassModel) -> tuple[Stars, np.ndarray]:
    """Stars whose angles `method` finds in the fiducial model and at the ends of every parameter's range."""
    fiducial = model.Parameters()
    thetas = [fiducial]
    if method != "o2gf":  # seconds a star
        ends = [fiducial._replace(**{p.name: end}) for p in model.parameters for end in (p.low, p.high)]
        thetas += [theta for theta in ends if bool(model.allowed(theta))]
    solved = np.ones(len(stars), bool)
    for theta in thetas:
        status = action_angle(phase_space(stars, theta), theta, method, delta, model).status
        solved &= np.asarray(status) == Status.OK
    if not solved.any():
        raise InputError(f"method {method!r} finds actions and angles of none of {len(stars)} stars")
    return _without(stars, solved, f"undefined angles by {method}"), delta[solved]


def _errors(stars: Stars, elements: Sequence[str]) -> np.ndarray | None:
    """Abundance errors (N, E); ones, that is, equal weights, for an element that has none or some of zero."""
    columns = [np.asarray(stars.errors.get(e, np.zeros(len(stars))), float) for e in elements]
    usable = [bool((c > 0).all()) for c in columns]
    if not any(usable):
        return None
    return np.stack([c if good else np.ones_like(c) for c, good in zip(columns, usable, strict=True)], 1)
