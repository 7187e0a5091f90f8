"""The Staeckel fudge against galpy, a 50-digit evaluation, potentials with known actions, and its own differences."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from staeckel_decimal import milky_way, reference

from otibayes.base import constants as const
from otibayes.base.parameters import Parameters
from otibayes.dynamics import MILKY_WAY, MassModel, PhaseSpace, action_angle, galactocentric, staeckel, star_actions

with warnings.catch_warnings():  # galpy says at import which optional extensions it lacks
    warnings.simplefilter("ignore")
    import galpy.actionAngle  # noqa: F401

ANGLES = ("theta_R", "theta_phi", "theta_z")
TOLERANCES = {"J_R": 1e-8, "J_z": 1e-8, "theta_R": 1e-6, "theta_z": 1e-6}
TOLERANCES |= {"theta_phi": 1e-6, "Omega_R": 1e-6, "Omega_phi": 1e-6, "Omega_z": 1e-6}
MASS, A, C = 1e11, 3.0, 1.0


def disk_stars(n, seed):
    rng = np.random.default_rng(seed)
    R, phi, z = rng.uniform(5, 11, n), rng.uniform(-np.pi, np.pi, n), rng.normal(0, 0.4, n)
    return PhaseSpace(R, phi, z, rng.normal(0, 35, n), rng.normal(220, 25, n), rng.normal(0, 20, n))


def wrapped(angle):
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def differences(ours, theirs):
    """Relative, of actions and frequencies; in radians, of angles."""
    return {
        name: np.abs(wrapped(getattr(ours, name) - getattr(theirs, name)))
        if name in ANGLES
        else np.abs(getattr(ours, name) / getattr(theirs, name) - 1)
        for name in TOLERANCES
    }


@pytest.fixture(scope="module")
def against_galpy():
    """10,000 disk stars over m_disk and h_z: (theta, w, delta, differences, ours, galpy's) of each mass model."""
    grid = [Parameters(m_disk=m, h_z=h) for m in (0.5, 0.75, 1.0, 1.25, 1.5) for h in (0.1, 0.28, 0.45, 0.6)]
    results = []
    for seed, theta in enumerate(grid):
        w = disk_stars(500, seed)
        delta = np.random.default_rng(seed).uniform(2.5, 5.5, 500)
        ours, theirs = (action_angle(w, theta, method=m, delta=delta) for m in ("staeckel", "galpy"))
        results.append((theta, w, delta, differences(ours, theirs), ours, theirs))
    return results


def test_equal_to_galpy_at_equal_delta(against_galpy):
    for name, tolerance in TOLERANCES.items():
        difference = np.concatenate([result[3][name] for result in against_galpy])
        assert difference.size == 10_000
        assert np.mean(difference < tolerance) >= 0.999, name


def test_right_where_galpy_differs_most(against_galpy):
    for theta, w, delta, difference, ours, _ in against_galpy[::3]:
        for name in ("J_z", "theta_z"):
            i = np.argmax(difference[name])
            exact = reference([column[i] for column in w], delta[i], milky_way(theta))
            errors = differences(pick(ours, i), exact)
            assert errors["J_R"] < 1e-7 and errors["J_z"] < 1e-6 and errors["theta_z"] < 2e-5, (theta, i, errors)


def pick(result, i):
    return type(result)(*(column[i] for column in result))


# z, vz [kpc, km/s] of embedded stars for which galpy's J_z is off by a factor of 0.1 to 15, and a near-circular one
HARD = {
    "planar": (9.471225928805806, 0.12935, 1.9490582238577275e-05, -13.532034404596972, 226.534267, 0.022938684795),
    "below": (8.391002411646715, 0.09077, -0.0001259544801392072, 20.780737507515187, 240.525625, -0.0192105738518),
    "thin": (8.546000579332865, -0.10493, 1.800039996333741e-05, 34.08447519375117, 234.446472, 0.00236984035),
    "near-circular": (7.459321791050077, -0.06032, 0.02985331556624638, -0.35425046496609247, 228.547024, 34.587916),
    "high": (8.0, 0.3, 5.0, 20.0, 180.0, 60.0),
    "eccentric": (8.0, 0.3, 0.4, 20.0, -30.0, 15.0),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("theta", [Parameters(m_disk=1.1, h_z=0.32), Parameters(m_disk=0.6, h_z=0.5)], ids=str)
def test_against_fifty_digits(name, theta):
    w = PhaseSpace(*HARD[name])
    ours = pick(action_angle(w, theta, delta=5.0), 0)
    exact = reference(w, 5.0, milky_way(theta))
    # J_R of the near-circular orbit is a millionth of L_z; ten nodes are few where J_R is twice L_z
    angle = {"eccentric": 1e-5, "high": 1e-6}.get(name, 1e-7)
    rtol = {"near-circular": 1e-8, "high": 2e-8, "eccentric": 2e-7}.get(name, 1e-9)
    for field in exact._fields:
        found, expected = getattr(ours, field), getattr(exact, field)
        if field in ANGLES:
            assert abs(wrapped(found - expected)) < angle, field
        else:
            np.testing.assert_allclose(found, expected, rtol=rtol, err_msg=field)


def kuzmin_kutuzov(R, z, theta):
    """Dejonghe & de Zeeuw 1988: a Staeckel potential, Delta^2 = a^2 - c^2."""
    product = A**2 * C**2 + C**2 * R**2 + A**2 * z**2
    return -const.G * MASS / jnp.sqrt(R**2 + z**2 + A**2 + C**2 + 2 * jnp.sqrt(product))


STAECKEL = MassModel({"all": kuzmin_kutuzov})
FOCAL = np.sqrt(A**2 - C**2)


@pytest.fixture(scope="module")
def staeckel_orbits():
    """Three orbits in the Kuzmin-Kutuzov potential at 150 times, and what we make of each point."""
    gradient = jax.jit(jax.grad(lambda R, z: kuzmin_kutuzov(R, z, None), (0, 1)))

    def motion(t, x):
        R, _, z, vR, vT, vz = x
        fR, fz = map(float, gradient(R, z))
        return [vR, vT / R, vz, vT**2 / R - fR, -vR * vT / R, -fz]

    times, orbits = np.linspace(0, 0.3, 150), []
    for start in (
        (6.0, 0.3, 0.2, 30.0, 190.0, 25.0),
        (7.0, 1.0, 2.0, -80.0, -90.0, 60.0),
        (4.0, 2.0, 0.0, 0.0, 200.0, 5.0),
    ):
        path = solve_ivp(motion, (0, times[-1]), start, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-12)
        orbits.append(
            (times, PhaseSpace(*path.y), action_angle(PhaseSpace(*path.y), Parameters(), delta=FOCAL, model=STAECKEL))
        )
    return orbits


def test_actions_are_constant_in_a_staeckel_potential(staeckel_orbits):
    for _, _, result in staeckel_orbits:
        for name in ("J_R", "L_z", "J_z", "Omega_R", "Omega_phi", "Omega_z"):
            np.testing.assert_allclose(getattr(result, name), getattr(result, name)[0], rtol=1e-9, err_msg=name)


def test_angles_advance_with_their_frequencies_in_a_staeckel_potential(staeckel_orbits):
    for times, _, result in staeckel_orbits:
        for name in ("R", "phi", "z"):
            angle, Omega = getattr(result, f"theta_{name}"), getattr(result, f"Omega_{name}")[0]
            assert np.abs(wrapped(angle - angle[0] - Omega * times)).max() < 1e-7, name
        assert np.ptp(np.abs(result.Omega_z * times)) > 2 * np.pi  # it did go round


ISOCHRONE_B = 2.0


def isochrone(R, z, _):
    return -const.G * MASS / (ISOCHRONE_B + jnp.sqrt(ISOCHRONE_B**2 + R**2 + z**2))


isochrone_actions = jax.jit(jax.vmap(lambda w, delta: jnp.stack(staeckel.actions(w, delta, None, isochrone))))


def isochrone_exact(w):
    """J_R, J_z of an isochrone (Binney & Tremaine 2008, eq. 3.225)."""
    L = np.sqrt((w.R * w.vT) ** 2 + (w.z * w.vT) ** 2 + (w.z * w.vR - w.R * w.vz) ** 2)
    E = 0.5 * (w.vR**2 + w.vT**2 + w.vz**2) + isochrone(w.R, w.z, None)
    k = const.G * MASS
    return k / np.sqrt(-2 * E) - 0.5 * (L + np.sqrt(L**2 + 4 * k * ISOCHRONE_B)), L - np.abs(w.R * w.vT)


def test_planar_radial_action_is_exact_for_any_delta():
    w = PhaseSpace(*(jnp.full(4, x) for x in (7.0, 0.0, 0.0, 60.0, 150.0, 0.0)))
    J_R, _, J_z = isochrone_actions(w, jnp.array([0.05, 1.0, 4.0, 20.0])).T
    np.testing.assert_allclose(J_R, isochrone_exact(w)[0], rtol=1e-10)
    assert np.all(np.abs(J_z) < 1e-18)


def test_spherical_limit():
    delta = jnp.array([0.2, 0.1, 0.05, 0.025])
    w = PhaseSpace(*(jnp.full(4, x) for x in (7.0, 0.0, 2.0, 60.0, 150.0, 50.0)))
    J_R, _, J_z = isochrone_actions(w, delta).T
    for found, exact in zip((J_R, J_z), isochrone_exact(w), strict=True):
        error = np.abs(found - exact)
        np.testing.assert_allclose(error[1:] / error[:-1], 0.25, rtol=0.02)  # in Delta^2
        assert error[-1] < 1e-4 * exact[0]


# Derivatives: heliocentric stars (N, 6) [kpc, km/s], each at its own theta
STARS = jnp.array(
    [
        [0.3, 0.5, 0.4, 20.0, -30.0, 5.0],
        [-1.5, 0.2, -0.05, -60.0, 10.0, 12.0],
        [0.1, -0.1, 0.02, 10.0, -20.0, -20.0],
        [2.0, 0.4, 1.3, 90.0, -150.0, 40.0],
    ]
)
THETAS = jnp.array([[1.0, 0.28, 20.8, 7.78], [0.6, 0.5, -10.0, 6.0], [1.3, 0.4, 30.0, 9.0], [0.8, 0.3, 5.0, 8.0]])
DELTA = 4.0


def J(star, theta):
    theta = Parameters(*theta)
    return star_actions(galactocentric(star, theta), DELTA, theta)


def everything(star, theta):
    theta = Parameters(*theta)
    w = galactocentric(star, theta)
    return jnp.stack(staeckel.actions_angles(w, DELTA, theta, MILKY_WAY.potential))


def each(f):
    return jax.jit(jax.vmap(f))


def difference(f, argument, steps):
    """Five-point central differences of f(STARS, THETAS) by one argument: (N, outputs, inputs); angles unwrapped."""
    columns = []
    for i, step in enumerate(steps):
        values = {}
        for k in (-2, -1, 1, 2):
            arguments = [STARS, THETAS]
            arguments[argument] = arguments[argument].at[:, i].add(k * step)
            values[k] = np.asarray(f(*arguments))
        inner, outer = values[1] - values[-1], values[2] - values[-2]
        if f is everything_of:
            inner[:, 3:6], outer[:, 3:6] = wrapped(inner[:, 3:6]), wrapped(outer[:, 3:6])
        columns.append((8 * inner - outer) / (12 * step))
    return np.stack(columns, -1)


THETA_STEPS, STAR_STEPS = (1e-3, 3e-4, 0.1, 0.01), (1e-3,) * 3 + (0.03,) * 3
J_of, everything_of = each(J), each(everything)
dJ_of = each(jax.jacfwd(J, 1))


def assert_same(found, expected, rtol=1e-6, atol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("argument", [0, 1], ids=["phase space", "theta"])
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_gradients_of_actions(argument, mode):
    expected = difference(J_of, argument, (STAR_STEPS, THETA_STEPS)[argument])
    assert_same(each(mode(J, argument))(STARS, THETAS), expected)
    assert np.all(np.abs(expected[:, 0]) > 1e-4)  # J_R depends on all of them


def test_second_derivatives_of_actions():
    along = jnp.array([0.3, 0.1, 20.0, 2.0])  # all four parameters at once: a sum over the whole Hessian

    def slope(star, theta):
        return jax.jvp(lambda t: J(star, t), (theta,), (along,))[1]

    curvature = each(lambda star, theta: jax.jvp(lambda t: slope(star, t), (theta,), (along,))[1])(STARS, THETAS)
    step = 1e-3
    inner, outer = (
        (dJ_of(STARS, THETAS + h * along[None]) - dJ_of(STARS, THETAS - h * along[None])) @ along
        for h in (step, 2 * step)
    )
    assert_same(curvature, (8 * inner - outer) / (12 * step), rtol=1e-5, atol=1e-7)


def test_gradients_of_angles_and_frequencies():
    by_star, by_theta = each(jax.jacfwd(everything, (0, 1)))(STARS, THETAS)
    assert_same(by_theta, difference(everything_of, 1, THETA_STEPS), rtol=1e-5, atol=1e-6)
    assert_same(by_star, difference(everything_of, 0, STAR_STEPS), rtol=1e-5, atol=1e-5)
    assert_same(everything_of(STARS, THETAS)[:, :3], J_of(STARS, THETAS), rtol=1e-12)
