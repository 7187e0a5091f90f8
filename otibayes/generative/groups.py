"""The groups of a posterior: draws, predictions, the field, the surface's report, and how well the chains agree."""

import warnings
from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from ..results.schema import quantities
from .data import Data
from .field import Drawn, Field
from .posterior import Posterior

__all__ = ["convergence", "field_group", "posterior_groups"]

GOOD_R_HAT, GOOD_ESS = 1.01, 400


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


def posterior_groups(found: Posterior, drawn: Drawn) -> dict[str, xr.Dataset]:
    data = found.data
    elements = list(data.elements)
    coords = {"element": elements, "element_2": elements, "input": ["sqrt_J_R", "L_z", "sqrt_J_z"]}
    names = data.model.Parameters._fields

    def group(draws: Mapping[str, np.ndarray], lead: tuple[str, ...]) -> xr.Dataset:
        theta = np.stack([draws[name] for name in names], -1)
        variables = quantities(theta, lead, data.model) | _hyperparameters(draws, data, lead)
        dims = {dim for dims, *_ in variables.values() for dim in dims}
        return xr.Dataset(variables, {name: values for name, values in coords.items() if name in dims})

    groups = {
        "posterior": group(found.draws, ("chain", "draw")),
        "sample_stats": xr.Dataset({name: (("chain", "draw"), values) for name, values in found.statistics.items()}),
        "prior": group({name: values[None] for name, values in drawn.prior.items()}, ("chain", "draw")),
        "mode": group(found.mode, ()),
        **_predictive(drawn, data, found.draws["z_sun"].shape[0]),
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


def _predictive(drawn: Drawn, data: Data, chains: int) -> dict[str, xr.Dataset]:
    """Predictions star by star, one variable an element, what was observed of the same stars, and the field itself."""
    elements = list(data.elements)
    coords = {"star": data.kept[drawn.stars]}
    observed = np.where(np.isfinite(data.variance), data.centre + data.scale * np.asarray(data.Y), np.nan)[drawn.stars]

    def by_element(values: np.ndarray, dims: tuple[str, ...], draw: np.ndarray | None = None) -> xr.Dataset:
        named = {e: (dims, values[..., i], {"units": "dex"}) for i, e in enumerate(elements)}
        return xr.Dataset(named, coords if draw is None else {**coords, "draw": draw})

    if drawn.field is None or drawn.predicted is None or drawn.prior_predicted is None:
        return {"observed_data": by_element(observed, ("star",))}
    over = ("chain", "draw", "star")
    shape = (chains, len(drawn.chosen))
    predicted = drawn.predicted.reshape(*shape, *drawn.predicted.shape[1:])
    prior = drawn.prior_predicted[None]
    return {
        "posterior_predictive": by_element(predicted, over, drawn.chosen),
        "prior_predictive": by_element(prior, over, np.arange(prior.shape[1])),
        "observed_data": by_element(observed, ("star",)),
        "field": field_group(drawn.field, data, shape).assign_coords(draw=drawn.chosen),
    }


def field_group(field: Field, data: Data, shape: tuple[int, int]) -> xr.Dataset:
    """All that the field follows from at some draws: coefficients of the design and what the design is."""
    basis, parameters = data.basis, list(data.model.Parameters._fields)

    def over(values: np.ndarray) -> np.ndarray:
        return values.reshape(*shape, *values.shape[1:])

    lead = ("chain", "draw")
    return xr.Dataset(
        {
            "theta": ((*lead, "parameter"), over(field.theta)),
            "coefficients": ((*lead, "function", "element"), over(field.coefficients)),
            "lengths": ((*lead, "input"), over(field.call.lengths)),
            "amplitude": ((*lead, "element"), over(field.call.amplitude)),
            "scatter_cholesky": ((*lead, "element", "element_2"), over(field.call.scatter_cholesky)),
            "centre": ("element", data.centre, {"units": "dex"}),
            "scale": ("element", data.scale, {"units": "dex"}),
            "low": ("input", basis.low),
            "high": ("input", basis.high),
            "basis_lengths": ("input", basis.lengths),
            "degrees": (("cosine", "input"), basis.degrees),
            "envelope": ("cosine", basis.envelope),
            "vectors": (("cosine", "combination"), basis.vectors),
            "ranks": ("element", basis.ranks),
            "observed": (("class", "element"), data.classes.observed),
            "variance": (("class", "element"), data.classes.variance, {"long_name": "of errors beyond the scatter"}),
            "weight": ("star", data.weight, {"long_name": "a star scatters by Sigma over its weight"}),
            "member": ("star", _members(data), {"long_name": "class of each star of constant_data"}),
        },
        {
            "element": list(data.elements),
            "element_2": list(data.elements),
            "input": ["sqrt_J_R", "L_z", "sqrt_J_z"],
            "parameter": parameters,
        },
        {"kernel": field.kernel, "long_name": "field at some draws, in units of scale about centre"},
    )


def _members(data: Data) -> np.ndarray:
    member = np.zeros(len(data), int)
    for c, rows in enumerate(data.members):
        member[rows] = c
    return member


def convergence(posterior: xr.Dataset, statistics: xr.Dataset) -> dict[str, Any]:
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
