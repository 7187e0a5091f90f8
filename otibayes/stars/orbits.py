"""Orbits integrated with gala, the invariants of their tori, and the stars on the sky that a survey sees of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import astropy.coordinates as coord
import astropy.units as u
import numpy as np

from ..base import constants as const
from ..dynamics.reference import gala_potential

__all__ = ["EARLIEST", "FOOTPRINTS", "STEPS", "Footprint", "Orbits", "footprint_of", "icrs", "integrate", "observe"]

STEPS = 2500  # of 2 Myr, that is, 5 Gyr: some 35 radial and 60 vertical periods at the Sun
_DT = 2.0  # Myr
_ABREAST = 10  # orbits that gala integrates in common steps, which are those of the most difficult orbit
FOOTPRINTS = ("all-sky", "pencil-beams", "magnitude-limit")
EARLIEST = 500  # steps, that is, 1 Gyr: after that phases do not depend on the start in the plane
_TRIES = 64  # times and azimuths at which an orbit may be in the footprint; else it is not seen

# Which of the stars at positions (3, ...) [kpc] from the Sun, in Galactic axes, a survey sees; it may be random.
Footprint = Callable[[np.random.Generator, np.ndarray], np.ndarray]


class Orbits(NamedTuple):
    """N orbits, and the invariants of their tori, each (N,).

    `w` (6, time, N): x, y, z [kpc], vx, vy, vz [km/s], Galactocentric, at intervals of 2 Myr; L_z [kpc km/s], z_max,
    r_apo, r_peri [kpc]; `energy_drift`, the largest relative change of the energy.
    """

    w: np.ndarray
    L_z: np.ndarray
    z_max: np.ndarray
    r_apo: np.ndarray
    r_peri: np.ndarray
    energy_drift: float

    def at(self, time: np.ndarray) -> tuple[np.ndarray, ...]:
        """R, z [kpc], vR, vT, vz [km/s], each (..., N), at these steps (..., N)."""
        x, y, z, vx, vy, vz = self.w[:, time, np.arange(self.L_z.size)]
        R = np.hypot(x, y)
        return R, z, (x * vx + y * vy) / R, (y * vx - x * vy) / R, vz


def _maximum(values: np.ndarray) -> np.ndarray:
    """Largest maximum in time of each column of (time, orbit), refined by the parabola through its three points."""
    before, at, after = values[:-2], values[1:-1], values[2:]
    curvature = 2 * at - before - after
    peak = (at >= before) & (at >= after) & (curvature > 0)
    refined = at + np.where(peak, (after - before) ** 2 / (8 * np.where(peak, curvature, 1.0)), 0.0)
    return refined.max(axis=0)


def integrate(R: np.ndarray, z: np.ndarray, v: np.ndarray, truth: Any, steps: int = STEPS) -> Orbits:
    """Integrate N orbits in the mass model of `truth` from R, z [kpc] (N,) and v = (vR, vT, vz) [km/s] (3, N)."""
    import gala.dynamics as gd  # slow to import, and only synthetic stars need it
    from gala.integrate import DOPRI853Integrator

    # At phi = 0 the Galactocentric axes are x = -R and y = T.
    start = gd.PhaseSpacePosition(np.stack([-R, 0 * R, z]) * u.kpc, np.stack([-v[0], v[1], v[2]]) * u.km / u.s)
    orbit = gala_potential(truth).integrate_orbit(
        start, dt=_DT * u.Myr, n_steps=steps, Integrator=DOPRI853Integrator, Integrator_kwargs={"nbatch": _ABREAST}
    )
    energy = orbit[:: steps // 10].energy().value
    w = np.concatenate([orbit.xyz.to_value(u.kpc), orbit.v_xyz.to_value(u.km / u.s)]).reshape(6, steps + 1, -1)
    x, y, z, vx, vy, _ = w
    r = np.sqrt(x**2 + y**2 + z**2)
    return Orbits(
        w=w,
        L_z=y[0] * vx[0] - x[0] * vy[0],
        z_max=_maximum(np.abs(z)),
        r_apo=_maximum(r),
        r_peri=-_maximum(-r),
        energy_drift=float(np.abs(energy / energy[0] - 1).max()),
    )


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

    Times and azimuths are drawn uniformly among those within d_max of the Sun; the first in the footprint is used. The
    selection is a function of position alone.
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
    step = np.zeros((len(time), orbits.L_z.size), int)
    step[:, near] = time + earliest
    R, z, vR, vT, vz = (values[:, near] for values in orbits.at(step))
    cosine, sine = np.cos(phi), np.sin(phi)
    w = np.stack([-R * cosine, R * sine, z, -vR * cosine + vT * sine, vR * sine + vT * cosine, vz])
    seen = footprint(rng, w[:3] + np.array([x_sun, 0, -z_sun])[:, None, None]) if footprint else np.ones(R.shape, bool)
    first, observed = seen.argmax(axis=0), np.flatnonzero(seen.any(axis=0))
    return w[:, first[observed], observed], near[observed]


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
