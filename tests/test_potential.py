"""The mass model against gala and galpy, its constraint, and its derived quantities."""

import functools
import operator

import astropy.units as u
import gala.potential as gp
import galpy.potential
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gala.units import UnitSystem
from scipy.integrate import quad

from otibayes.base import constants as const
from otibayes.base.parameters import Parameters
from otibayes.dynamics.potential import (
    MILKY_WAY,
    circular_velocity_squared,
    derived_quantities,
    forces,
    halo_mass,
    heaviest_disk,
    hernquist,
    miyamoto_nagai,
    nfw,
)

THETAS = [
    Parameters(),
    Parameters(m_disk=0.4, h_z=0.05),
    Parameters(m_disk=0.4, h_z=1.0),
    Parameters(m_disk=1.3, h_z=0.9, z_sun=-50.0),
    Parameters(m_disk=1.6, h_z=0.2, z_sun=60.0, vz_sun=12.0),
]
UNITS = UnitSystem(u.kpc, u.kpc / (u.km / u.s), u.Msun, u.radian)
GRID = [a.ravel() for a in np.meshgrid(np.geomspace(0.1, 30, 12), [-5, -1.1, -0.2, -0.01, 0, 0.003, 0.4, 2, 5])]
derived = jax.jit(derived_quantities)


def gala_components(theta):
    # gala computes in units where G is its own; masses are scaled so that G M is ours to the last digit
    unit_mass = const.G / gp.HernquistPotential(m=1, c=1, units=UNITS).G

    def mass(m):
        return m * unit_mass * u.Msun

    disk = {"a": const.A_DISK, "b": theta.h_z}
    return {
        "disk": gp.MiyamotoNagaiPotential(mass(theta.m_disk * const.M_DISK_FIDUCIAL), **disk, units=UNITS),
        "bulge": gp.HernquistPotential(mass(const.M_BULGE), const.C_BULGE, units=UNITS),
        "nucleus": gp.HernquistPotential(mass(const.M_NUCLEUS), const.C_NUCLEUS, units=UNITS),
        "halo": gp.NFWPotential(mass(float(halo_mass(theta))), const.R_S_HALO, units=UNITS),
    }


def galpy_components(theta):
    # natural units of ro = 1 kpc and vo = 1 km/s, in which galpy's amp is G M (2 G M for Hernquist)
    return {
        "disk": galpy.potential.MiyamotoNagaiPotential(
            const.G * theta.m_disk * const.M_DISK_FIDUCIAL, a=const.A_DISK, b=theta.h_z
        ),
        "bulge": galpy.potential.HernquistPotential(2 * const.G * const.M_BULGE, a=const.C_BULGE),
        "nucleus": galpy.potential.HernquistPotential(2 * const.G * const.M_NUCLEUS, a=const.C_NUCLEUS),
        "halo": galpy.potential.NFWPotential(const.G * float(halo_mass(theta)), a=const.R_S_HALO),
    }


def gala_values(potential):
    R, z = GRID
    xyz = np.array([R, np.zeros_like(R), z])
    gradient = potential.gradient(xyz).value
    return potential.energy(xyz).value, gradient[0], gradient[2]


def galpy_values(potential):
    R, z = GRID
    return potential(R, z), -potential.Rforce(R, z), -potential.zforce(R, z)


def our_values(potential, theta):
    def one(R, z):
        return potential(R, z, theta), *jax.grad(potential, (0, 1))(R, z, theta)

    return jax.vmap(one)(*map(jnp.asarray, GRID))


@pytest.mark.parametrize("theta", THETAS, ids=str)
@pytest.mark.parametrize("peer", ["gala", "galpy"])
def test_potential_and_forces_agree_with_peers(theta, peer):
    components, values = {
        "gala": (gala_components, gala_values),
        "galpy": (galpy_components, galpy_values),
    }[peer]
    theirs = {name: np.array(values(component)) for name, component in components(theta).items()}
    assert theirs.keys() == MILKY_WAY.components.keys()
    ours = {name: our_values(component, theta) for name, component in MILKY_WAY.components.items()}
    theirs["all"] = sum(theirs.values())
    ours["all"] = our_values(MILKY_WAY.potential, theta)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_shapes_broadcast():
    R, z = jnp.linspace(1, 10, 5), 0.1
    assert MILKY_WAY.potential(R, z, Parameters()).shape == (5,)


def test_circular_velocity_is_held_all_over_the_prior():
    m_disk, h_z = map(jnp.ravel, jnp.meshgrid(jnp.linspace(0.4, 1.8, 57), jnp.linspace(0.05, 1.0, 39)))
    theta = Parameters(m_disk, h_z, *(jnp.full_like(m_disk, x) for x in Parameters()[2:]))
    allowed = MILKY_WAY.allowed(theta)
    assert 0.8 < allowed.mean() < 1  # the floor cuts the corner of heavy, thin disks
    squares = jax.vmap(lambda theta: circular_velocity_squared(MILKY_WAY.potential, const.R0, theta))(theta)
    np.testing.assert_allclose(jnp.sqrt(squares)[allowed], 229.0, rtol=1e-12)


def test_forces_point_inwards():
    R_force, z_force = forces(8.0, 0.5, Parameters())
    assert R_force > 0 and z_force > 0
    assert forces(8.0, 0.0, Parameters())[1] == 0


