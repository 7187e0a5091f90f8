"""Orbits integrated with gala, and the invariants of their tori measured along them."""

from typing import Any, NamedTuple

import astropy.units as u
import numpy as np

from ..dynamics.reference import gala_potential

__all__ = ["STEPS", "Orbits", "integrate"]

STEPS = 2500  # of 2 Myr, that is, 5 Gyr: some 35 radial and 60 vertical periods at the Sun
_DT = 2.0  # Myr
_ABREAST = 10  # orbits that gala integrates in common steps: more take the steps of the worst, fewer pay per call


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
