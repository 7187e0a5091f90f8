"""The Gaussian-process mean of a posterior at any actions, on the z-v_z plane, and beside the stars."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..base.constants import R0, V_CIRC
from ..base.errors import InputError
from ..dynamics import MassModel, PhaseSpace, action_angle, galactocentric
from ..dynamics.trend import inputs
from ..generative.basis import Basis
from ..generative.model import mass_model_of
from ..generative.relabelling import Relabelling, Terms
from ..generative.statistic import design

__all__ = ["basis_of", "extra_of", "field_at", "relabelling_of", "vertical_plane"]


def basis_of(posterior: xr.DataTree) -> Basis:
    """The basis of the field that a result holds; `InputError` where it holds none."""
    if "field" not in posterior.children:
        raise InputError("this result holds no field; give a posterior of otibayes.sample")
    f = posterior["field"].dataset
    names = ("low", "high", "degrees", "basis_lengths", "envelope", "vectors", "ranks")
    return Basis(*(f[name].values for name in names))


def relabelling_of(posterior: xr.DataTree) -> Relabelling | None:
    """The relabelling of the field's inputs that a result holds, with a leading axis of its draws; None if none."""
    f = posterior["field"].dataset
    if "change" not in f:
        return None
    every = f.change.values.reshape(-1, *f.change.shape[2:])
    middle, half = (np.broadcast_to(f[name].values, (len(every), 3)) for name in ("middle", "half"))
    return Relabelling(every, Terms(middle, half, int(f.change.attrs["degree"])))


def extra_of(posterior: xr.DataTree) -> np.ndarray:
    """The model's extra columns (N, K) at the stars, less their mean and over their standard deviation of all stars."""
    data = posterior["constant_data"].dataset
    names = [name for name in data.attrs.get("extra", "").split(",") if name]
    values = [(data[name].values - data[name].attrs["mean"]) / data[name].attrs["sd"] for name in names]
    return np.stack(values, 1) if names else np.empty((data.sizes["star"], 0))


def field_at(posterior: xr.DataTree, J: Any) -> xr.DataArray:
    """The field f(J) [dex] (chain, draw, point, element) at actions J (..., 3) [kpc km/s]: one function a draw.

    `J` may have leading axes (chain, draw) of the `field` group: actions that differ from draw to draw. Extra columns
    are at their mean. NaN beyond the box of the basis, where nothing is known. The spread over draws is the mean's own
    uncertainty, to which neither scatter nor errors belong.
    """
    basis, f = basis_of(posterior), posterior["field"].dataset
    J = np.asarray(J, float)
    if J.shape[-1:] != (3,):
        raise InputError(f"actions have shape {J.shape}; (..., 3) are needed: J_R, L_z, J_z [kpc km/s]")
    lead = (f.sizes["chain"], f.sizes["draw"])
    each = J.ndim == 4 and J.shape[:2] == lead
    points = J.reshape(*lead, -1, 3) if each else J.reshape(-1, 3)
    linear = np.zeros((points.shape[-2], extra_of(posterior).shape[1]))

    @jax.jit
    def at_draw(J: Any, change: Relabelling | None, coefficients: Any) -> Any:
        x = inputs(J) if change is None else change(inputs(J))
        return design(basis, x, jnp.asarray(linear)) @ coefficients

    coefficients = f.coefficients.values.reshape(-1, *f.coefficients.shape[2:])
    points = np.broadcast_to(points if each else points[None, None], (*lead, *points.shape[-2:]))
    columns = (points.reshape(-1, *points.shape[2:]), relabelling_of(posterior), coefficients)
    draws = [jax.tree.map(lambda leaf, s=s: leaf[s], columns) for s in range(len(coefficients))]
    values = np.stack([at_draw(*draw) for draw in draws]).reshape(*lead, -1, f.sizes["element"])
    values = f.centre.values + f.scale.values * values
    return xr.DataArray(
        values,
        dims=("chain", "draw", "point", "element"),
        coords={"element": f.element.values, "draw": f.draw.values},
        name="field",
        attrs={"units": "dex"},
    )


