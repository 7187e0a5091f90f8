"""A toy Galaxy whose actions are known in closed form, and stars in it whose labels follow them."""

from typing import Any, NamedTuple

import numpy as np
from galpy_sample import to_sun

from otibayes.base.parameters import Parameters

TRUTH = Parameters(m_disk=0.93, h_z=0.31, z_sun=12.0, vz_sun=8.3)


class ToyActions(NamedTuple):
    J_R: Any
    L_z: Any
    J_z: Any
    theta_R: Any
    theta_z: Any


class ToyStars(NamedTuple):
    heliocentric: np.ndarray


def toy_frequency(theta):
    return 70 * np.sqrt(theta.m_disk) * (0.28 / theta.h_z) ** 0.4


def toy(w, theta):
    """A separable Galaxy: harmonic about the plane at every radius, and about 8 kpc."""
    nu, kappa = toy_frequency(theta), 40
    R, z, vR, vT, vz = (np.asarray(a) for a in (w.R, w.z, w.vR, w.vT, w.vz))
    x = R - 8
    J_R, J_z = (vR**2 / kappa + kappa * x**2) / 2, (vz**2 / nu + nu * z**2) / 2
    return ToyActions(J_R, R * vT, J_z, np.arctan2(kappa * x, vR), np.arctan2(nu * z, vz))


def toy_sample(number, seed, noise=0.1):
    """Stars in steady state in the toy Galaxy of TRUTH, two labels that follow J_z and the other actions."""
    rng = np.random.default_rng(seed)
    nu, J_z, theta_z = toy_frequency(TRUTH), rng.exponential(8, number), rng.uniform(0, 2 * np.pi, number)
    z, vz = np.sqrt(2 * J_z / nu) * np.sin(theta_z), np.sqrt(2 * J_z * nu) * np.cos(theta_z)
    R, vR, vT = rng.uniform(7, 9, number), rng.normal(0, 30, number), rng.normal(225, 4, number)
    stars = ToyStars(to_sun(R, rng.uniform(-0.1, 0.1, number), z, vR, vT, vz, TRUTH))
    trend = np.stack([-0.1 * J_z / 8, 0.05 * np.log1p(J_z) + 1e-4 * R * vT], -1)
    return stars, trend + noise * rng.normal(size=(number, 2))
