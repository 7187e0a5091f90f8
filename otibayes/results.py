"""Both paths from stars to a result: what a result holds (the one schema), how it is saved and loaded.

A result is an `xarray.DataTree` whose `posterior` group holds the parameters and the derived quantities over (chain,
draw): draws of the posterior, or bootstrap replicates of the classical fit, which have an `element` dimension too.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .classical.bootstrap import ClassicalFit, fit
from .classical.joint import joint_gls, joint_product
from .classical.objective import Settings
from .dynamics import METHODS, MILKY_WAY, MassModel, Status, action_angle, derived_quantities, focal_length, phase_space
from .errors import InputError
from .generative import LIKELIHOODS, Data, Likelihood, NutsSettings, Posterior, prepare, sample_posterior
from .parallel import Map, serial
from .stars import Stars

__all__ = [
    "DERIVED",
    "classical_settings",
    "fit_classical",
    "identity",
    "load",
    "load_model",
    "sample",
    "sample_settings",
    "save",
]

# TeX symbol and unit of the derived quantities, as `otibayes.derived_quantities` names them
DERIVED = {
    "M_disk": (r"M_{\rm disk}", "Msun"),
    "M_disk_over_M_halo": (r"M_{\rm disk}/M_{\rm halo}", ""),
    "Sigma_1p1": (r"\Sigma_{1.1}", "Msun/pc^2"),
    "rho_DM": (r"\rho_{\rm DM}", "Msun/pc^3"),
    "K_z_1p1": (r"|K_z|_{1.1}", "km^2/s^2/kpc"),
}
GOOD_R_HAT, GOOD_ESS = 1.01, 400
_NUTS = NutsSettings()
_SCHEMA = 1
_KINDS = {"classical": "classical fit", "posterior": "posterior"}
_COEFFICIENTS = ("c0", "a1", "b1", "a2", "b2")
_PACKAGES = ("otibayes", "jax", "jaxlib", "numpyro", "tinygp", "numpy", "scipy", "arviz", "xarray", "astropy", "galpy")
_CHECKABLE = 50  # draws: with fewer the tail of the surface's importance weights cannot be fitted

Model = Callable[[Likelihood], None]


# ---- the two paths


def classical_settings(
    method: str = "staeckel",
    delta: Any = "orbit",
    bootstraps: int = 128,
    surface: bool = True,
    settings: Settings = Settings(),  # noqa: B008
) -> dict[str, Any]:
    """What a classical result depends on, besides stars, elements and seed; `InputError` where it is unknown."""
    if method not in METHODS:
        raise InputError(f"unknown action method {method!r}; choose one of {', '.join(METHODS)}")
    if bootstraps < 2:
        raise InputError(f"errors need at least 2 bootstraps, got {bootstraps}")
    known = {"method": method, "delta": _delta_setting(delta), "bootstraps": bootstraps, "surface": surface}
    return known | settings._asdict()


def fit_classical(
    stars: Stars,
    elements: Sequence[str] | None = None,
    bootstraps: int = 128,
    seed: int = 0,
    method: str = "staeckel",
    delta: Any = "orbit",
    model: MassModel = MILKY_WAY,
    surface: bool = True,
    settings: Settings = Settings(),  # noqa: B008
    map: Map = serial,
) -> xr.DataTree:
    """The classical fit (PW21, section 6): Fourier coefficients in theta_z of abundance deviations, made to vanish.

    `elements` (default: all) that every star used must have; `bootstraps` resamples; `method` of `action_angle`;
    `delta`, number, (N,) [kpc], "local" or "orbit", held at its value in the fiducial `model`. `surface=False` goes
    over the stars at every step of every optimisation; `settings` varies the statistic; `map(function, points)` does
    passes over the stars elsewhere.

    Groups: `posterior` (chain = 1, draw = bootstrap, element), `sample_stats`, `optimum` on all stars, `valley`,
    `joint` (absent with too few bootstraps), `surface`, `constant_data`. Raises `InputError` for input that cannot be
    used.
    """
    chosen = classical_settings(method, delta, bootstraps, surface, settings)
    name = identity(stars, elements, seed, chosen)
    stars, elements, delta = _ready(stars, elements, delta, model)
    data = prepare(stars, elements, model, delta)  # the stars that the generative path would use, no others
    stars, delta = stars[data.kept], delta[data.kept]
    stars, delta = _with_angles(stars, delta, method, model)
    labels = np.stack([stars.abundances[e] for e in elements], 1)
    actions = functools.partial(_checked_actions, method=method, delta=delta, model=model)
    found = fit(
        stars,
        labels,
        _errors(stars, elements),
        actions=actions,
        bootstraps=bootstraps,
        seed=seed,
        settings=settings,
        surface=surface,
        model=model,
        map=map,
    )
    groups = _classical_groups(found, elements, model)
    groups["constant_data"] = _constant_data(stars, elements, delta)
    return _tree("classical", groups, stars, elements, seed, chosen, model, name)


def sample_settings(
    model: str | os.PathLike[str] | Model = "joint_abundances",
    likelihood: str = "hilbert",
    surface: bool = True,
    chains: int = _NUTS.chains,
    warmup: int = _NUTS.warmup,
    draws: int = _NUTS.draws,
    basis_size: int | None = None,
    delta: Any = "orbit",
) -> dict[str, Any]:
    """What a posterior depends on, besides stars, elements and seed, ready for JSON; `InputError` where unknown.

    A user's model is known by its file's digest.
    """
    if likelihood not in LIKELIHOODS:
        raise InputError(f"unknown likelihood {likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")
    if surface and likelihood == "dense":
        raise InputError(
            "the response surface carries the 'hilbert' statistic; with likelihood 'dense' give surface=False"
            " (--no-surface)"
        )
    least = {"chains": 1, "warmup": 1, "draws": 4, "basis_size": 1}
    given = {"chains": chains, "warmup": warmup, "draws": draws, "basis_size": basis_size}
    for name, value in given.items():
        if value is not None and value < least[name]:
            raise InputError(f"{name}={value} is too small; at least {least[name]} is needed")
    if surface and chains * draws < _CHECKABLE:
        raise InputError(
            f"{chains} x {draws} draws are too few to check the surface; {_CHECKABLE} or more are needed, or"
            " surface=False (--no-surface)"
        )
    name, _ = _model(model)
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
    mass_model: MassModel = MILKY_WAY,
) -> xr.DataTree:
    """The posterior of a generative `model`, by NUTS.

    `elements` (default: all) that every star used must have. `model` is the name of one in `otibayes.models`, a
    function of a `Likelihood`, or the path of a file that defines one (it is run). `likelihood` "hilbert" (a basis of
    `basis_size` cosine products; None: as many as the field's length scales ask for) or "dense" (at most 2,000 stars,
    without surface). `surface` expands the likelihood in theta before sampling. `delta` as in `fit_classical`.

    Groups: `posterior` (theta, derived quantities, hyperparameters; `amplitude` and `scatter` [dex] and residual
    `correlation` by element), `sample_stats`, `mode`, `surface`, `constant_data`. Raises `InputError` for input that
    cannot be used.
    """
    chosen = sample_settings(model, likelihood, surface, chains, warmup, draws, basis_size, delta)
    _, function = _model(model)
    name = identity(stars, elements, seed, chosen)
    stars, elements, delta = _ready(stars, elements, delta, mass_model)
    data = prepare(stars, elements, mass_model, delta)
    found = sample_posterior(
        data,
        function,
        kind=likelihood,
        surface=surface,
        basis_size=basis_size,
        settings=NutsSettings(chains, warmup, draws, seed),
    )
    groups = _posterior_groups(found, data)
    stars = _without(stars, data.kept, "undefined actions within the prior")
    groups["constant_data"] = _constant_data(stars, elements, np.asarray(data.delta))
    tree = _tree("posterior", groups, stars, elements, seed, chosen, mass_model, name)
    tree.attrs |= _convergence(groups["posterior"], groups["sample_stats"])
    return tree


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
    stars: Stars, elements: Sequence[str] | None, delta: Any, model: MassModel
) -> tuple[Stars, tuple[str, ...], np.ndarray]:
    """Stars that have all elements, the elements, and Delta (N,) [kpc] in the fiducial model."""
    elements = tuple(stars.abundances) if elements is None else tuple(elements)
    if not elements:
        raise InputError("no elements: the catalogue has no abundances, or none was asked for")
    repeated = sorted({e for e in elements if elements.count(e) > 1})
    if repeated:
        raise InputError(f"element {repeated[0]} is given twice; name each once")
    before = len(stars)
    complete = np.all([np.isfinite(stars.abundances[e]) for e in elements if e in stars.abundances], axis=0)
    stars = stars.with_elements(elements)
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


def _checked_actions(w: Any, theta: Any, *, method: str, delta: np.ndarray, model: MassModel) -> Any:
    found = action_angle(w, theta, method, delta, model)
    bad = int(np.sum(np.asarray(found.status) != Status.OK))
    if bad:
        where = ", ".join(f"{name}={value:.4g}" for name, value in theta._asdict().items())
        raise InputError(f"method {method!r} does not solve {bad} stars at {where}; leave them out or use 'staeckel'")
    return found


def _errors(stars: Stars, elements: Sequence[str]) -> np.ndarray | None:
    """Abundance errors (N, E); ones, that is, equal weights, for an element that has none or some of zero."""
    columns = [np.asarray(stars.errors.get(e, np.zeros(len(stars))), float) for e in elements]
    usable = [bool((c > 0).all()) for c in columns]
    if not any(usable):
        return None
    return np.stack([c if good else np.ones_like(c) for c, good in zip(columns, usable, strict=True)], 1)


def _model(model: str | os.PathLike[str] | Model) -> tuple[str, Model]:
    """A generative model and what to call it in a result."""
    if callable(model):
        return f"{model.__module__}.{getattr(model, '__qualname__', type(model).__name__)}", model
    function = load_model(model)
    if function.__module__.startswith("otibayes.models"):
        return str(model), function
    return f"{Path(model).name} {hashlib.sha256(Path(model).read_bytes()).hexdigest()}", function


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """The generative model of that name in `otibayes.models`, or in the user's own .py file, which is run.

    A file must define one public function named as the file or `model`, of one argument, the `Likelihood`. Raises
    `InputError` otherwise.
    """
    from . import models

    name = os.fspath(name_or_path)
    if not name.endswith(".py"):
        if name not in models.__all__:
            known = ", ".join(models.__all__)
            raise InputError(f"unknown model {name!r}; choose one of {known}, or give the path of a .py file")
        return getattr(models, name)
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # for any name that ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's code may raise anything
        raise InputError(f"{path}: cannot be run: {type(error).__name__}: {str(error).splitlines()[:1]}") from error
    names = dict.fromkeys(n for n in (path.stem, "model") if callable(getattr(module, n, None)))
    if len(names) != 1:
        found = "both" if names else "neither"
        raise InputError(f"{path}: must define one function called {path.stem!r} or 'model'; it defines {found}")
    function = getattr(module, next(iter(names)))
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != 1:
        raise InputError(f"{path}: {function.__name__} must take one argument, the likelihood; it takes {len(needed)}")
    return function


# ---- groups of a result


def _described(name: str, model: MassModel) -> dict[str, Any]:
    """Attributes of a parameter or derived quantity: its unit, its symbol, its bounds if any."""
    for p in model.parameters:
        if p.name == name:
            return {"units": p.unit, "symbol": p.symbol, "low": p.low, "high": p.high}
    symbol, unit = DERIVED.get(name, (name, ""))
    return {"units": unit, "symbol": symbol}


def _derived_of(values: np.ndarray, model: MassModel) -> dict[str, np.ndarray]:
    """Derived quantities (...) of parameter values (..., P), in the order of `DERIVED`."""
    flat = jnp.asarray(values).reshape(-1, values.shape[-1])
    found = jax.jit(jax.vmap(lambda theta: derived_quantities(model.Parameters(*theta), model)))(flat)
    order = [*(n for n in DERIVED if n in found), *(n for n in found if n not in DERIVED)]
    return {name: np.asarray(found[name]).reshape(values.shape[:-1]) for name in order}


def _quantities(values: np.ndarray, dims: tuple[str, ...], model: MassModel) -> dict[str, Any]:
    """Variables of parameters (..., P) and of all that derives from them."""
    named = {p.name: values[..., i] for i, p in enumerate(model.parameters)} | _derived_of(values, model)
    return {name: (dims, array, _described(name, model)) for name, array in named.items()}


def _constant_data(stars: Stars, elements: Sequence[str], delta: np.ndarray) -> xr.Dataset:
    row = np.arange(len(stars)) if stars.row is None else np.asarray(stars.row)
    missing = np.full(len(stars), np.nan)
    errors = np.stack([stars.errors.get(e, missing) for e in elements], 1)
    return xr.Dataset(
        {
            "row": ("star", row, {"long_name": "row of the catalogue, from 0"}),
            "abundances": (("star", "element"), np.stack([stars.abundances[e] for e in elements], 1), {"units": "dex"}),
            "abundance_errors": (("star", "element"), errors, {"units": "dex"}),
            "delta": ("star", delta, {"units": "kpc"}),
        },
        {"element": list(elements)},
    )


def _classical_groups(found: ClassicalFit, elements: Sequence[str], model: MassModel) -> dict[str, xr.Dataset]:
    parameter = [p.name for p in model.parameters]
    coords = {"element": list(elements)}
    coefficient = [*_COEFFICIENTS, *(f"{k}{i}" for i in range(3, 99) for k in "ab")][: found.coefficients.shape[1]]
    replicates = np.moveaxis(found.replicates, 0, 1)[None]
    over = ("chain", "draw", "element")
    both = {"objective": found.value, "converged": found.converged, "at_bound": found.at_bound}
    both["evaluations"] = found.evaluations
    optimum = _quantities(found.optimum, ("element",), model)
    optimum |= {name: ("element", array[:, 0]) for name, array in both.items()}
    optimum["coefficient_values"] = (("element", "coefficient"), found.coefficients)
    optimum["coefficient_sd"] = (("element", "coefficient"), found.coefficients_sd)
    valley = found.valley
    span = [(p.high - p.low) / 10 for p in model.parameters]
    groups = {
        "posterior": xr.Dataset(_quantities(replicates, over, model), coords),
        "sample_stats": xr.Dataset({name: (over, array[:, 1:].T[None]) for name, array in both.items()}, coords),
        "optimum": xr.Dataset(optimum, {**coords, "coefficient": coefficient}),
        "valley": xr.Dataset(
            {
                "jacobian": (("element", "constraint", "parameter"), valley.jacobian),
                "eigenvalues": (("element", "eigenvalue"), valley.eigenvalues),
                "condition": ("element", valley.condition),
                "flat": (("element", "parameter"), valley.flat),
                "starts": (("start", "parameter"), valley.starts),
                "ends": (("element", "start", "parameter"), valley.ends),
                "spread": (("element", "parameter"), valley.spread),
                "scale": ("parameter", np.array(span)),
            },
            {**coords, "parameter": parameter, "constraint": list(_COEFFICIENTS[1:4])},
            {"long_name": "objective about its optimum on all stars; jacobian and flat in units of scale"},
        ),
    }
    if found.report is not None:
        report = found.report
        groups["surface"] = xr.Dataset(
            {
                "held_out_radius": ("held_out", report.held_out_radius),
                "held_out_error": (("held_out", "element", "constraint"), report.held_out_error),
                "pairs": (("pair", "element_and_replicate"), report.pairs),
                "pair_error": (("pair", "constraint"), report.pair_error),
            },
            {**coords, "constraint": list(_COEFFICIENTS[1:4])},
            {
                "long_name": "errors of the response surface, in bootstrap sd of each coefficient",
                "worst": report.worst,
                "edge": report.edge,
                "nodes": report.nodes,
                "rounds": report.rounds,
            },
        )
    joint = _joint(found.replicates, model)
    if joint is not None:
        groups["joint"] = joint
    return groups


def _joint(replicates: np.ndarray, model: MassModel) -> xr.Dataset | None:
    """The joint constraints there are, over parameters and, propagated to first order, derived quantities."""
    parameter = [p.name for p in model.parameters]
    found, names = [], []
    for name, combine in (("product", joint_product), ("gls", joint_gls)):
        try:
            joint = combine(replicates)
        except (InputError, np.linalg.LinAlgError):
            continue
        if np.isfinite(joint.mean).all() and (np.linalg.eigvalsh(joint.covariance) > 0).all():
            found.append(joint)
            names.append(name)
    if not found:
        return None
    means = np.stack([joint.mean for joint in found])
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    # where a joint mean is no mass model, nothing derives from it
    possible = ((means >= low) & (means <= high)).all(1)
    possible &= np.array([bool(model.allowed(model.Parameters(*mean))) for mean in means])
    derived = _derived_of(means, model)
    slopes = jax.jit(jax.vmap(jax.jacfwd(lambda t: derived_quantities(model.Parameters(*t), model))))(means)
    values = np.where(possible[:, None], np.stack(list(derived.values()), 1), np.nan)
    sd = [
        [np.sqrt(np.asarray(slopes[n])[i] @ joint.covariance @ np.asarray(slopes[n])[i]) for n in derived]
        for i, joint in enumerate(found)
    ]
    return xr.Dataset(
        {
            "mean": (("combination", "parameter"), means),
            "covariance": (("combination", "parameter", "parameter_2"), np.stack([j.covariance for j in found])),
            "derived_mean": (("combination", "derived"), values),
            "derived_sd": (("combination", "derived"), np.where(possible[:, None], np.array(sd), np.nan)),
            "possible": ("combination", possible),
        },
        {"combination": names, "parameter": parameter, "parameter_2": parameter, "derived": list(derived)},
    )


def _hyperparameters(draws: Mapping[str, np.ndarray], data: Data, lead: tuple[str, ...]) -> dict[str, Any]:
    """Variables of every site that is not a parameter; amplitudes and scatters of elements in dex."""
    E, variables = len(data.elements), {}
    for name, values in draws.items():
        shape = values.shape[len(lead) :]
        if name in data.model.Parameters._fields:
            continue
        if name in ("amplitude", "scatter") and shape == (E,):
            variables[name] = ((*lead, "element"), values * data.scale, {"units": "dex"})
        elif name == "correlation_cholesky" and shape == (E, E):
            product = np.einsum("...ij,...kj->...ik", values, values)
            variables["correlation"] = ((*lead, "element", "element_2"), product, {"units": ""})
        elif name == "length_scale" and shape == (3,):
            variables[name] = ((*lead, "input"), values, {"units": "units of the inputs"})
        else:  # a site of a user's own
            variables[name] = ((*lead, *(f"{name}_dim_{i}" for i in range(len(shape)))), values, {})
    return variables


def _posterior_groups(found: Posterior, data: Data) -> dict[str, xr.Dataset]:
    elements = list(data.elements)
    coords = {"element": elements, "element_2": elements, "input": ["sqrt_J_R", "L_z", "sqrt_J_z"]}
    names = data.model.Parameters._fields

    def group(draws: Mapping[str, np.ndarray], lead: tuple[str, ...]) -> xr.Dataset:
        theta = np.stack([draws[name] for name in names], -1)
        variables = _quantities(theta, lead, data.model) | _hyperparameters(draws, data, lead)
        dims = {dim for dims, *_ in variables.values() for dim in dims}
        return xr.Dataset(variables, {name: values for name, values in coords.items() if name in dims})

    groups = {
        "posterior": group(found.draws, ("chain", "draw")),
        "sample_stats": xr.Dataset({name: (("chain", "draw"), values) for name, values in found.statistics.items()}),
        "mode": group(found.mode, ()),
    }
    if found.report is not None:
        report = found.report
        rms = float(np.sqrt(np.mean(report.posterior**2)))
        groups["surface"] = xr.Dataset(
            {
                "held_out_radius": ("held_out", report.radius, {"units": "posterior sigma"}),
                "held_out_error": ("held_out", report.held_out, {"units": "ln L"}),
                "posterior_error": ("checked_draw", report.posterior, {"units": "ln L"}),
            },
            attrs={
                # degree, size, farthest, attempts, khat, shift, basis_...
                **{name: value for name, value in report._asdict().items() if np.ndim(value) == 0},
                "posterior_rms": rms,
                "posterior_worst": float(np.abs(report.posterior).max()),
            },
        )
    return groups


def _convergence(posterior: xr.Dataset, statistics: xr.Dataset) -> dict[str, Any]:
    """The worst R-hat and effective sample sizes, over everything and over the parameters, and divergences."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what does not vary (the diagonal of a correlation) has none: NaN
        worst = {
            "max_r_hat": (az.rhat(posterior), np.nanmax),
            "min_ess_bulk": (az.ess(posterior, method="bulk"), np.nanmin),
            "min_ess_tail": (az.ess(posterior, method="tail"), np.nanmin),
        }
        varies = {name: np.asarray(v.std(("chain", "draw")) > 1e-12) for name, v in posterior.data_vars.items()}
        values = {
            key: float(pick(np.concatenate([np.ravel(np.where(varies[n], table[n], np.nan)) for n in varies])))
            for key, (table, pick) in worst.items()
        }
    divergences = int(statistics["diverging"].sum())
    good = values["max_r_hat"] <= GOOD_R_HAT and values["min_ess_bulk"] >= GOOD_ESS and not divergences
    return values | {"divergences": divergences, "converged": int(good)}


