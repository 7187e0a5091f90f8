"""What a result holds: the one schema of both paths.

A result is an `xarray.DataTree` whose `posterior` group holds the parameters and the derived quantities over (chain,
draw): draws of the posterior, or bootstrap replicates of the classical fit, which have an `element` dimension too.
"""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .classical.bootstrap import ClassicalFit
from .classical.chi2 import USED, Chi2Fit
from .classical.joint import joint_gls, joint_product
from .classical.surfaces import SurfaceReport
from .dynamics import MassModel, derived_quantities
from .errors import InputError
from .stars import Stars

__all__ = [
    "DERIVED",
    "KINDS",
    "SCHEMA",
    "as_tree",
    "chi2_group",
    "classical_groups",
    "constant_data",
    "derived_of",
    "joint_constraints",
]

# TeX symbol and unit of the derived quantities, as `otibayes.derived_quantities` names them
DERIVED = {
    "M_disk": (r"M_{\rm disk}", "Msun"),
    "M_disk_over_M_halo": (r"M_{\rm disk}/M_{\rm halo}", ""),
    "Sigma_1p1": (r"\Sigma_{1.1}", "Msun/pc^2"),
    "rho_DM": (r"\rho_{\rm DM}", "Msun/pc^3"),
    "K_z_1p1": (r"|K_z|_{1.1}", "km^2/s^2/kpc"),
}
SCHEMA = 2
KINDS = {"classical": "classical fit", "posterior": "posterior"}
_COEFFICIENTS = ("c0", "a1", "b1", "a2", "b2")
_PACKAGES = ("otibayes", "jax", "jaxlib", "numpyro", "tinygp", "numpy", "scipy", "arviz", "xarray", "astropy", "galpy")


def _described(name: str, model: MassModel) -> dict[str, Any]:
    """Attributes of a parameter or derived quantity: its unit, its symbol, its bounds if any."""
    for p in model.parameters:
        if p.name == name:
            return {"units": p.unit, "symbol": p.symbol, "low": p.low, "high": p.high}
    symbol, unit = DERIVED.get(name, (name, ""))
    return {"units": unit, "symbol": symbol}


def derived_of(values: np.ndarray, model: MassModel) -> dict[str, np.ndarray]:
    """Derived quantities (...) of parameter values (..., P), in the order of `DERIVED`."""
    flat = jnp.asarray(values).reshape(-1, values.shape[-1])
    found = jax.jit(jax.vmap(lambda theta: derived_quantities(model.Parameters(*theta), model)))(flat)
    order = [*(n for n in DERIVED if n in found), *(n for n in found if n not in DERIVED)]
    return {name: np.asarray(found[name]).reshape(values.shape[:-1]) for name in order}


def quantities(values: np.ndarray, dims: tuple[str, ...], model: MassModel) -> dict[str, Any]:
    """Variables of parameters (..., P) and of all that derives from them."""
    named = {p.name: values[..., i] for i, p in enumerate(model.parameters)} | derived_of(values, model)
    return {name: (dims, array, _described(name, model)) for name, array in named.items()}


def constant_data(stars: Stars, elements: Sequence[str], delta: np.ndarray, extra: Sequence[str] = ()) -> xr.Dataset:
    """Of the stars used: where they are in the catalogue, what was measured, and Delta."""
    row = np.arange(len(stars)) if stars.row is None else np.asarray(stars.row)
    missing = np.full(len(stars), np.nan)
    errors = np.stack([stars.errors.get(e, missing) for e in elements], 1)
    return xr.Dataset(
        {
            "row": ("star", row, {"long_name": "row of the catalogue, from 0"}),
            "abundances": (("star", "element"), np.stack([stars.abundances[e] for e in elements], 1), {"units": "dex"}),
            "abundance_errors": (("star", "element"), errors, {"units": "dex"}),
            "delta": ("star", delta, {"units": "kpc"}),
            "heliocentric": (
                ("star", "coordinate"),
                np.asarray(stars.heliocentric),
                {"units": "kpc, km/s", "long_name": "position and velocity relative to the Sun, Galactocentric axes"},
            ),
            **{name: ("star", np.asarray(stars.extra[name])) for name in extra},
        },
        {"element": list(elements), "coordinate": ["x", "y", "z", "vx", "vy", "vz"]},
        {"extra": ",".join(extra)},
    )


