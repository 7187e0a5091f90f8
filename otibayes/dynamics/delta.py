"""The focal length Delta of the Staeckel fudge, for each star.

A Delta that does not depend on theta, computed once from the fiducial mass model, is what both inference paths use: it
moves the actions by less than the fudge's own error, and keeps them smooth in theta.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .frame import PhaseSpace
from .potential import MassModel

__all__ = ["local_delta", "orbit_delta"]

_NEAR_PLANE = 1e-5  # of R: the formula is 0 / 0 at the plane, and even in z
_LEAST, _MOST = 0.02, 10.0  # of the radius: where the potential is spherical, or not prolate at all, Delta^2 <= 0
_PERIODS, _STEPS = 4, 512


def _delta_squared(R: Any, z: Any, theta: Any, model: MassModel) -> Any:
    """Delta^2 [kpc^2] at one point: Sanders 2012, eq. 9, with galpy's sign."""
    z = jnp.maximum(jnp.abs(z), _NEAR_PLANE * R)
    (phi_R, phi_z), ((phi_RR, phi_Rz), (_, phi_zz)) = (
        d(model.potential, (0, 1))(R, z, theta) for d in (jax.grad, jax.hessian)
    )
    return z**2 - R**2 + (3 * (z * phi_R - R * phi_z) + R * z * (phi_RR - phi_zz)) / phi_Rz


def _within_limits(delta_squared: Any, R: Any, z: Any) -> Any:
    r2 = R**2 + z**2
    return jnp.sqrt(jnp.clip(delta_squared, _LEAST**2 * r2, _MOST**2 * r2))


def local_delta(w: PhaseSpace, theta: Any, model: MassModel) -> ArrayLike:
    """Delta [kpc] from the potential's second derivatives at one star's position (scalars)."""
    return _within_limits(_delta_squared(w.R, w.z, theta, model), w.R, w.z)


def _radial_period(w: PhaseSpace, theta: Any, model: MassModel) -> Any:
    """Radial period [kpc/(km/s)], as that of a nearly circular orbit of the same energy: within 1% for disk stars."""
    E = model.potential(w.R, w.z, theta) + 0.5 * (w.vR**2 + w.vT**2 + w.vz**2)

    def force(R: Any) -> Any:
        return jax.grad(model.potential)(R, jnp.zeros_like(R), theta)

    def excess(R: Any) -> Any:
        return model.potential(R, jnp.zeros_like(R), theta) + 0.5 * R * force(R) - E

    def newton(_: int, R: Any) -> Any:
        value, slope = jax.jvp(excess, (R,), (jnp.ones_like(R),))
        return jnp.clip(R - value / slope, 0.3 * R, 3 * R)

    R = jax.lax.fori_loop(0, 6, newton, w.R)
    value, slope = jax.jvp(force, (R,), (jnp.ones_like(R),))
    return 2 * jnp.pi / jnp.sqrt(slope + 3 * value / R)


def orbit_delta(w: PhaseSpace, theta: Any, model: MassModel) -> ArrayLike:
    """Delta [kpc]: the median along one star's orbit over four radial periods (PW21, section 4).

    The orbit is integrated in the meridional plane by leapfrog. Points where Delta^2 is negative do not count, as in
    gala.
    """
    L, step = w.R * w.vT, _PERIODS * _radial_period(w, theta, model) / _STEPS

    def effective(R: Any, z: Any) -> Any:
        return model.potential(R, z, theta) + 0.5 * (L / R) ** 2

    force = jax.grad(effective, (0, 1))

    def drift_kick_drift(state: tuple, _: Any) -> tuple[tuple, Any]:
        R, z, vR, vz = state
        R, z = R + 0.5 * step * vR, z + 0.5 * step * vz
        fR, fz = force(R, z)
        vR, vz = vR - step * fR, vz - step * fz
        R, z = R + 0.5 * step * vR, z + 0.5 * step * vz
        return (R, z, vR, vz), _delta_squared(R, z, theta, model)

    _, squared = jax.lax.scan(drift_kick_drift, (w.R, w.z, w.vR, w.vz), None, length=_STEPS)
    return _within_limits(jnp.nanmedian(jnp.where(squared > 0, squared, jnp.nan)), w.R, w.z)
