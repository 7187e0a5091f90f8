"""Synthetic stars and actions from galpy alone, for tests of the classical path: not from otibayes' own actions."""

import warnings
from typing import NamedTuple

import numpy as np

with warnings.catch_warnings():  # galpy says at import which optional extensions it lacks
    warnings.simplefilter("ignore")
    from galpy.actionAngle import actionAngleStaeckel
    from galpy.orbit import Orbit
    from galpy.potential import HernquistPotential, MiyamotoNagaiPotential, NFWPotential

from otibayes.base import constants as const
from otibayes.dynamics.potential import halo_mass

RO, VO = const.R0, const.V_CIRC


class Actions(NamedTuple):
    J_R: np.ndarray
    L_z: np.ndarray
    J_z: np.ndarray
    theta_R: np.ndarray
    theta_z: np.ndarray


class Sample(NamedTuple):
    heliocentric: np.ndarray
    labels: np.ndarray


def potential(theta):
    """MILKY_WAY in galpy's natural units."""
    unit = const.G / (VO**2 * RO)
    return (
        MiyamotoNagaiPotential(amp=theta.m_disk * const.M_DISK_FIDUCIAL * unit, a=const.A_DISK / RO, b=theta.h_z / RO)
        + HernquistPotential(amp=2 * const.M_BULGE * unit, a=const.C_BULGE / RO)
        + HernquistPotential(amp=2 * const.M_NUCLEUS * unit, a=const.C_NUCLEUS / RO)
        + NFWPotential(amp=float(halo_mass(theta)) * unit, a=const.R_S_HALO / RO)
    )


def staeckel(w, theta, delta=0.45):
    """galpy's Staeckel fudge in C, one focal length [R0] for all stars: smooth in theta."""
    fudge = actionAngleStaeckel(pot=potential(theta), delta=delta, c=True)
    R, phi, z, vR, vT, vz = (np.asarray(a, float) for a in w)
    J_R, L_z, J_z, *_, theta_R, _, theta_z = fudge.actionsFreqsAngles(R / RO, vR / VO, vT / VO, z / RO, vz / VO, phi)
    return Actions(J_R * RO * VO, L_z * RO * VO, J_z * RO * VO, theta_R, theta_z)


def to_sun(R, phi, z, vR, vT, vz, theta):
    """Inverse of `otibayes.dynamics.frame.galactocentric`: heliocentric (N, 6)."""
    sine = theta.z_sun * const.PC / RO
    cosine = np.sqrt(1 - sine**2)
    x, y = -R * np.cos(phi), R * np.sin(phi)
    vx, vy = (x * vR - y * -vT) / R, (y * vR - x * vT) / R
    vx, vy, vz = vx - const.V_SUN_X, vy - const.V_SUN_Y, vz - theta.vz_sun
    x, z = cosine * x - sine * z + RO, sine * x + cosine * z
    vx, vz = cosine * vx - sine * vz, sine * vx + cosine * vz
    return np.stack([x, y, z, vx, vy, vz], -1)


def sample(stars, theta, seed=0, noise=0.05):
    """Phase-mixed disk stars in the mass model theta; two labels smooth in L_z, z_max and eccentricity, plus noise."""
    rng = np.random.default_rng(seed)
    guide = rng.uniform(6.5, 9.7, stars)
    vxvv = np.stack(
        [
            guide / RO,
            rng.normal(0, 30, stars) / VO,
            rng.normal(225, 12, stars) / VO,
            np.zeros(stars),
            rng.rayleigh(18, stars) * np.where(rng.random(stars) < 0.2, 2.2, 1.0) / VO,
            np.zeros(stars),
        ],
        -1,
    )
    orbits = Orbit(vxvv)
    times = np.linspace(0, 60, 601)  # about ten turns about the Galaxy; a random time is a random phase
    orbits.integrate(times, potential(theta), method="dop853_c", progressbar=False)
    history = orbits.getOrbit()
    z_max, extent = np.abs(history[..., 3]).max(1), np.ptp(history[..., 0], axis=1)
    now = history[np.arange(stars), rng.integers(100, len(times), stars)].T
    R, vR, vT, z, vz = now[0] * RO, now[1] * VO, now[2] * VO, now[3] * RO, now[4] * VO
    phi = rng.uniform(-0.2, 0.2, stars)
    L_z = history[:, 0, 0] * history[:, 0, 2]
    trend = np.stack([0.25 * np.tanh(z_max / 0.08) - 0.1 * L_z, -0.6 * np.sqrt(z_max) + 0.1 * extent - 0.3 * L_z], -1)
    scatter = rng.normal(size=(stars, 2)) @ np.array([[1.0, 0.0], [-0.5, 0.9]]).T
    return Sample(to_sun(R, phi, z, vR, vT, vz, theta), trend + noise * scatter)