def test_halo_mass():
    np.testing.assert_allclose(halo_mass(Parameters()), 5.400e11, rtol=1e-4)
    lighter = [halo_mass(Parameters(m_disk=m)) for m in (0.4, 1.0, 1.6)]
    assert lighter[0] > lighter[1] > lighter[2]


def test_gala_milky_way_has_the_same_halo():
    milky_way = gp.MilkyWayPotential(version="v1", disk={"m": const.M_DISK_FIDUCIAL * u.Msun, "a": 3.0, "b": 0.28})
    v_circ = milky_way.circular_velocity([const.R0, 0, 0] * u.kpc).to_value(u.km / u.s)
    np.testing.assert_allclose(v_circ, 229.0, atol=1e-3)
    np.testing.assert_allclose(halo_mass(Parameters()), milky_way["halo"].parameters["m"].value, rtol=1e-4)


def test_prior_floor():
    assert const.M_HALO_FLOOR == 1e11
    heavy = Parameters(m_disk=1.8, h_z=0.05)
    np.testing.assert_allclose(halo_mass(heavy), -3.9e10, rtol=0.02)
    assert not MILKY_WAY.allowed(heavy)
    # light and positive, yet below the floor
    light = Parameters(m_disk=1.72, h_z=0.28)
    assert 0 < halo_mass(light) < const.M_HALO_FLOOR
    assert not MILKY_WAY.allowed(light)


@pytest.mark.parametrize(
    ("m_disk", "h_z", "ratio"),
    [(1.0, 0.28, 1.26), (1.21, 0.27, 2.08), (1.07, 0.28, 1.48)],  # Table 1 of PW21 prints 1.3, 2.11 and 1.51
)
def test_disk_to_halo_ratio(m_disk, h_z, ratio):
    theta = Parameters(m_disk, h_z)
    components = gala_components(theta)
    disk, halo = (components[c].circular_velocity([8.1, 0, 0]).value.item() ** 2 for c in ("disk", "halo"))
    np.testing.assert_allclose(derived(theta)["M_disk_over_M_halo"], disk / halo, rtol=1e-10)
    np.testing.assert_allclose(disk / halo, ratio, atol=0.005)


@pytest.mark.parametrize("theta", THETAS, ids=str)
def test_surface_density_force_and_dark_matter(theta):
    components = gala_components(theta)

    def density(z, names):
        return sum(components[name].density([const.R0, 0, z]).value[0] for name in names)

    sigma = 2 * quad(density, 0, 1.1, args=(components,), points=[0.05, 0.2], epsabs=0, epsrel=1e-11, limit=200)[0]
    force = sum(c.gradient([const.R0, 0, 1.1]).value[2, 0] for c in components.values())
    ours = derived(theta)
    named = {"M_disk", "M_disk_over_M_halo", "Sigma_1p1", "rho_DM", "K_z_1p1", "A_Oort", "B_Oort", "kappa", "nu"}
    assert ours.keys() == named
    np.testing.assert_allclose(ours["M_disk"], theta.m_disk * 6.52551e10, rtol=1e-15)
    np.testing.assert_allclose(ours["Sigma_1p1"], sigma * 1e-6, rtol=1e-8)
    np.testing.assert_allclose(ours["K_z_1p1"], force, rtol=1e-10)
    np.testing.assert_allclose(ours["rho_DM"], density(theta.z_sun * 1e-3, ["halo"]) * 1e-9, rtol=1e-9)


@pytest.mark.parametrize("theta", THETAS, ids=str)
def test_frequencies_at_the_sun(theta):
    peer, ours = functools.reduce(operator.add, galpy_components(theta).values()), derived(theta)
    A, B = ours["A_Oort"], ours["B_Oort"]
    slope = galpy.potential.dvcircdR(peer, const.R0)
    np.testing.assert_allclose(A - B, galpy.potential.omegac(peer, const.R0), rtol=1e-10)
    np.testing.assert_allclose(A - B, const.V_CIRC / const.R0, rtol=1e-12)
    np.testing.assert_allclose(A + B, -slope, rtol=1e-9)
    np.testing.assert_allclose(ours["kappa"], galpy.potential.epifreq(peer, const.R0), rtol=1e-10)
    np.testing.assert_allclose(ours["nu"], galpy.potential.verticalfreq(peer, const.R0), rtol=1e-10)


@pytest.mark.parametrize(
    "component",
    [
        lambda R, z: miyamoto_nagai(R, z, 1e10, 3.0, 0.3),
        lambda R, z: hernquist(R, z, 1e10, 1.0),
        lambda R, z: nfw(R, z, 1e11, 15.0),
    ],
)
def test_potential_vanishes_far_away_and_is_negative(component):
    assert component(8.0, 0.1) < component(80.0, 0.1) < component(8e6, 0.1) < 0


def test_the_heaviest_disk_is_where_allowed_ends():
    for h_z in (0.05, 0.28, 1.0):
        limit = float(heaviest_disk(Parameters(h_z=h_z)))
        assert MILKY_WAY.allowed(Parameters(m_disk=limit * (1 - 1e-12), h_z=h_z))
        assert not MILKY_WAY.allowed(Parameters(m_disk=limit * (1 + 1e-12), h_z=h_z))
