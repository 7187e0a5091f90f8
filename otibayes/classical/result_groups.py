"""The groups of a classical result."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..dynamics import MassModel
from ..results.schema import quantities
from .chi2 import USED, Chi2Element, p_value
from .joint import MARK, joint_constraints
from .objective import coefficient_names, scales
from .statistic import Statistic, other_weights

if TYPE_CHECKING:
    from .fit import ClassicalFit
    from .surfaces import SurfaceReport

__all__ = ["chi2_group", "classical_groups"]


def classical_groups(found: "ClassicalFit", statistic: Statistic, elements: Sequence[str]) -> dict[str, xr.Dataset]:
    """All groups of a result but `constant_data`."""
    model, valley = statistic.model, found.valley
    parameter, constraint = [p.name for p in model.parameters], coefficient_names()[1:4]
    coords = {"element": list(elements)}
    over = ("chain", "draw", "element")
    both = {"objective": found.value, "converged": found.converged, "at_bound": found.at_bound}
    both["evaluations"] = found.evaluations
    optimum = quantities(found.optimum, ("element",), model)
    optimum |= {name: ("element", array[:, 0]) for name, array in both.items()}
    optimum["coefficient_values"] = (("element", "coefficient"), found.coefficients)
    optimum["coefficient_sd"] = (("element", "coefficient"), found.coefficients_sd)
    replicates = np.moveaxis(found.replicates, 0, 1)[None]
    mark = {"long_name": f"equation 8 of Price-Whelan et al. (2021): {MARK}"}
    weights, other = statistic.weights, other_weights(statistic.settings.weights)
    groups = {
        "posterior": xr.Dataset(quantities(replicates, over, model), coords, mark),
        "sample_stats": xr.Dataset({name: (over, array[:, 1:].T[None]) for name, array in both.items()}, coords),
        "optimum": xr.Dataset(optimum, {**coords, "coefficient": coefficient_names()}, mark),
        "valley": xr.Dataset(
            {
                "jacobian": (("element", "constraint", "parameter"), valley.jacobian),
                "eigenvalues": (("element", "eigenvalue"), valley.eigenvalues),
                "condition": ("element", valley.condition),
                "flat": (("element", "parameter"), valley.flat),
                "starts": (("start", "parameter"), valley.starts),
                "ends": (("element", "start", "parameter"), valley.ends),
                "spread": (("element", "parameter"), valley.spread),
                "scale": ("parameter", scales(model.parameters)),
            },
            {**coords, "parameter": parameter, "constraint": constraint},
            {"long_name": "equation 8 about its optimum on all stars; jacobian and flat in units of scale"},
        ),
        "weights": xr.Dataset(
            {
                "shift": (
                    ("element", "parameter"),
                    (found.reweighted - found.optimum) / found.replicates.std(1, ddof=1),
                    {"units": "bootstrap sd", "long_name": f"optimum with {other} weights less the optimum"},
                ),
                "missing_errors": ("element", weights.missing, {"long_name": "stars that have the median error"}),
                "median_error": ("element", weights.error),
                "scatter": ("element", weights.scatter, {"long_name": "intrinsic, about the local mean"}),
            },
            {**coords, "parameter": parameter},
            {"weights": statistic.settings.weights, "other": other},
        ),
    }
    if found.report is not None:
        groups["surface"] = _surface_group(found.report, coords, constraint)
    if found.chi2:
        groups["chi2"] = chi2_group(found.chi2, coords, model, statistic.edges)
    joint = joint_constraints(found.replicates, model, groups.get("chi2"))
    return groups if joint is None else groups | {"joint": joint}


def _surface_group(report: "SurfaceReport", coords: Mapping[str, Any], constraint: list[str]) -> xr.Dataset:
    sd = {"units": "bootstrap sd"}
    return xr.Dataset(
        {
            "pairs": (("pair", "element_and_resample"), report.pairs),
            "pair_error": (("pair", "constraint"), report.pair_error, sd),
            "rms": ("element", report.rms, sd),
            "worst": ("element", report.worst, sd),
            "refined": ("element", report.refined),
            "outermost": ("element", report.outermost, {"long_name": "optimum, in units of the region's size"}),
            "chi2_rms": ("element", report.chi2_rms, sd),
        },
        {**coords, "constraint": constraint},
        {"long_name": "plain less surface coefficients at random optima", "passes": report.passes},
    )


def chi2_group(
    found: Sequence[Chi2Element], coords: Mapping[str, Any], model: MassModel, edges: Sequence[float]
) -> xr.Dataset:
    """chi^2 of each element, in bins with `edges` in J_z [kpc km/s]."""
    parameter = [p.name for p in model.parameters]
    statistic = [f"{name} in bin {q}" for q in range(len(edges) + 1) for name in USED]
    minima, dof = [element.minima for element in found], len(statistic) - len(parameter)
    values = np.array([[one.value * element.weight.goodness for one in element.minima] for element in found])
    regions = [element.surface.region for element in found]
    variables = quantities(np.stack([m[0].theta for m in minima]), ("element",), model) | {
        "value": ("element", values[:, 0]),
        "p_value": ("element", p_value(values[:, 0], values.shape[1] - 1, dof)),
        "p_bootstrap": ("element", (values[:, 1:] >= values[:, :1]).mean(1)),
        "interval": (
            ("element", "parameter", "side"),
            np.stack([element.interval for element in found]),
            {"long_name": "68%, where chi^2 rises by 1"},
        ),
        "covariance": (("element", "parameter", "parameter_2"), np.stack([m[0].covariance for m in minima])),
        "replicates": (
            ("draw", "element", "parameter"),
            np.array([[one.theta for one in m[1:]] for m in minima]).swapaxes(0, 1),
        ),
        "replicate_values": (("draw", "element"), values[:, 1:].T),
        "converged": (("fit", "element"), np.array([[one.converged for one in m] for m in minima]).T),
        "statistics": (("element", "statistic"), np.stack([element.statistics for element in found])),
        "resampled": (
            ("draw", "element", "statistic"),
            np.stack([element.resampled for element in found], 1),
            {"long_name": "statistics of the resamples at the minimum of all stars"},
        ),
        "scatter": (
            ("element", "statistic", "statistic_2"),
            np.stack([element.weight.covariance for element in found]),
        ),
        "root": (
            ("element", "statistic", "statistic_2"),
            np.stack([element.weight.root for element in found]),
            {"long_name": "of the inverse of scatter"},
        ),
        "centre": (("element", "parameter"), np.stack([region.centre for region in regions])),
        "whitening": (("element", "parameter_2", "parameter"), np.stack([region.whitening for region in regions])),
        "size": ("element", np.array([region.size for region in regions])),
        "degree": ("element", np.array([element.surface.degree for element in found])),
    }
    terms = np.stack([element.surface.coefficients[:, 0] for element in found])
    variables["terms"] = (("element", "term", "statistic"), terms, {"long_name": "of the surface, Chebyshev"})
    labels = {"statistic": statistic, "statistic_2": statistic, "parameter": parameter, "parameter_2": parameter}
    return xr.Dataset(
        variables,
        {**coords, **labels, "side": ["low", "high"]},
        {
            "long_name": "chi^2 of coefficients in bins of J_z: an objective of otibayes, not of the paper",
            "dof": dof,
            "edges": np.array(edges, float),
            "edges_units": "kpc km/s",
        },
    )