def vertical_plane(
    posterior: xr.DataTree, z: Any = None, vz: Any = None, mass_model: MassModel | None = None
) -> xr.Dataset:
    """The field on the z-v_z plane at R0, v_R = 0, v_T = 229 km/s, and the stars' own mean abundances beside it.

    `mean` and `sd` [dex] (element, z, vz): over draws of field and mass model together, each draw with the actions of
    its own model. `stars` (element, z_cell, vz_cell): mean of the stars in each cell, where there are 3 or more, at any
    R and v_T and at the posterior's mean theta; `count` (z_cell, vz_cell). Default grid: 40 x 40 over 98% of the stars,
    and fewer cells where there are few stars. z [kpc], vz [km/s].
    """
    model, f = mass_model_of(posterior, mass_model), posterior["field"].dataset
    data = posterior["constant_data"].dataset
    theta = f.theta.values.reshape(-1, f.sizes["parameter"])
    w = jax.tree.map(
        np.asarray, galactocentric(jnp.asarray(data.heliocentric.values), model.Parameters(*theta.mean(0)))
    )
    z = _axis(w.z, 40) if z is None else np.asarray(z, float)
    vz = _axis(w.vz, 40) if vz is None else np.asarray(vz, float)
    Z, VZ = (grid.ravel() for grid in np.meshgrid(z, vz, indexing="ij"))
    point = PhaseSpace(np.full_like(Z, R0), 0 * Z, Z, 0 * Z, np.full_like(Z, V_CIRC), VZ)

    def actions(theta: np.ndarray) -> np.ndarray:
        aa = action_angle(point, model.Parameters(*theta), delta="local", model=model)
        return np.stack([aa.J_R, aa.L_z, aa.J_z], -1)

    J = np.stack([actions(one) for one in theta]).reshape(f.sizes["chain"], f.sizes["draw"], -1, 3)
    values = field_at(posterior, J).values.reshape(-1, len(z), len(vz), f.sizes["element"])
    number = int(np.clip(np.sqrt(len(w.z) / 6), 8, 40))
    cells = [np.linspace(axis.min(), axis.max(), number + 1) for axis in (z, vz)]
    count, sums = np.zeros((number, number)), []
    for e in range(f.sizes["element"]):
        known = np.isfinite(data.abundances.values[:, e])
        found = np.histogram2d(w.z[known], w.vz[known], cells)[0]
        total = np.histogram2d(w.z[known], w.vz[known], cells, weights=data.abundances.values[known, e])[0]
        sums.append(np.where(found >= 3, total / np.maximum(found, 1), np.nan))
        count = np.maximum(count, found)
    middle_z, middle_vz = (0.5 * (edges[1:] + edges[:-1]) for edges in cells)
    over = ("element", "z", "vz")
    return xr.Dataset(
        {
            "mean": (over, np.moveaxis(values.mean(0), -1, 0), {"units": "dex"}),
            "sd": (over, np.moveaxis(values.std(0), -1, 0), {"units": "dex"}),
            "stars": (("element", "z_cell", "vz_cell"), np.stack(sums), {"units": "dex"}),
            "count": (("z_cell", "vz_cell"), count),
        },
        {
            "element": f.element.values,
            "z": ("z", z, {"units": "kpc"}),
            "vz": ("vz", vz, {"units": "km/s"}),
            "z_cell": ("z_cell", middle_z, {"units": "kpc"}),
            "vz_cell": ("vz_cell", middle_vz, {"units": "km/s"}),
        },
    )


def _axis(values: np.ndarray, number: int) -> np.ndarray:
    reach = float(np.quantile(np.abs(values), 0.98))
    return np.linspace(-reach, reach, number)
