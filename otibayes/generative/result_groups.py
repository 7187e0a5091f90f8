"""The groups of a posterior: draws, predictions, the field, the surface's report, and how long the stages took."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..results.schema import quantities
from .data import Data
from .posterior import Posterior
from .prediction import FieldDraws, Predictions
from .surface import SurfaceReport

__all__ = ["field_group", "posterior_groups", "timings_group"]

_INPUTS = ["sqrt_J_R", "L_z", "sqrt_J_z"]


def posterior_groups(
    found: Posterior, drawn: Predictions, shown: np.ndarray | slice = slice(None)
) -> dict[str, xr.Dataset]:
    """All groups that follow from a posterior and its predictions; of the stars, those that are `shown` (indices)."""
    data = found.data
    elements = list(data.elements)
    coords = {"element": elements, "element_2": elements, "input": _INPUTS}
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
        "log_prior": xr.Dataset({name: (("chain", "draw"), values) for name, values in drawn.log_prior.items()}),
        **_predictive(drawn, data, len(found.draws[names[0]]), shown),
    }
    if found.report is not None:
        groups["surface"] = _surface(found.report)
    if found.slope is not None:
        groups["pull"] = _pull(groups["posterior"], names, found.slope)
    return groups


def _pull(draws: xr.Dataset, names: Sequence[str], slope: np.ndarray) -> xr.Dataset:
    """How far the maximum of the noise-averaged ln L is from the truth, in posterior sigma, of every parameter and
    derived quantity, to first order: cov(quantity, theta) slope / sd(quantity)."""
    theta = np.stack([draws[name].values.ravel() for name in names])
    pulls = {}
    for name, values in draws.data_vars.items():
        if values.dims == ("chain", "draw"):
            both = np.cov(theta, values.values.ravel())
            with np.errstate(all="ignore"):  # NaN where draws do not vary
                pulls[name] = ((), both[-1, :-1] @ slope / np.sqrt(both[-1, -1]), {"units": "posterior sigma"})
    slopes = ("parameter", slope, {"long_name": "of the noise-averaged ln L by the parameters"})
    return xr.Dataset(pulls | {"slope": slopes}, {"parameter": list(names)})


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


def _surface(report: SurfaceReport) -> xr.Dataset:
    return xr.Dataset(
        {
            "held_out_radius": ("held_out", report.radius, {"units": "posterior sigma"}),
            "held_out_error": ("held_out", report.held_out, {"units": "ln L"}),
            "posterior_error": ("checked_draw", report.posterior, {"units": "ln L"}),
        },
        attrs={
            # degree, size, farthest, attempts, khat, shift, basis_...
            **{name: value for name, value in report._asdict().items() if np.ndim(value) == 0},
            "posterior_rms": float(np.sqrt(np.mean(report.posterior**2))),
            "posterior_worst": float(np.abs(report.posterior).max()),
        },
    )


def _predictive(drawn: Predictions, data: Data, chains: int, shown: np.ndarray | slice) -> dict[str, xr.Dataset]:
    """Predictions star by star, one variable an element, what was observed of the same stars, and the field itself."""
    coords, Y = {"star": drawn.stars}, np.asarray(data.Y)[drawn.stars]
    observed = np.where(np.isfinite(data.variance[drawn.stars]), data.centre + data.scale * Y, np.nan)
    shape = (chains, len(drawn.chosen))

    def by_element(values: np.ndarray, dims: tuple[str, ...], draw: np.ndarray | None = None) -> xr.Dataset:
        named = {e: (dims, values[..., i], {"units": "dex"}) for i, e in enumerate(data.elements)}
        return xr.Dataset(named, coords if draw is None else {**coords, "draw": draw})

    def predicted(values: np.ndarray, draw: np.ndarray) -> xr.Dataset:
        return by_element(values, ("chain", "draw", "star"), draw)

    densities = drawn.log_likelihood.reshape(chains, -1, len(drawn.stars))
    about = {"units": "ln dex^-1 for each element", "long_name": "leave-one-out predictive density of the star"}
    return {
        "log_likelihood": xr.Dataset(
            {"abundances": (("chain", "draw", "star"), densities, about)}, {**coords, "draw": drawn.compared}
        ),
        "posterior_predictive": predicted(drawn.predicted.reshape(*shape, *drawn.predicted.shape[1:]), drawn.chosen),
        "prior_predictive": predicted(drawn.prior_predicted[None], np.arange(len(drawn.prior_predicted))),
        "observed_data": by_element(observed, ("star",)),
        "field": field_group(drawn.field, data, shape, shown).assign_coords(draw=drawn.chosen),
    }


def field_group(
    field: FieldDraws, data: Data, shape: tuple[int, int], shown: np.ndarray | slice = slice(None)
) -> xr.Dataset:
    """All that the field follows from at (chain, draw) draws: coefficients of the design and what the design is; of
    the stars, those that are `shown` (indices)."""
    basis, lead = data.basis, ("chain", "draw")

    def over(values: np.ndarray) -> np.ndarray:
        return values.reshape(*shape, *values.shape[1:])

    relabelling: dict[str, Any] = {}
    if field.change is not None and data.reference is not None:
        relabelling = {
            "change": (
                (*lead, "term", "input"),
                over(field.change),
                {"long_name": "relabelling of the inputs", "degree": data.reference.terms.degree},
            ),
            "middle": ("input", data.reference.terms.middle, {"long_name": "of the range of the change's terms"}),
            "half": ("input", data.reference.terms.half, {"long_name": "half width of that range"}),
        }
    member = np.zeros(len(data), int)
    for c, rows in enumerate(data.members):
        member[rows] = c
    return xr.Dataset(
        {
            "theta": ((*lead, "parameter"), over(field.theta)),
            **relabelling,
            "coefficients": ((*lead, "function", "element"), over(field.coefficients)),
            "lengths": ((*lead, "input"), over(field.field.lengths)),
            "amplitude": ((*lead, "element"), over(field.field.amplitude)),
            "scatter_cholesky": ((*lead, "element", "element_2"), over(field.field.scatter_cholesky)),
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
            "weight": ("star", data.weight[shown], {"long_name": "a star scatters by Sigma over its weight"}),
            "member": ("star", member[shown], {"long_name": "class of each star of constant_data"}),
        },
        {
            "element": list(data.elements),
            "element_2": list(data.elements),
            "input": _INPUTS,
            "parameter": list(data.model.Parameters._fields),
        },
        {"kernel": field.field.kernel},
    )


def timings_group(seconds: list[tuple[str, float]]) -> xr.Dataset:
    """Wall-clock seconds of the stages of a run, in their order."""
    stages = [name for name, _ in seconds]
    return xr.Dataset({"seconds": ("stage", [s for _, s in seconds], {"units": "s"})}, {"stage": stages})
