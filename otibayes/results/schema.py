"""What a result holds: the one schema of both paths.

A result is an `xarray.DataTree` whose `posterior` group holds the parameters and the derived quantities over (chain,
draw): draws of the posterior, or bootstrap replicates of the classical fit, which have an `element` dimension too.
"""

import functools
import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
import xarray as xr

from ..base.parallel import in_blocks
from ..dynamics import MassModel, derived_quantities
from ..stars import Stars

__all__ = [
    "DERIVED",
    "GROUPS",
    "KINDS",
    "SCHEMA",
    "as_tree",
    "constant_data",
    "derived_of",
    "file_name",
    "quantities",
]

# TeX symbol and unit of the derived quantities, as `otibayes.derived_quantities` names them
DERIVED = {
    "M_disk": (r"M_{\rm disk}", "Msun"),
    "M_disk_over_M_halo": (r"M_{\rm disk}/M_{\rm halo}", ""),
    "Sigma_1p1": (r"\Sigma_{1.1}", "Msun/pc^2"),
    "rho_DM": (r"\rho_{\rm DM}", "Msun/pc^3"),
    "K_z_1p1": (r"|K_z|_{1.1}", "km^2/s^2/kpc"),
    "A_Oort": (r"A", "km/s/kpc"),
    "B_Oort": (r"B", "km/s/kpc"),
    "kappa": (r"\kappa", "km/s/kpc"),
    "nu": (r"\nu", "km/s/kpc"),
}
SCHEMA = 4
KINDS = {"classical": "classical fit", "posterior": "posterior"}
# what each group of a result holds; docs/results.md lists their variables
GROUPS = {
    "classical": {
        "posterior": "bootstrap replicates of equation 8, and derived quantities",
        "sample_stats": "objective and convergence of each replicate",
        "optimum": "equation 8 on all stars, and its coefficients",
        "valley": "the direction along which equation 8 cannot tell, and other starts",
        "weights": "how far other weights of the stars move an optimum",
        "chi2": "chi^2 of each element: optimum, interval, p-value, replicates",
        "joint": "constraints of all elements together",
        "surface": "errors of the response surface at random optima",
        "constant_data": "the stars, and what was measured of them",
    },
    "posterior": {
        "posterior": "draws of the parameters, derived quantities, and hyperparameters",
        "sample_stats": "of each draw, from the sampler",
        "prior": "as posterior, from the prior",
        "mode": "the maximum of the density in unbounded coordinates",
        "log_prior": "prior density of each draw, by site of the model",
        "log_likelihood": "leave-one-out predictive density of some stars",
        "posterior_predictive": "abundances of some stars, from the posterior",
        "prior_predictive": "abundances of some stars, from the prior",
        "observed_data": "abundances of the same stars, as measured",
        "field": "the field at some draws, in units of scale about centre",
        "surface": "errors of the response surface",
        "pull": "how far posteriors are off on average, were this answer the truth",
        "timings": "how long each stage took",
        "constant_data": "the stars, and what was measured of them",
    },
}
_TOGETHER = 1000  # draws
_PACKAGES = ("otibayes", "jax", "jaxlib", "numpyro", "tinygp", "numpy", "scipy", "arviz", "xarray", "astropy", "galpy")


def _described(name: str, model: MassModel) -> dict[str, Any]:
    """Attributes of a parameter or derived quantity: its unit, its symbol, its bounds if any."""
    for p in model.parameters:
        if p.name == name:
            return {"units": p.unit, "symbol": p.symbol, "low": p.low, "high": p.high}
    symbol, unit = DERIVED.get(name, (name, ""))
    return {"units": unit, "symbol": symbol}


@functools.cache
def _derived(model: MassModel) -> Callable[[Any], dict[str, jax.Array]]:
    return jax.jit(jax.vmap(lambda theta: derived_quantities(model.Parameters(*theta), model)))


def derived_of(values: np.ndarray, model: MassModel) -> dict[str, np.ndarray]:
    """Derived quantities (...) of parameter values (..., P), in the order of `DERIVED`."""
    found = in_blocks(_derived(model), values.reshape(-1, values.shape[-1]), size=_TOGETHER)
    order = [*(n for n in DERIVED if n in found), *(n for n in found if n not in DERIVED)]
    return {name: found[name].reshape(values.shape[:-1]) for name in order}


def quantities(values: np.ndarray, dims: tuple[str, ...], model: MassModel) -> dict[str, Any]:
    """Variables of parameters (..., P) and of all that derives from them."""
    named = {p.name: values[..., i] for i, p in enumerate(model.parameters)} | derived_of(values, model)
    return {name: (dims, array, _described(name, model)) for name, array in named.items()}


def constant_data(
    stars: Stars,
    elements: Sequence[str],
    delta: np.ndarray,
    extra: Sequence[str] = (),
    shown: np.ndarray | slice = slice(None),
) -> xr.Dataset:
    """Of the stars used, or those of them that are `shown` (indices): where they are in the catalogue, what was
    measured, and Delta."""
    row = np.arange(len(stars)) if stars.row is None else np.asarray(stars.row)
    of_all = {name: np.asarray(stars.extra[name]) for name in extra}
    number, stars = np.arange(len(stars))[shown], stars[shown]
    missing = np.full(len(stars), np.nan)
    errors = np.stack([stars.errors.get(e, missing) for e in elements], 1)
    return xr.Dataset(
        {
            "row": ("star", row[shown], {"long_name": "row of the catalogue, from 0"}),
            "abundances": (("star", "element"), np.stack([stars.abundances[e] for e in elements], 1), {"units": "dex"}),
            "abundance_errors": (("star", "element"), errors, {"units": "dex"}),
            "delta": ("star", delta[shown], {"units": "kpc"}),
            "heliocentric": (
                ("star", "coordinate"),
                np.asarray(stars.heliocentric),
                {"units": "kpc, km/s", "long_name": "position and velocity relative to the Sun, Galactocentric axes"},
            ),
            **{n: ("star", x[shown], {"mean": x.mean(), "sd": x.std()}) for n, x in of_all.items()},
        },
        {
            "element": list(elements),
            "coordinate": ["x", "y", "z", "vx", "vy", "vz"],
            "star": ("star", number, {"long_name": "number of the star among those used, from 0"}),
        },
        {"extra": ",".join(extra)},
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
    named = {n: _numbered(g).assign_attrs({"long_name": GROUPS[kind][n]} | g.attrs) for n, g in groups.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **named})


def _numbered(group: xr.Dataset) -> xr.Dataset:
    """With coordinates along chain and draw, which some of ArviZ' plots need, and names that a file can have."""
    group = group.rename({name: file_name(name) for name in [*group.variables, *group.dims] if name != file_name(name)})
    return group.assign_coords(
        {d: np.arange(group.sizes[d]) for d in ("chain", "draw") if d in group.dims and d not in group.coords}
    )


def file_name(name: Any) -> str:
    """The name of a variable as a netCDF file can have it: a slash there divides groups."""
    return re.sub(r"[/\x00-\x1f\x7f]", "_", str(name)).strip() or "_"