def _truth(stars: Stars, model: MassModel) -> dict[str, float]:
    """Parameters of a synthetic catalogue's mass model, and what derives from them; empty for real stars."""
    given = dict(stars.provenance.truth)
    truth = {p.name: float(given[p.name]) for p in model.parameters if p.name in given}
    if len(truth) < len(model.parameters):
        return truth
    values = np.array([truth[p.name] for p in model.parameters])
    return truth | {name: float(value) for name, value in _derived_of(values, model).items()}


def identity(stars: Stars, elements: Sequence[str] | None, seed: int, settings: Mapping[str, Any]) -> str:
    """A digest of all that a result follows from: the stars' measurements, elements, seed, settings, version."""
    elements = list(stars.abundances) if elements is None else list(elements)
    digest = hashlib.sha256()
    told = [elements, seed, dict(settings), importlib.metadata.version("otibayes"), stars.provenance.sha256]
    digest.update(json.dumps(told, sort_keys=True).encode())
    chosen = stars.with_elements(elements)
    for array in (chosen.heliocentric, *chosen.abundances.values(), *chosen.errors.values()):
        digest.update(np.ascontiguousarray(np.asarray(array, float)).tobytes())
    return digest.hexdigest()


def _tree(
    kind: str,
    groups: Mapping[str, xr.Dataset],
    stars: Stars,
    elements: Sequence[str],
    seed: int,
    settings: Mapping[str, Any],
    model: MassModel,
    name: str,
) -> xr.DataTree:
    provenance = stars.provenance
    attributes = {
        "otibayes_kind": kind,
        "otibayes_schema": _SCHEMA,
        "identity": name,
        "elements": ",".join(elements),
        "stars": len(stars),
        "seed": seed,
        "settings": json.dumps(dict(settings)),
        "versions": json.dumps({name: importlib.metadata.version(name) for name in _PACKAGES}),
        "catalogue": provenance.source,
        "catalogue_sha256": provenance.sha256,
        "dropped": json.dumps(dict(provenance.dropped)),
        "provenance": json.dumps(asdict(provenance)),
        "truth": json.dumps(_truth(stars, model)),
        "parameters": ",".join(p.name for p in model.parameters),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups})


