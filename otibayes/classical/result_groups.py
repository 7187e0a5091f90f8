"""The groups of a classical result, and the joint constraint of several elements."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from ..base.errors import InputError
from ..dynamics import MassModel, derived_quantities
from ..results.schema import derived_of, quantities
from .chi2 import USED, Chi2Element, p_value
from .objective import coefficient_names, scales
from .statistic import Statistic, other_weights

if TYPE_CHECKING:
    from .fit import ClassicalFit
    from .surfaces import SurfaceReport

__all__ = ["MARK", "Joint", "chi2_group", "classical_groups", "joint_constraints", "joint_gls", "joint_product"]

MARK = "errors across its valley only"  # stands beside every number from equation 8


class Joint(NamedTuple):
    """A Gaussian over theta: `mean` (d,) and `covariance` (d, d), in the parameters' units."""

    mean: np.ndarray
    covariance: np.ndarray


def joint_product(replicates: Any) -> Joint:
    """Product of the elements' Gaussians, with the means and covariances of `replicates` (E, B, d) (PW21, Table 1).

    It takes the elements as independent. They are not, so that its covariance is too small. Raises `InputError` where
    B does not exceed d: the covariance of an element then has no inverse.
    """
    replicates = np.asarray(replicates)
    _, B, d = replicates.shape
    if d >= B:
        raise InputError(f"the covariance of {d} parameters needs more bootstraps, got {B}")
    inverses = np.stack([np.linalg.inv(np.cov(element.T)) for element in replicates])
    covariance = np.linalg.inv(inverses.sum(0))
    return Joint(covariance @ np.einsum("eij,ej->i", inverses, replicates.mean(1)), covariance)


def joint_gls(replicates: Any) -> Joint:
    """Generalised least squares over elements, with the cross-covariance of their `replicates` (E, B, d).

    The same resamples serve all elements. The inverse of a covariance from B resamples is too large by the factor of
    Hartlap et al. (2007). Raises `InputError` where B does not exceed E d + 2.
    """
    E, B, d = np.shape(replicates)
    if E * d + 2 >= B:
        raise InputError(f"the joint constraint of {E} elements needs more than {E * d + 2} bootstraps, got {B}")
    stacked = np.moveaxis(np.asarray(replicates), 0, 1).reshape(B, E * d)
    inverse = np.linalg.inv(np.cov(stacked.T)) * (B - E * d - 2) / (B - 1)
    A = np.tile(np.eye(d), (E, 1))
    covariance = np.linalg.inv(A.T @ inverse @ A)
    return Joint(covariance @ A.T @ inverse @ stacked.mean(0), covariance)


def joint_constraints(equation_8: np.ndarray, model: MassModel, chi2: np.ndarray | None = None) -> xr.Dataset | None:
    """The joint constraints that B resamples allow, over parameters and, to first order, derived quantities.

    From replicates (E, B, d) of equation 8 the "product" and "gls", and "chi2" by generalised least squares from
    those of chi^2. None where there is none.
    """
    parameter = [p.name for p in model.parameters]
    asked = [("product", joint_product, equation_8), ("gls", joint_gls, equation_8), ("chi2", joint_gls, chi2)]
    found = {}
    for name, combine, replicates in asked:
        if replicates is None:
            continue
        try:
            joint = combine(replicates)
        except (InputError, np.linalg.LinAlgError):
            continue
        if np.isfinite(joint.mean).all() and (np.linalg.eigvalsh(joint.covariance) > 0).all():
            found[name] = joint
    if not found:
        return None
    means = np.stack([joint.mean for joint in found.values()])
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    # nothing derives from a joint mean that is not a mass model
    possible = ((means >= low) & (means <= high)).all(1)
    possible &= np.array([bool(model.allowed(model.Parameters(*mean))) for mean in means])
    derived = derived_of(means, model)
    slopes = jax.jit(jax.vmap(jax.jacfwd(lambda t: derived_quantities(model.Parameters(*t), model))))(means)
    values = np.where(possible[:, None], np.stack(list(derived.values()), 1), np.nan)
    sd = [
        [np.sqrt(np.asarray(slopes[n])[i] @ joint.covariance @ np.asarray(slopes[n])[i]) for n in derived]
        for i, joint in enumerate(found.values())
    ]
    covariance = np.stack([joint.covariance for joint in found.values()])
    return xr.Dataset(
        {
            "mean": (("combination", "parameter"), means),
            "covariance": (("combination", "parameter", "parameter_2"), covariance),
            "derived_mean": (("combination", "derived"), values),
            "derived_sd": (("combination", "derived"), np.where(possible[:, None], np.array(sd), np.nan)),
            "possible": ("combination", possible),
        },
        {"combination": list(found), "parameter": parameter, "parameter_2": parameter, "derived": list(derived)},
        {"long_name": f"joint constraints of all elements; product and gls: equation 8, {MARK}"},
    )


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
    chi2_replicates = None
    if found.chi2:
        groups["chi2"] = chi2_group(found.chi2, coords, model, statistic.edges)
        chi2_replicates = np.array([[one.theta for one in element.minima[1:]] for element in found.chi2])
    joint = joint_constraints(found.replicates, model, chi2_replicates)
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
