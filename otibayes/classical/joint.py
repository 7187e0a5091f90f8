"""The joint constraint of several elements."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.optimize import minimize

from ..base.errors import InputError
from ..base.response_surface import Region, reader
from ..dynamics import MassModel, derived_quantities
from ..results.schema import derived_of
from .chi2 import Chi2Minimum, minimise_chi2
from .objective import scales

__all__ = [
    "MARK",
    "ElementsChi2",
    "Joint",
    "elements_chi2",
    "joint_constraints",
    "joint_gls",
    "joint_product",
    "weighted_statistics",
]

MARK = "errors across its valley only"  # stands beside every number from equation 8


class Joint(NamedTuple):
    """A Gaussian over theta: `mean` (d,) and `covariance` (d, d), in the parameters' units."""

    mean: np.ndarray
    covariance: np.ndarray


def joint_product(replicates: np.ndarray) -> Joint:
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


def joint_gls(replicates: np.ndarray) -> Joint:
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


def weighted_statistics(chi2: xr.Dataset, nearest: bool = False) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Of each element of a result's `chi2`: statistics of all stars, a function of theta (d,), whose squares add up to
    chi^2. Outside the region of the surface they are NaN, or with `nearest` those of its nearest point."""

    def function(one: xr.Dataset) -> Callable[[np.ndarray], np.ndarray]:
        anywhere = np.full(one.sizes["parameter"], np.inf)
        region = Region(one.centre.values, one.whitening.values, float(one["size"]), -anywhere, anywhere)
        read, root = reader(region, int(one.degree), one.terms.values, nearest), one.root.values
        return lambda theta: root @ read(theta)

    return [function(chi2.isel(element=e)) for e in range(chi2.sizes["element"])]


class ElementsChi2(NamedTuple):
    """The sum of the elements' chi^2: `weighted(theta)` (E n,), whose squares add up to it, defined everywhere, and
    whether theta is `inside` the surfaces' regions; the `minimum`, whose covariance takes elements as independent; the
    `covariance` (d, d) that does not."""

    weighted: Callable[[np.ndarray], np.ndarray]
    inside: Callable[[np.ndarray], bool]
    minimum: Chi2Minimum
    covariance: np.ndarray

    def rise(self, slope: np.ndarray) -> float:
        """By how much the sum rises one sigma from its minimum, along the profile of a quantity with this slope (d,):
        the ratio of its variance to that of independent elements (Chandler & Bate 2007)."""
        return float((slope @ self.covariance @ slope) / (slope @ self.minimum.covariance @ slope))

    def intervals(self, quantities: Callable[[Any], Any], slopes: np.ndarray, model: MassModel) -> np.ndarray:
        """68% profile intervals (Q, 2) of `quantities(theta)` (Q,) with these slopes (Q, d) at the minimum: the least
        and the largest value where the sum is less than one sigma above its minimum. NaN on a side that the bounds or
        the region end."""
        best, unit = self.minimum, scales(model.parameters)
        low, high = np.array([[p.low, p.high] for p in model.parameters]).T / unit
        ends = np.full((len(slopes), 2), np.nan)
        for q, slope in enumerate(slopes):
            rise, width = self.rise(slope), np.sqrt(slope @ self.covariance @ slope)

            def value(x: np.ndarray, q: int = q) -> float:
                return float(quantities(x * unit)[q])

            def room(x: np.ndarray, rise: float = rise) -> float:
                return 1 - float(np.sum(self.weighted(x * unit) ** 2) - best.value) / rise

            for side, sign in enumerate((-1, 1)):
                start = (best.theta + sign * best.covariance @ slope * rise / width) / unit
                found = minimize(
                    lambda x, value=value, scale=sign * width: -value(x) / scale,
                    np.clip(start, low, high),
                    method="SLSQP",
                    bounds=np.stack([low, high], 1),
                    constraints={"type": "ineq", "fun": room},
                    options={"ftol": 1e-4},
                )
                if found.success and abs(room(found.x)) < 0.05 and self.inside(found.x * unit):
                    ends[q, side] = value(found.x)
        return ends


def elements_chi2(chi2: xr.Dataset, model: MassModel) -> ElementsChi2:
    """Sum of the elements' chi^2 from a result's `chi2`.

    It weights the elements as if they were independent. The covariance does not: it is that of the minima of the
    resamples, the same for all elements, to first order; wider as that of each element is, for weights that are noisy.
    """
    functions, strict = weighted_statistics(chi2, nearest=True), weighted_statistics(chi2)
    starts = np.stack([chi2[p.name].values for p in model.parameters], -1)
    identity = np.eye(len(functions) * chi2.sizes["statistic"])

    def together(theta: np.ndarray) -> np.ndarray:
        return np.concatenate([function(theta) for function in functions])

    def inside(theta: np.ndarray) -> bool:
        return all(np.isfinite(function(theta)).all() for function in strict)

    minima = [minimise_chi2(together, 0.0, identity, start, model.parameters) for start in starts]
    best = min(minima, key=lambda minimum: minimum.value)
    resampled = np.einsum("enm,bem->ben", chi2.root.values, chi2.resampled.values)
    resampled /= resampled.std(0, ddof=1)
    steps = resampled.reshape(len(resampled), -1) @ best.slopes @ best.covariance
    return ElementsChi2(together, inside, best, np.cov(steps.T))


def joint_constraints(
    equation_8: np.ndarray, model: MassModel, chi2: xr.Dataset | None = None, profiles: bool = True
) -> xr.Dataset | None:
    """The joint constraints that B resamples allow, over parameters and derived quantities, the latter to first order
    but for the profile intervals of "chi2".

    From replicates (E, B, d) of equation 8 the "product" and "gls", and "chi2" from a result's group. None where
    there is none. Without `profiles`, which take seconds, intervals of "chi2" are to first order too.
    """
    parameter = [p.name for p in model.parameters]
    asked: list[tuple[str, Callable[[], Joint]]] = [
        ("product", lambda: joint_product(equation_8)),
        ("gls", lambda: joint_gls(equation_8)),
    ]
    together = None if chi2 is None else elements_chi2(chi2, model)
    if together is not None:
        asked.append(("chi2", lambda: Joint(together.minimum.theta, together.covariance)))
    found = {}
    for name, combine in asked:
        try:
            joint = combine()
        except (InputError, np.linalg.LinAlgError):
            continue
        if np.isfinite(joint.mean).all() and (np.linalg.eigvalsh(joint.covariance) > 0).all():
            found[name] = joint
    if not found:
        return None
    means, covariance = (np.stack(column) for column in zip(*found.values(), strict=True))
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    # nothing derives from a joint mean that is not a mass model
    possible = ((means >= low) & (means <= high)).all(1)
    possible &= np.array([bool(model.allowed(model.Parameters(*mean))) for mean in means])
    derived = derived_of(means, model)
    values = np.where(possible[:, None], np.stack(list(derived.values()), 1), np.nan)

    @jax.jit
    def of_theta(theta: Any) -> Any:
        quantities = derived_quantities(model.Parameters(*theta), model)
        return jnp.stack([quantities[name] for name in derived])

    slopes = np.asarray(jax.jit(jax.vmap(jax.jacfwd(of_theta)))(means))  # (combination, derived, d)
    sd = np.sqrt(np.einsum("cqi,cij,cqj->cq", slopes, covariance, slopes))
    sd = np.where(possible[:, None], sd, np.nan)
    width = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    intervals = means[..., None] + np.array([-1, 1]) * width[..., None]
    derived_intervals = values[..., None] + np.array([-1, 1]) * sd[..., None]
    if profiles and together is not None and "chi2" in found:
        c = list(found).index("chi2")
        intervals[c] = together.intervals(lambda theta: theta, np.eye(len(parameter)), model)
        if possible[c]:
            derived_intervals[c] = together.intervals(of_theta, slopes[c], model)
    side = ("combination", "derived", "side")
    return xr.Dataset(
        {
            "mean": (("combination", "parameter"), means),
            "covariance": (("combination", "parameter", "parameter_2"), covariance),
            "interval": (("combination", "parameter", "side"), intervals, {"long_name": "68%; of chi2 the profile"}),
            "derived_mean": (("combination", "derived"), values),
            "derived_sd": (("combination", "derived"), sd),
            "derived_interval": (side, derived_intervals, {"long_name": "68%; of chi2 the profile"}),
            "possible": ("combination", possible),
        },
        {
            **{"combination": list(found), "parameter": parameter, "parameter_2": parameter},
            **{"derived": list(derived), "side": ["low", "high"]},
        },
        {"long_name": f"joint constraints of all elements; product and gls: equation 8, {MARK}"},
    )
