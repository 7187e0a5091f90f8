"""Curves of the mass model at draws of a posterior: vertical force, surface density, rotation curve, dark matter."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..base.constants import PC, R0
from ..dynamics import MassModel
from ..dynamics.potential import circular_velocity_squared, density, forces
from ..generative.model import mass_model_of

__all__ = ["curves", "profiles"]

_DRAWS = 400
_UNITS = {"K_z": "km^2/s^2/kpc", "Sigma": "Msun/pc^2", "v_circ": "km/s", "rho_DM": "Msun/pc^3"}


def curves(theta: np.ndarray, z: np.ndarray, R: np.ndarray, model: MassModel) -> dict[str, np.ndarray]:
    """Of parameters (S, P): |K_z| and Sigma (S, Z) at R0 and heights z [kpc]; v_circ and rho_DM (S, K) in the plane at
    radii R [kpc].

    |K_z| = |dPhi/dz| [km^2/s^2/kpc]; Sigma [Msun/pc^2], all matter within |z|; rho_DM [Msun/pc^3], the halo's density,
    absent without a component "halo".
    """
    nodes, weights = np.polynomial.legendre.leggauss(24)

    def one(theta: jax.Array) -> dict[str, Any]:
        parameters = model.Parameters(*theta)

        def column(height: Any) -> Any:
            at = 0.5 * height * (nodes + 1)
            values = jax.vmap(lambda z: density(model.potential, jnp.asarray(R0), z, parameters))(at)
            return 2 * jnp.sum(0.5 * height * weights * values) * PC**2

        found = {
            "K_z": jax.vmap(lambda z: jnp.abs(forces(R0, z, parameters, model)[1]))(z),
            "Sigma": jax.vmap(column)(z),
            "v_circ": jnp.sqrt(jax.vmap(lambda R: circular_velocity_squared(model.potential, R, parameters))(R)),
        }
        if halo := model.components.get("halo"):
            found["rho_DM"] = PC**3 * jax.vmap(lambda R: density(halo, R, jnp.asarray(0.0), parameters))(R)
        return found

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jnp.asarray(theta)))


def profiles(
    posterior: xr.DataTree,
    z: Any = None,
    R: Any = None,
    mass_model: MassModel | None = None,
    group: str = "posterior",
) -> xr.Dataset:
    """`curves` at up to 400 draws of a posterior (or of its "prior" `group`): (chain, draw, z) and (chain, draw, R).

    z [kpc], default 0.05 to 2; R [kpc], default 4 to 14. `mass_model` is needed where the result's is neither the
    default one nor that of a shipped model. The data constrain what the stars' orbits reach: elsewhere the curves are
    those of the model's shape.
    """
    model = mass_model_of(posterior, mass_model)
    z = np.linspace(0.05, 2.0, 40) if z is None else np.atleast_1d(np.asarray(z, float))
    R = np.linspace(4.0, 14.0, 41) if R is None else np.atleast_1d(np.asarray(R, float))
    draws = posterior[group].dataset
    thin = slice(None, None, max(1, draws.sizes["chain"] * draws.sizes["draw"] // _DRAWS))
    draws = draws.isel(draw=thin)
    theta = np.stack([draws[name].values for name in model.Parameters._fields], -1)
    found = curves(theta.reshape(-1, theta.shape[-1]), z, R, model)
    along = {"K_z": "z", "Sigma": "z", "v_circ": "R", "rho_DM": "R"}
    return xr.Dataset(
        {
            name: (("chain", "draw", along[name]), v.reshape(*theta.shape[:2], -1), {"units": _UNITS[name]})
            for name, v in found.items()
        },
        {"z": ("z", z, {"units": "kpc"}), "R": ("R", R, {"units": "kpc"}), "draw": draws["draw"].values},
    )
