"""Galactocentric phase space against astropy's `Galactocentric`, its derivatives and its signs."""

import astropy.coordinates as coord
import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from otibayes.base.constants import PC, R0, V_SUN_X, V_SUN_Y
from otibayes.base.parameters import Parameters
from otibayes.dynamics.frame import galactocentric, heliocentric

THETAS = [
    Parameters(z_sun=z_sun, vz_sun=vz_sun) for z_sun, vz_sun in [(20.8, 7.78), (0, 0), (-99.0, 14.0), (97.0, 3.0)]
]


def random_stars(n, seed):
    """ra, dec [deg], distance [kpc], pmra, pmdec [mas/yr], radial_velocity [km/s] over the whole sky."""
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(0, 360, n),
        np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
        rng.lognormal(0, 1, n),
        *rng.normal(0, 10, (2, n)),
        rng.normal(0, 60, n),
    )


def astropy_cartesian(ra, dec, distance, pmra, pmdec, radial_velocity, theta):
    """Galactocentric x, y, z [kpc] and vx, vy, vz [km/s] (2, 3, N) by astropy, with nothing left to its defaults."""
    icrs = coord.SkyCoord(
        ra * u.deg,
        dec * u.deg,
        distance * u.kpc,
        pm_ra_cosdec=pmra * u.mas / u.yr,
        pm_dec=pmdec * u.mas / u.yr,
        radial_velocity=radial_velocity * u.km / u.s,
    )
    frame = coord.Galactocentric(
        galcen_coord=coord.ICRS(ra=266.4051 * u.deg, dec=-28.936175 * u.deg),
        galcen_distance=R0 * u.kpc,
        galcen_v_sun=coord.CartesianDifferential([V_SUN_X, V_SUN_Y, theta.vz_sun] * u.km / u.s),
        z_sun=theta.z_sun * u.pc,
        roll=0 * u.deg,
    )
    there = icrs.transform_to(frame)
    return np.array([there.cartesian.xyz.to_value(u.kpc), there.velocity.d_xyz.to_value(u.km / u.s)])


@pytest.mark.parametrize("theta", THETAS, ids=str)
def test_agrees_with_astropy(theta):
    stars = random_stars(500, seed=1)
    (x, y, z), (vx, vy, vz) = astropy_cartesian(*stars, theta)
    w = galactocentric(heliocentric(*stars), theta)
    R = np.hypot(x, y)
    assert np.ptp(R) > 5
    distance, speed = np.sqrt(R**2 + z**2), np.sqrt(vx**2 + vy**2 + vz**2)
    # relative to the length of the vector, since a component may pass through zero
    np.testing.assert_allclose((w.R - R) / distance, 0, atol=1e-9)
    np.testing.assert_allclose((w.z - z) / distance, 0, atol=1e-9)
    np.testing.assert_allclose(np.sin(w.phi - np.arctan2(y, -x)), 0, atol=1e-9)
    np.testing.assert_allclose((w.vR - (x * vx + y * vy) / R) / speed, 0, atol=1e-9)
    np.testing.assert_allclose((w.vT - (y * vx - x * vy) / R) / speed, 0, atol=1e-9)
    np.testing.assert_allclose((w.vz - vz) / speed, 0, atol=1e-9)


def test_derivatives_in_z_sun_and_vz_sun():
    star = heliocentric(*random_stars(20, seed=2))

    @jax.jit
    def six(z_sun, vz_sun):
        w = galactocentric(star, Parameters(z_sun=z_sun, vz_sun=vz_sun))
        return jnp.stack([w.R, w.phi, w.z]), jnp.stack([w.vR, w.vT, w.vz])

    check_grads(six, (20.8, 7.78), order=2, modes=("fwd", "rev"), eps=1e-2, atol=1e-8, rtol=1e-7)
    slopes = jax.jacfwd(six, argnums=(0, 1))(20.8, 7.78)
    np.testing.assert_allclose(slopes[0][1], 0)  # no position depends on vz_sun
    np.testing.assert_allclose(slopes[1][1][2], 1)  # vz does, one to one
    tangent = np.tan(np.arcsin(20.8 * PC / R0))  # of the tilt; a star at the Sun rises with it, one to one
    np.testing.assert_allclose(slopes[0][0][2], PC * (1 - (star[:, 0] + tangent * star[:, 2]) / R0))


@pytest.mark.parametrize("theta", THETAS, ids=str)
def test_the_sun(theta):
    w = galactocentric(jnp.zeros(6), theta)
    assert w.phi == 0
    assert w.vT == V_SUN_Y > 0  # Galactic rotation is positive
    assert w.vR == -V_SUN_X  # U > 0 is inwards
    assert w.vz == theta.vz_sun
    np.testing.assert_allclose([w.R, w.z], [np.sqrt(R0**2 - (theta.z_sun * PC) ** 2), theta.z_sun * PC], rtol=1e-14)


def test_signs_of_position():
    ahead = coord.SkyCoord(l=[90, 0] * u.deg, b=[0, 90] * u.deg, distance=1 * u.kpc, frame="galactic").icrs
    star = heliocentric(ahead.ra.deg, ahead.dec.deg, ahead.distance.kpc, *np.zeros((3, 2)))
    w = galactocentric(star, Parameters(z_sun=0.0))
    assert w.phi[0] > 0.1  # l = 90 deg lies ahead of the Sun in the sense of rotation, and phi grows that way
    np.testing.assert_allclose(w.z[1], 1, rtol=1e-5)  # the north Galactic pole is up


@given(
    star=st.tuples(*[st.floats(-5, 5)] * 3, *[st.floats(-400, 400)] * 3),
    z_sun=st.floats(-100, 100),
    vz_sun=st.floats(0, 15),
)
def test_tilt_preserves_lengths(star, z_sun, vz_sun):
    """Distance from the Galactic centre and speed about it are those of the untilted frame."""
    w = galactocentric(jnp.asarray(star, float), Parameters(z_sun=z_sun, vz_sun=vz_sun))
    x, y, z, *v = star
    distance = np.sqrt((x - R0) ** 2 + y**2 + z**2)
    np.testing.assert_allclose(w.R**2 + w.z**2, distance**2, rtol=1e-12)
    vx, vy, vz = w.vR * -np.cos(w.phi) + w.vT * np.sin(w.phi), w.vR * np.sin(w.phi) + w.vT * np.cos(w.phi), w.vz
    peculiar = np.array([vx - V_SUN_X, vy - V_SUN_Y, vz - vz_sun])
    np.testing.assert_allclose(peculiar @ peculiar, np.dot(v, v), rtol=1e-9, atol=1e-7)
