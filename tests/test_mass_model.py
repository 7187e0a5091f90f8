"""A user's mass model, from examples/second_disk.py, against gala and galpy, through actions and derived quantities."""

import importlib.util
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otibayes.base import constants as const
from otibayes.base.errors import InputError
from otibayes.dynamics import (
    MILKY_WAY,
    MassModel,
    PhaseSpace,
    action_angle,
    derived_quantities,
    forces,
    galactocentric,
    star_actions,
)
from otibayes.dynamics.potential import circular_velocity_squared
from otibayes.dynamics.reference import gala_potential

with warnings.catch_warnings():  # galpy says at import which optional extensions it lacks
    warnings.simplefilter("ignore")
    import galpy.actionAngle  # noqa: F401

path = Path(__file__).resolve().parents[1] / "examples" / "second_disk.py"
spec = importlib.util.spec_from_file_location("second_disk", path)
second_disk = importlib.util.module_from_spec(spec)
spec.loader.exec_module(second_disk)
MODEL = second_disk.SECOND_DISK
THETA = MODEL.Parameters(m_disk=0.9, h_z=0.25, m_thick=0.8)


def stars(n):
    rng = np.random.default_rng(0)
    R, z = rng.uniform(5, 11, n), rng.normal(0, 0.5, n)
    return PhaseSpace(R, rng.uniform(-3, 3, n), z, rng.normal(0, 35, n), rng.normal(220, 25, n), rng.normal(0, 20, n))


def test_table_has_the_new_parameter():
    assert THETA._fields == ("m_disk", "h_z", "z_sun", "vz_sun", "m_thick")
    assert MODEL.Parameters().m_thick == 0.6
    assert not MODEL.allowed(MODEL.Parameters(m_disk=1.6, m_thick=2.0)) and MODEL.allowed(THETA)


def test_potential_and_forces_agree_with_gala():
    R, z = (a.ravel() for a in np.meshgrid(np.geomspace(0.5, 30, 8), [-3.0, -0.2, 0.01, 0.9]))
    gala = gala_potential(THETA, MODEL)
    xyz = np.array([R, np.zeros_like(R), z])
    energy, gradient = gala.energy(xyz).to_value("km2 / s2"), gala.gradient(xyz).to_value("km2 / (s2 kpc)")
    np.testing.assert_allclose(MODEL.potential(R, z, THETA), energy, rtol=1e-10)
    ours = jax.vmap(lambda R, z: jnp.stack(forces(R, z, THETA, MODEL)))(R, z)
    np.testing.assert_allclose(ours.T, gradient[[0, 2]], rtol=1e-10)


def test_circular_velocity_is_kept():
    for m_thick in (0.0, 0.6, 2.0):
        square = circular_velocity_squared(MODEL.potential, const.R0, THETA._replace(m_thick=m_thick))
        np.testing.assert_allclose(square, 229.0**2, rtol=1e-12)


def test_actions_agree_with_galpy():
    w = stars(300)
    ours, theirs = (action_angle(w, THETA, method=m, delta=4.0, model=MODEL) for m in ("staeckel", "galpy"))
    off_plane = ours.J_z > 0.1
    for name in ("J_R", "J_z", "Omega_R", "Omega_z"):
        found, expected = getattr(ours, name)[off_plane], getattr(theirs, name)[off_plane]
        np.testing.assert_allclose(found, expected, rtol=1e-7, err_msg=name)
    np.testing.assert_allclose(ours.L_z, w.R * w.vT, rtol=1e-14)


def test_without_a_second_disk_it_is_the_milky_way():
    w, theta = stars(20), MODEL.Parameters(m_thick=0.0)
    for R, z in zip(w.R, w.z, strict=True):
        np.testing.assert_allclose(MODEL.potential(R, z, theta), MILKY_WAY.potential(R, z, theta), rtol=1e-14)


def test_gradient_by_the_new_parameter():
    star = jnp.array([0.3, 0.5, 0.4, 20.0, -30.0, 5.0])

    @jax.jit
    def J(m_thick):
        theta = THETA._replace(m_thick=m_thick)
        return star_actions(galactocentric(star, theta), 4.0, theta, MODEL)

    step = 1e-3
    slope = (8 * (J(0.8 + step) - J(0.8 - step)) - (J(0.8 + 2 * step) - J(0.8 - 2 * step))) / (12 * step)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(J))(0.8), slope, rtol=1e-6, atol=1e-9)


def test_derived_quantities_are_those_of_the_model():
    of = jax.jit(lambda theta: derived_quantities(theta, MODEL))
    derived = of(THETA)
    lighter = of(THETA._replace(m_thick=0.0))
    assert derived["Sigma_1p1"] > lighter["Sigma_1p1"] and derived["rho_DM"] < lighter["rho_DM"]


def test_a_model_without_peers_says_so():
    with pytest.raises(InputError, match="no galpy potential"):
        action_angle(stars(2), THETA, method="galpy", delta=4.0, model=MassModel({"all": MILKY_WAY.potential}))


def test_a_model_needs_the_suns_parameters():
    with pytest.raises(ValueError, match="must include z_sun and vz_sun"):
        MassModel({"all": MILKY_WAY.potential}, parameters=())