def classical_groups(
    found: ClassicalFit, elements: Sequence[str], model: MassModel, bins: Sequence[float] = ()
) -> dict[str, xr.Dataset]:
    parameter = [p.name for p in model.parameters]
    coords = {"element": list(elements)}
    replicates = np.moveaxis(found.replicates, 0, 1)[None]
    over = ("chain", "draw", "element")
    both = {"objective": found.value, "converged": found.converged, "at_bound": found.at_bound}
    both["evaluations"] = found.evaluations
    optimum = quantities(found.optimum, ("element",), model)
    optimum |= {name: ("element", array[:, 0]) for name, array in both.items()}
    optimum["coefficient_values"] = (("element", "coefficient"), found.coefficients)
    optimum["coefficient_sd"] = (("element", "coefficient"), found.coefficients_sd)
    valley = found.valley
    span = [(p.high - p.low) / 10 for p in model.parameters]
    groups = {
        "posterior": xr.Dataset(quantities(replicates, over, model), coords),
        "sample_stats": xr.Dataset({name: (over, array[:, 1:].T[None]) for name, array in both.items()}, coords),
        "optimum": xr.Dataset(optimum, {**coords, "coefficient": list(_COEFFICIENTS)}),
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
        groups["surface"] = _surface_report(found.report, coords)
    if found.chi2 is not None:
        groups["chi2"] = chi2_group(found.chi2, coords, model, bins)
    joint = joint_constraints(found.replicates, model)
    if joint is not None:
        groups["joint"] = joint
    return groups


def _surface_report(report: SurfaceReport, coords: Mapping[str, Any]) -> xr.Dataset:
    return xr.Dataset(
        {
            "pairs": (("pair", "element_and_replicate"), report.pairs),
            "pair_error": (("pair", "constraint"), report.pair_error),
            "roughness": ("element", report.roughness, {"units": "bootstrap sd"}),
            "roughness_left": ("element", report.left, {"units": "bootstrap sd"}),
            "outermost": ("element", report.outermost, {"long_name": "optimum, in units of the trust region's size"}),
        },
        {**coords, "constraint": list(_COEFFICIENTS[1:4])},
        {
            "long_name": "errors of the response surface, in bootstrap sd of each coefficient",
            "worst": report.worst,
            "surface_worst": report.surface_worst,
            "polished": int(report.polished),
            "beyond": report.beyond,
            "chi2_worst": float(np.abs(report.chi2_error).max(initial=0.0)),
            "edge": report.edge,
            "nodes": report.nodes,
            "rounds": report.rounds,
        },
    )


def chi2_group(found: Chi2Fit, coords: Mapping[str, Any], model: MassModel, bins: Sequence[float]) -> xr.Dataset:
    """Of chi^2 in bins with edges `bins` in J_z [kpc km/s]."""
    parameter = [p.name for p in model.parameters]
    statistic = [f"{name} in bin {q}" for q in range(len(bins) + 1) for name in USED]
    variables = quantities(found.optimum, ("element",), model) | {
        "value": ("element", found.value),
        "p_value": ("element", found.p_value),
        "p_bootstrap": ("element", (found.replicate_values >= found.value[:, None]).mean(1)),
        "interval": (("element", "parameter", "side"), found.interval, {"long_name": "68%, where chi^2 rises by 1"}),
        "covariance": (("element", "parameter", "parameter_2"), found.covariance),
        "replicates": (("draw", "element", "parameter"), np.moveaxis(found.replicates, 0, 1)),
        "replicate_values": (("draw", "element"), found.replicate_values.T),
        "converged": (("fit", "element"), found.converged.T),
        "statistics": (("element", "statistic"), found.statistics),
        "scatter": (("element", "statistic", "statistic_2"), found.scatter),
        "root": (("element", "statistic", "statistic_2"), found.root, {"long_name": "of the inverse of scatter"}),
        "terms": (("element", "term", "statistic"), found.terms, {"long_name": "of the surface, Chebyshev"}),
        "centre": (("element", "parameter"), np.stack([region.centre for region in found.regions])),
        "whitening": (("element", "parameter_2", "parameter"), np.stack([r.whitening for r in found.regions])),
        "size": ("element", np.array([region.size for region in found.regions])),
    }
    return xr.Dataset(
        variables,
        {
            **coords,
            "parameter": parameter,
            "parameter_2": parameter,
            "side": ["low", "high"],
            "statistic": statistic,
            "statistic_2": statistic,
        },
        {
            "long_name": "chi^2 of coefficients in bins of J_z: an objective of otibayes, not of the paper",
            "dof": found.dof,
            "degree": found.degree,
            "bins": np.array(bins, float),
            "bins_units": "kpc km/s",
        },
    )


def joint_constraints(replicates: np.ndarray, model: MassModel) -> xr.Dataset | None:
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
    derived = derived_of(means, model)
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


def _truth(stars: Stars, model: MassModel) -> dict[str, float]:
    """Parameters of a synthetic catalogue's mass model, and what derives from them; empty for real stars."""
    given = dict(stars.provenance.truth)
    truth = {p.name: float(given[p.name]) for p in model.parameters if p.name in given}
    if len(truth) < len(model.parameters):
        return truth
    values = np.array([truth[p.name] for p in model.parameters])
    return truth | {name: float(value) for name, value in derived_of(values, model).items()}


def as_tree(
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
        "otibayes_schema": SCHEMA,
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
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **{n: _numbered(g) for n, g in groups.items()}})


def _numbered(group: xr.Dataset) -> xr.Dataset:
    """With coordinates along chain and draw, which some of ArviZ' plots need."""
    return group.assign_coords(
        {d: np.arange(group.sizes[d]) for d in ("chain", "draw") if d in group.dims and d not in group.coords}
    )
