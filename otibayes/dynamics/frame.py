"""From what a survey measures to Galactocentric cylindrical phase space, differentiable in z_sun and vz_sun.

The frame is astropy's `Galactocentric` (its 4.0 galactic centre and roll) with R0 = 8.122 kpc: right-handed, the Sun
at x < 0. phi = atan2(y, -x) is 0 at the Sun; vT > 0 and L_z > 0 in the sense of Galactic rotation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base.arrays import in_unit
from ..base.constants import KMS_PER_MASYR_KPC, PC, R0, V_SUN_X, V_SUN_Y

__all__ = ["PhaseSpace", "galactocentric", "heliocentric", "phase_space"]

# ICRS direction of the Galactic centre and the roll that brings the Galactic plane to z = 0 (astropy, frame defaults
# 4.0: Reid & Brunthaler 2004), all in degrees.
_GC_RA, _GC_DEC, _ROLL = 266.4051, -28.936175, 58.5986320306
_UNITS = ("kpc", "rad", "kpc", "km/s", "km/s", "km/s")  # of `PhaseSpace`


class _PhaseSpace(NamedTuple):
    R: Any
    phi: Any
    z: Any
    vR: Any
    vT: Any
    vz: Any


class PhaseSpace(_PhaseSpace):
    """Galactocentric cylindrical phase space: R, z [kpc], phi [rad], vR, vT, vz [km/s]; arrays of one shape.

    Quantities are converted to these units; lists, masked arrays and pandas columns become arrays. Raises `InputError`
    for text and for another kind of quantity.
    """

    __slots__ = ()

    def __new__(cls, R: Any, phi: Any, z: Any, vR: Any, vT: Any, vz: Any) -> "PhaseSpace":
        return cls._make((R, phi, z, vR, vT, vz))

    @classmethod
    def _make(cls, values: Any) -> "PhaseSpace":  # type: ignore[override]
        rows = zip(values, _UNITS, cls._fields, strict=True)
        return tuple.__new__(cls, [in_unit(value, unit, name) for value, unit, name in rows])


def _rotation(axis: int, degrees: float) -> np.ndarray:
    """Passive rotation matrix about a coordinate axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[[i, j], [i, j]] = c
    matrix[i, j], matrix[j, i] = s, -s
    return matrix


_ICRS_TO_GALACTIC_AXES = _rotation(0, _ROLL) @ _rotation(1, -_GC_DEC) @ _rotation(2, _GC_RA)


@jax.jit  # one program in place of many small ones
def heliocentric(ra: Any, dec: Any, distance: Any, pmra: Any, pmdec: Any, radial_velocity: Any) -> jax.Array:
    """Cartesian position and velocity relative to the Sun, along the axes of the Galactocentric frame before its tilt.

    Arguments, each (N,): ra, dec [deg, ICRS], distance [kpc], pmra (with cos dec), pmdec [mas/yr], radial_velocity
    [km/s, heliocentric]. Returns (N, 6): x, y, z [kpc], vx, vy, vz [km/s]. It does not depend on theta.
    """
    ra, dec = jnp.radians(jnp.asarray(ra)), jnp.radians(jnp.asarray(dec))
    ca, sa, cd, sd = jnp.cos(ra), jnp.sin(ra), jnp.cos(dec), jnp.sin(dec)
    away = jnp.stack([ca * cd, sa * cd, sd], -1)
    east = jnp.stack([-sa, ca, jnp.zeros_like(ca)], -1)
    north = jnp.stack([-ca * sd, -sa * sd, cd], -1)
    distance = jnp.asarray(distance)[..., None]
    tangential = jnp.asarray(pmra)[..., None] * east + jnp.asarray(pmdec)[..., None] * north
    velocity = jnp.asarray(radial_velocity)[..., None] * away + KMS_PER_MASYR_KPC * distance * tangential
    matrix = jnp.asarray(_ICRS_TO_GALACTIC_AXES.T)
    return jnp.concatenate([distance * away @ matrix, velocity @ matrix], -1)


@jax.jit  # one program in place of many small ones
def galactocentric(star: jax.Array, theta: Any) -> PhaseSpace:
    """Galactocentric phase space of heliocentric vectors (..., 6), for theta with z_sun [pc] and vz_sun [km/s].

    As in astropy's `Galactocentric`, the frame is tilted by asin(z_sun / R0) about y, so that the Galactic centre,
    not a point z_sun below it, is the origin.
    """
    sine = theta.z_sun * PC / R0
    cosine = jnp.sqrt(1 - sine**2)
    x, y, z, vx, vy, vz = (star[..., i] for i in range(6))
    x = x - R0
    x, z = cosine * x + sine * z, cosine * z - sine * x
    vx, vz = cosine * vx + sine * vz + V_SUN_X, cosine * vz - sine * vx + theta.vz_sun
    vy = vy + V_SUN_Y
    R = jnp.sqrt(x**2 + y**2)
    return PhaseSpace(R, jnp.arctan2(y, -x), z, (x * vx + y * vy) / R, (y * vx - x * vy) / R, vz)


def phase_space(stars: Any, theta: Any) -> PhaseSpace:
    """Galactocentric cylindrical phase space of `stars` (`otibayes.Stars`), each field (N,), for parameters theta."""
    return galactocentric(stars.heliocentric, theta)
