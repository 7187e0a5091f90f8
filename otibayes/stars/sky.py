"""From orbits to stars on the sky: where a survey looks, when an orbit is seen, and what is measured then."""

from collections.abc import Callable
from functools import partial
from typing import Any

import astropy.coordinates as coord
import astropy.units as u
import numpy as np

from ..base import constants as const
from .orbits import Orbits

__all__ = ["EARLIEST", "FOOTPRINTS", "Footprint", "footprint_of", "icrs", "observe"]

FOOTPRINTS = ("all-sky", "pencil-beams", "magnitude-limit")
EARLIEST = 500  # steps, that is, 1 Gyr: by then phases have forgotten that all orbits start in the plane
_TRIES = 64  # moments and azimuths at which an orbit may be in the footprint before another is taken in its place

# Which of the stars at positions (3, ...) [kpc] from the Sun, in Galactic axes, a survey sees; chance may have a part.
Footprint = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _pencil_beams(rng: np.random.Generator) -> Footprint:
    """300 fields of 1.5 degrees, two thirds of them within 16 degrees of the plane, as APOGEE's."""
    l = rng.uniform(0, 2 * np.pi, 300)  # noqa: E741 (Galactic longitude)
    sin_b = np.where(np.arange(300) < 200, np.sin(np.radians(rng.uniform(-16, 16, 300))), rng.uniform(-1, 1, 300))
    cos_b = np.sqrt(1 - sin_b**2)
    return partial(_in_beams, np.stack([cos_b * np.cos(l), cos_b * np.sin(l), sin_b]))


def _in_beams(fields: np.ndarray, _: np.random.Generator, position: np.ndarray) -> np.ndarray:
    direction = position / np.linalg.norm(position, axis=0)
    return np.array([(fields.T @ row).max(axis=0) for row in direction.swapaxes(0, 1)]) > np.cos(np.radians(1.5))


def _magnitude_limit(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """Giants of absolute magnitude -1 +- 1.2 down to apparent magnitude 9.5."""
    modulus = 5 * np.log10(np.linalg.norm(position, axis=0) / 0.01)
    return rng.normal(-1.0, 1.2, modulus.shape) + modulus < 9.5


def footprint_of(survey: str, rng: np.random.Generator) -> Footprint | None:
    """One of `FOOTPRINTS`; None where every star within reach is seen."""
    if survey == "pencil-beams":
        return _pencil_beams(rng)
    return _magnitude_limit if survey == "magnitude-limit" else None


def observe(
    rng: np.random.Generator, orbits: Orbits, truth: Any, d_max: float, footprint: Footprint | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Galactocentric x, y, z [kpc], vx, vy, vz [km/s] (6, n) of the orbits seen near the Sun, and which (n,) those are.

    Moments and azimuths are drawn evenly among all within d_max of the Sun, and the first in the footprint is taken:
    all phases of a torus are as likely as the selection, a function of position alone, makes them.
    """
    steps = orbits.w.shape[1]
    earliest = min(EARLIEST, steps - 1)
    x, y, z = orbits.w[:3, earliest:]
    z_sun = truth.z_sun * const.PC
    x_sun = np.sqrt(const.R0**2 - z_sun**2)
    R = np.hypot(x, y)
    # Half of the range of azimuth in which a star at this R and z is within d_max.
    wedge = np.arccos(np.clip((R**2 + x_sun**2 + (z - z_sun) ** 2 - d_max**2) / (2 * R * x_sun), -1, 1))
    until = np.cumsum(wedge, axis=0)
    near = np.flatnonzero(until[-1])
    chosen = rng.uniform(0, until[-1, near], (_TRIES if footprint else 1, near.size))
    time = np.stack([np.searchsorted(until[:, i], column) for i, column in zip(near, chosen.T, strict=True)], axis=1)
    phi = wedge[time, near] * rng.uniform(-1, 1, time.shape)
    every = np.zeros((len(time), orbits.L_z.size), int)
    every[:, near] = time + earliest
    R, z, vR, vT, vz = (values[:, near] for values in orbits.at(every))
    cosine, sine = np.cos(phi), np.sin(phi)
    w = np.stack([-R * cosine, R * sine, z, -vR * cosine + vT * sine, vR * sine + vT * cosine, vz])
    seen = footprint(rng, w[:3] + np.array([x_sun, 0, -z_sun])[:, None, None]) if footprint else np.ones(R.shape, bool)
    first, found = seen.argmax(axis=0), np.flatnonzero(seen.any(axis=0))
    return w[:, first[found], found], near[found]


def icrs(w: np.ndarray, truth: Any) -> dict[str, np.ndarray]:
    """ICRS ra, dec [deg], parallax [mas], pmra, pmdec [mas/yr], radial_velocity [km/s] of Galactocentric w (6, N)."""
    frame = coord.Galactocentric(
        galcen_coord=coord.ICRS(ra=266.4051 * u.deg, dec=-28.936175 * u.deg),
        galcen_distance=const.R0 * u.kpc,
        galcen_v_sun=coord.CartesianDifferential([const.V_SUN_X, const.V_SUN_Y, truth.vz_sun] * u.km / u.s),
        z_sun=truth.z_sun * u.pc,
        roll=0 * u.deg,
    )
    position, velocity = w[:3] * u.kpc, w[3:] * u.km / u.s
    names = dict(zip(("x", "y", "z", "v_x", "v_y", "v_z"), (*position, *velocity), strict=True))
    icrs = frame.realize_frame(coord.Galactocentric(**names).data).transform_to(coord.ICRS())
    return {
        "ra": icrs.ra.deg,
        "dec": icrs.dec.deg,
        "parallax": 1 / icrs.distance.to_value(u.kpc),
        "pmra": icrs.pm_ra_cosdec.to_value(u.mas / u.yr),
        "pmdec": icrs.pm_dec.to_value(u.mas / u.yr),
        "radial_velocity": icrs.radial_velocity.to_value(u.km / u.s),
    }
