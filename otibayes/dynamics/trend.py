"""Fields that are smooth in the actions: their inputs, and the polynomial trend that makes most of any of them.

Inputs are sqrt J_R, L_z - L_0 and sqrt J_z in fixed fiducial units. Units that are statistics of J(theta) would let the
scaling swallow the parameters. A stationary process and a mean over the nearest stars take a field for equally rough
everywhere in them, and so prefer some theta to others. Nearly all of that preference lies in the trend, which both
paths therefore treat apart: see `otibayes/generative/relabelling.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base.constants import R0, V_CIRC

__all__ = ["TREND_SIZE", "detrended", "inputs", "trend_terms"]

# kpc km/s: typical of the disk near the Sun, so that inputs and trend terms are of order one
_J_R_UNIT, _L_Z_UNIT, _J_Z_UNIT = 30.0, 300.0, 10.0
_L_Z_ZERO = R0 * V_CIRC
_TINY = 1e-12  # kpc km/s

TREND_SIZE = 12


def inputs(J: jax.Array) -> jax.Array:
    """x = (sqrt(J_R), L_z - L_0, sqrt(J_z)) / (sqrt 30, 300, sqrt 10) of actions J (..., 3) [kpc km/s]."""
    # the root has no slope at J = 0; a field that is even in it has slope zero there
    J_R, L_z, J_z = jnp.maximum(J[..., 0], _TINY), J[..., 1], jnp.maximum(J[..., 2], _TINY)
    return jnp.stack([jnp.sqrt(J_R / _J_R_UNIT), (L_z - _L_Z_ZERO) / _L_Z_UNIT, jnp.sqrt(J_z / _J_Z_UNIT)], -1)


def trend_terms(x: jax.Array) -> jax.Array:
    """The polynomial trend's terms (..., 12) at inputs x (..., 3): J_R, J_z, and all products of up to two of
    ln(1 + J_R / 30), (L_z - L_0) / 300 and ln(1 + J_z / 10)."""
    J_R, L_z, J_z = x[..., 0] ** 2, x[..., 1], x[..., 2] ** 2
    u, one = (jnp.log1p(J_R), L_z, jnp.log1p(J_z)), jnp.ones_like(L_z)
    return jnp.stack([one, J_R, J_z, *u, *(u[i] * u[j] for i in range(3) for j in range(i, 3))], -1)


def detrended(J: Any, values: Any) -> np.ndarray:
    """Values (N, C) at actions J (N, 3) [kpc km/s] less their regression on the trend; NaN if any action is NaN."""
    values = np.asarray(values, float)
    if not np.isfinite(J).all():
        return np.full_like(values, np.nan)
    trend = np.asarray(_trend(jnp.asarray(J)))
    return values - trend @ np.linalg.lstsq(trend, values, rcond=1e-12)[0]


@jax.jit
def _trend(J: Any) -> Any:
    return trend_terms(inputs(J))
