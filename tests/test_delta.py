"""The focal length: against gala, at a point and along an orbit, and how it may be given."""

import astropy.units as u
import gala.dynamics as gd
import numpy as np
import pytest
from gala.dynamics.actionangle import get_staeckel_fudge_delta
from gala.integrate import DOPRI853Integrator

from otibayes.base.errors import InputError
from otibayes.base.parameters import Parameters
from otibayes.base.settings import DELTAS
from otibayes.dynamics import PhaseSpace, action_angle, focal_length
from otibayes.dynamics.reference import gala_potential


def disk_stars(n, seed=0):
    rng = np.random.default_rng(seed)
    R, phi, z = rng.uniform(5, 11, n), rng.uniform(-np.pi, np.pi, n), rng.normal(0, 0.4, n)
    return PhaseSpace(R, phi, z, rng.normal(0, 35, n), rng.normal(220, 25, n), rng.normal(0, 20, n))


def gala_start(w):
    c, s = np.cos(w.phi), np.sin(w.phi)
    position, velocity = [w.R * c, w.R * s, w.z], [w.vR * c - w.vT * s, w.vR * s + w.vT * c, w.vz]
    return gd.PhaseSpacePosition(position * u.kpc, velocity * u.km / u.s)


@pytest.mark.parametrize(
    "theta", [Parameters(), Parameters(m_disk=0.5, h_z=0.1), Parameters(m_disk=1.3, h_z=0.6)], ids=str
)
def test_local_is_galas(theta):
    w = disk_stars(500)
    w = PhaseSpace(*(column[np.abs(w.z) > 1e-3] for column in w))
    found = focal_length(w, theta, "local")
    expected = get_staeckel_fudge_delta(gala_potential(theta), gala_start(w)).to_value(u.kpc)
    real = np.isfinite(expected)  # gala's is NaN where Delta^2 < 0
    assert real.mean() > 0.99
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-8)


def test_local_is_continuous_at_the_plane():
    z = np.array([0.0, 1e-9, -1e-9, 1e-6, 1e-4, 1e-3])
    w = PhaseSpace(*(np.broadcast_to(x, z.shape) for x in (8.0, 0.0)), z, *(np.full(6, v) for v in (20.0, 210.0, 15.0)))
    for kind in ("local", "orbit", "shell"):
        found = focal_length(w, Parameters(), kind)
        np.testing.assert_allclose(found, found[0], rtol=2e-3 if kind == "orbit" else 1e-4)
        assert found[1] == pytest.approx(found[2], rel=1e-7)


def test_orbit_is_galas_median_along_four_radial_periods():
    w, theta = disk_stars(60, seed=1), Parameters(m_disk=1.2)
    potential = gala_potential(theta)
    expected = []
    for i in range(60):
        start = gala_start(PhaseSpace(*(column[i] for column in w)))
        rough = potential.integrate_orbit(start, dt=1 * u.Myr, n_steps=3000)
        period = rough.physicsspherical.estimate_period()["r"].squeeze()
        orbit = potential.integrate_orbit(start, dt=period / 128, n_steps=4 * 128, Integrator=DOPRI853Integrator)
        with np.errstate(invalid="ignore"):  # a square root of Delta^2 < 0
            expected.append(get_staeckel_fudge_delta(potential, orbit).to_value(u.kpc).item())
    ratio = np.abs(focal_length(w, theta, "orbit") / expected - 1)
    assert ratio.max() < 0.01


def along_orbits(w, theta, points=24):
    """Each star (N,) at points (N, points) of its orbit, over four radial periods or so, by gala."""
    potential, columns = gala_potential(theta), []
    for i in range(w.R.size):
        start = gala_start(PhaseSpace(*(column[i] for column in w)))
        orbit = potential.integrate_orbit(start, dt=1 * u.Myr, n_steps=800, Integrator=DOPRI853Integrator)[
            :: 800 // points
        ]
        here = orbit.cylindrical
        velocity = (here.v_rho, here.rho * here.pm_phi, here.v_z)
        place = (here.rho.to_value(u.kpc), here.phi.to_value(u.rad), here.z.to_value(u.kpc))
        columns.append([*place, *(v.to_value(u.km / u.s, u.dimensionless_angles()) for v in velocity)])
    return PhaseSpace(*np.moveaxis(np.array(columns), 1, 0))


@pytest.mark.parametrize(
    "theta", [Parameters(), Parameters(m_disk=0.6, h_z=0.15), Parameters(m_disk=1.4, h_z=0.5)], ids=str
)
def test_actions_are_constant_along_orbits(theta):
    """With the focal lengths of shells, J_R at least twice as well as with the orbit's median, and J_z as well."""
    rng, n = np.random.default_rng(3), 60
    R, z, vT = rng.uniform(5, 11, n), rng.normal(0, 0.6, n), rng.normal(200, 35, n)
    w = PhaseSpace(R, np.zeros(n), z, rng.normal(0, 50, n), vT, rng.normal(0, 35, n))
    path = along_orbits(w, theta)
    flat = PhaseSpace(*(column.ravel() for column in path))
    orbit = np.repeat(focal_length(w, theta, "orbit"), path.R.shape[1])

    def scatter(delta):
        aa = action_angle(flat, theta, delta=delta)
        values = np.reshape([aa.J_R, aa.J_z], (2, *path.R.shape))
        return np.percentile(values.std(-1) / values.mean(-1), 90, axis=1)

    shell, median = scatter("shell"), scatter(orbit)
    assert shell[0] < median[0] / 2 and shell[1] < 1.25 * median[1]


def test_shell_is_smooth_in_theta():
    """ln J_z is within 1e-5 of a quartic in m_disk, where Delta is that of the same m_disk."""
    w, grid = disk_stars(100), np.linspace(0.8, 1.2, 21)
    J_z = np.log([action_angle(w, Parameters(m_disk=m)).J_z for m in grid])
    x = 5 * (grid - 1)
    assert np.abs(J_z - np.polynomial.polynomial.polyval(x, np.polynomial.polynomial.polyfit(x, J_z, 4)).T).max() < 1e-5


def test_given_as_number_array_or_word():
    w, theta = disk_stars(5), Parameters()
    one = action_angle(w, theta, delta=4.0)
    for same in (np.full(5, 4.0), [4.0] * 5, 4):
        np.testing.assert_array_equal(action_angle(w, theta, delta=same).J_z, one.J_z)
    for word in DELTAS:
        by_word, by_array = (action_angle(w, theta, delta=d) for d in (word, focal_length(w, theta, word)))
        # that of shells has a Delta of its own for J_R, and so a program of its own
        np.testing.assert_allclose(by_word.J_z, by_array.J_z, rtol=1e-12 if word == "shell" else 0)
    np.testing.assert_array_equal(action_angle(w, theta), action_angle(w, theta, delta="shell"))


def test_unknown_word():
    with pytest.raises(InputError, match="'shell', 'orbit', 'local'; got 'median'"):
        action_angle(disk_stars(2), Parameters(), delta="median")