# ---- files


def save(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a result as netCDF, over what is there, whole or not at all.

    Raises `InputError` where the folder is absent or cannot be written.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".otibayes-") as folder:
            complete = Path(folder) / "complete.nc"
            tree.to_netcdf(complete, engine="h5netcdf")
            os.replace(complete, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from error


def load(path: str | os.PathLike[str], kind: str | None = None) -> xr.DataTree:
    """A result from `save`, in memory, the file closed. `kind` "classical" or "posterior" insists on one.

    Raises `InputError` where the file is absent, not a result of otibayes, of another schema, or of the other kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a result' if path.is_dir() else 'no such file'}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except Exception as error:  # HDF5 and netCDF readers raise many kinds
        raise InputError(f"{path}: cannot be read as netCDF; is it a result of otibayes, and complete?") from error
    found = tree.attrs.get("otibayes_kind")
    if found not in _KINDS or "posterior" not in tree.children:
        raise InputError(f"{path}: is not a result of otibayes; give a file that fit_classical or sample made")
    if tree.attrs.get("otibayes_schema") != _SCHEMA:
        raise InputError(
            f"{path}: has schema {tree.attrs.get('otibayes_schema')}, this version reads {_SCHEMA}; make it again"
        )
    if kind is not None and found != kind:
        raise InputError(f"{path}: holds a {_KINDS[found]} where a {_KINDS[kind]} is needed")
    return tree
