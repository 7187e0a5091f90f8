"""The groups of a classical result: bootstrap draws, optimum, valley, surface report, chi^2, joint constraints."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from ..base.errors import InputError
from ..dynamics import MassModel, derived_quantities
from ..results.schema import derived_of, quantities
from .bootstrap import ClassicalFit
from .chi2 import USED, Chi2Fit
from .joint import joint_gls, joint_product
from .surfaces import SurfaceReport

__all__ = ["chi2_group", "classical_groups", "joint_constraints"]

_COEFFICIENTS = ("c0", "a1", "b1", "a2", "b2")


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
