"""Where fudges fail: planar, circular, turning points, on the plane, polar, radial, barely bound, unbound, far out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from staeckel_decimal import milky_way, reference

from otibayes.base.parameters import Parameters
from otibayes.base.settings import DELTAS
from otibayes.dynamics import MILKY_WAY, PhaseSpace, Status, action_angle, staeckel, star_actions

THETA, DELTA = Parameters(), 4.0


def planar_force(R):
    return jax.grad(MILKY_WAY.potential)(R, 0.0, THETA)


def epicycle(R):
    """v_circ, kappa and nu at one radius in the plane."""
    force, slope = float(planar_force(R)), float(jax.grad(planar_force)(R))
    nu2 = jax.grad(jax.grad(MILKY_WAY.potential, 1), 1)(R, 1e-7, THETA)
    return np.sqrt(R * force), np.sqrt(slope + 3 * force / R), float(np.sqrt(nu2))


V, KAPPA, NU = epicycle(8.0)
DEPTH = float(MILKY_WAY.potential(staeckel.FAR, 0.0, THETA) - MILKY_WAY.potential(8.0, 0.4, THETA))
BARELY = np.sqrt(2 * DEPTH * (1 - 1e-3) - 20.0**2 - 15.0**2)
EDGES = {  # R, z [kpc], vR, vT, vz [km/s]
    "planar": (8.0, 0.0, 20.0, 210.0, 0.0),
    "planar at apocentre": (8.0, 0.0, 0.0, 210.0, 0.0),
    "circular": (8.0, 0.0, 0.0, V, 0.0),
    "near-circular": (8.0, 0.0, 1e-8, V, 1e-8),
    "near-circular, off the plane": (8.0, 1e-8, 1e-8, V, 1e-8),
    "radial turning point": (8.0, 0.4, 0.0, 210.0, 15.0),
    "vertical turning point": (8.0, 0.4, 20.0, 210.0, 0.0),
    "both turning points": (8.0, 0.4, 0.0, 210.0, 0.0),
    "z exactly 0": (8.0, 0.0, 20.0, 210.0, 15.0),
    "z exactly -0": (8.0, -0.0, 20.0, 210.0, -15.0),
    "J_z tiny": (8.0, 1e-6, 50.0, 210.0, 1e-6),
    "J_R tiny": (8.0, 0.0, 1e-6, V, 1.0),
    "5 kpc up": (8.0, 5.0, 20.0, 180.0, 10.0),
    "5 kpc down": (8.0, -5.0, 20.0, 180.0, 60.0),
    "retrograde": (8.0, 0.4, 20.0, -210.0, 15.0),
    "nearly radial": (8.0, 0.4, 100.0, 1e-2, 15.0),
    "polar": (0.5, 8.0, 20.0, 50.0, 15.0),
    "barely bound": (8.0, 0.4, 20.0, BARELY, 15.0),
    "50 kpc": (50.0, 10.0, 30.0, 150.0, 40.0),
    "50 kpc, planar": (50.0, 0.0, 30.0, 150.0, 0.0),
}
NAMES = list(EDGES)
FIELDS = ("J_R", "L_z", "J_z", "theta_R", "theta_phi", "theta_z", "Omega_R", "Omega_phi", "Omega_z")


def stars(rows):
    R, z, vR, vT, vz = np.array(rows, float).T
    return PhaseSpace(R, np.full_like(R, 0.3), z, vR, vT, vz)


@pytest.fixture(scope="module")
def found():
    result = action_angle(stars(list(EDGES.values())), THETA, delta=DELTA)
    return {name: type(result)(*(column[i] for column in result)) for i, name in enumerate(NAMES)}


@pytest.mark.parametrize("name", NAMES)
def test_finite_and_in_range(found, name):
    star = found[name]
    assert star.status == Status.OK
    assert np.all(np.isfinite(star))
    assert star.J_R >= 0 and star.J_z >= 0
    assert min(star.theta_R, star.theta_phi, star.theta_z) >= 0
    assert max(star.theta_R, star.theta_phi, star.theta_z) <= 2 * np.pi
    assert star.Omega_R > 0 and star.Omega_z > 0 and star.Omega_phi * star.L_z > 0


# Those with neither action exactly zero, nor so large that ten nodes are few
EXACT = {"near-circular, off the plane": 1e-4, "J_R tiny": 1e-5, "retrograde": 1e-9, "5 kpc up": 1e-6, "50 kpc": 1e-5}
EXACT |= {name: 1e-8 for name in ("radial turning point", "vertical turning point", "both turning points", "J_z tiny")}
EXACT |= {"z exactly 0": 1e-8, "5 kpc down": 1e-7}


@pytest.mark.parametrize("name", EXACT)
def test_right_to_fifty_digits(found, name):
    R, z, vR, vT, vz = EDGES[name]
    exact, rtol = reference((R, 0.3, z, vR, vT, vz), DELTA, milky_way(THETA)), EXACT[name]
    for field in ("J_R", "J_z", "Omega_R", "Omega_z", "Omega_phi"):
        np.testing.assert_allclose(getattr(found[name], field), getattr(exact, field), rtol=rtol, err_msg=field)
    for field in ("theta_R", "theta_z"):
        gap = (getattr(found[name], field) - getattr(exact, field) + np.pi) % (2 * np.pi) - np.pi
        assert abs(gap) < max(1e-6, 100 * rtol), field


def test_epicycle_limit(found):
    # J = E / kappa, E / nu; V is the circular speed at R = 8 kpc, so the only radial energy is that of vR
    star = found["near-circular"]
    np.testing.assert_allclose([star.J_R, star.J_z], [0.5e-16 / KAPPA, 0.5e-16 / NU], rtol=0.02, atol=2e-21)
    star = found["near-circular, off the plane"]
    np.testing.assert_allclose(star.J_z, 0.5 * (1e-16 + (NU * 1e-8) ** 2) / NU, rtol=1e-3)
    np.testing.assert_allclose(star.theta_z, np.arctan2(NU * 1e-8, 1e-8), rtol=1e-3)
    np.testing.assert_allclose([star.Omega_R, star.Omega_phi, star.Omega_z], [KAPPA, V / 8, NU], rtol=1e-6)
    for name in ("planar", "planar at apocentre", "circular", "50 kpc, planar"):
        assert found[name].J_z < 1e-18
    assert found["circular"].J_R < 1e-18
    np.testing.assert_allclose([found["circular"].Omega_R, found["circular"].Omega_phi], [KAPPA, V / 8], rtol=1e-9)


def test_symmetries(found):
    forward, retrograde = (
        dict(zip(FIELDS, action_angle(stars([(8.0, 0.4, 20.0, v, 15.0)]), THETA, delta=DELTA), strict=False))
        for v in (210.0, -210.0)
    )
    for name in ("J_R", "J_z", "theta_R", "theta_z", "Omega_R", "Omega_z"):
        np.testing.assert_allclose(retrograde[name], forward[name], rtol=1e-13)
    assert retrograde["L_z"] == -forward["L_z"] and retrograde["Omega_phi"] == -forward["Omega_phi"]
    # on the plane, upwards is theta_z = 0 less the radial phase's share; downwards is half a turn on
    half_turn = found["z exactly -0"].theta_z - found["z exactly 0"].theta_z
    np.testing.assert_allclose(half_turn % (2 * np.pi), np.pi, rtol=1e-12)
    assert found["z exactly 0"].J_z == pytest.approx(found["z exactly -0"].J_z, rel=1e-13)


def test_turning_points_have_their_angles(found):
    assert found["both turning points"].theta_R == pytest.approx(np.pi, abs=1e-9)
    assert found["both turning points"].theta_z == pytest.approx(np.pi / 2, abs=1e-9)
    assert found["planar at apocentre"].theta_R == pytest.approx(np.pi, abs=1e-9)


def test_unbound_and_hopeless_stars_are_nan_with_a_status():
    rows = [(8.0, 0.4, 20.0, 800.0, 15.0), (8.0, 0.4, 20.0, 210.0, 15.0), (8.0, 0.4, 2e3, -210.0, 15.0)]
    w = stars(rows)
    for method in ("staeckel", "galpy"):
        result = action_angle(w, THETA, method=method, delta=DELTA)
        np.testing.assert_array_equal(result.status, [Status.UNBOUND, Status.OK, Status.UNBOUND])
        for name in FIELDS:
            np.testing.assert_array_equal(np.isnan(getattr(result, name)), [True, False, True])
    for delta in DELTAS:
        assert np.all(np.isfinite(action_angle(w, THETA, delta=delta).J_z) == [False, True, False])


def test_no_angular_momentum_at_all():
    w = stars([(8.0, 0.4, 100.0, v, 15.0) for v in (0.0, 1e-3, 1e-2)])
    found = action_angle(w, THETA, delta=DELTA)
    assert np.all(found.status == Status.OK) and found.L_z[0] == 0 and np.all(np.isfinite(found))
    exact = jax.vmap(lambda w: jnp.stack(many(w, DELTA, THETA, nodes=(3000, 100))))(PhaseSpace(*map(jnp.asarray, w)))
    np.testing.assert_allclose(found.J_R, exact[:, 0], rtol=1e-3)
    np.testing.assert_allclose(found.J_z, exact[:, 2], rtol=1e-7)
    planar = stars([(8.0, 0.0, v, 0.0, 0.0) for v in (100.0, 0.0)])
    for delta in DELTAS:
        assert np.all(action_angle(planar, THETA, delta=delta).status == Status.OK)


def everything(w, theta, delta):
    return jnp.stack(staeckel.actions_angles(w, delta, theta, MILKY_WAY.potential))


forward = jax.jit(jax.vmap(jax.jacfwd(everything, (0, 1)), (0, None, None)))
backward = jax.jit(jax.vmap(jax.jacrev(lambda w, theta: star_actions(w, DELTA, theta), (0, 1)), (0, None)))
many = partial(staeckel.actions, potential=MILKY_WAY.potential, nodes=(100, 100))
converged = jax.jit(jax.vmap(jax.jacfwd(lambda w, theta: jnp.stack(many(w, DELTA, theta)), (0, 1)), (0, None)))
values = jax.jit(jax.vmap(everything, (0, None, None)))


def table(tree):
    return np.concatenate([np.asarray(leaf)[..., None] for leaf in jax.tree.leaves(tree)], -1)


@pytest.fixture(scope="module")
def slopes():
    w = PhaseSpace(*map(jnp.asarray, stars(list(EDGES.values()))))
    return table(forward(w, THETA, DELTA)), table(backward(w, THETA)), table(converged(w, THETA))


# Where ten nodes in u and eighteen in v are few, of the largest slope of the same action: the passage by the centre
FEW_NODES = {"nearly radial": 0.04, "polar": 0.02, "barely bound": 1e-5, "5 kpc down": 1e-5, "50 kpc": 3e-4}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_and_those_of_many_nodes(slopes, name):
    by_angles, by_actions, expected = (slope[NAMES.index(name)] for slope in slopes)
    assert np.all(np.isfinite(by_angles)) and np.all(np.isfinite(by_actions))
    scale = np.abs(expected).max(1, keepdims=True)
    assert np.all(np.abs(by_actions - expected) < FEW_NODES.get(name, 2e-6) * scale + 1e-9)
    if name not in FEW_NODES:
        np.testing.assert_allclose(by_angles[:3], by_actions, rtol=1e-6, atol=1e-9)


def test_gradients_at_turning_points_and_on_the_plane(slopes):
    rows = ["radial turning point", "vertical turning point", "both turning points", "z exactly 0", "retrograde"]
    w = stars([EDGES[name] for name in rows])
    for column, step in ((2, 1e-4), (3, 0.01), (5, 0.01)):
        sides = {}
        for k in (-2, -1, 1, 2):
            moved = list(map(jnp.asarray, w))
            moved[column] = moved[column] + k * step
            sides[k] = np.asarray(values(PhaseSpace(*moved), THETA, DELTA))
        inner, outer = sides[1] - sides[-1], sides[2] - sides[-2]
        for pair in (inner, outer):
            pair[:, 3:6] = (pair[:, 3:6] + np.pi) % (2 * np.pi) - np.pi
        expected = (8 * inner - outer) / (12 * step)
        got = slopes[0][[NAMES.index(name) for name in rows]][..., column]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=PhaseSpace._fields[column])


signs = st.sampled_from([-1.0, 1.0])
decades = st.floats(-9.0, 2.6).map(lambda x: 10.0**x)
speeds = st.one_of(st.just(0.0), st.tuples(signs, decades).map(lambda x: x[0] * x[1]))
heights = st.one_of(st.just(0.0), st.tuples(signs, st.floats(-9.0, 1.0)).map(lambda x: x[0] * 10.0 ** x[1]))
rotation = st.tuples(signs, st.floats(-2.0, 2.6)).map(lambda x: x[0] * 10.0 ** x[1])
thetas = st.tuples(st.floats(0.4, 1.6), st.floats(0.05, 1.0)).map(lambda x: Parameters(*x))


orbits = st.tuples(st.floats(-1.0, 1.8).map(lambda x: 10.0**x), heights, speeds, rotation, speeds)


@settings(max_examples=40)
@given(st.lists(orbits, min_size=8, max_size=8), thetas)
@example([(0.1386, 2.6e-7, -1.6e-8, -0.0277, -0.00584)], Parameters(0.474, 0.542))  # almost at rest, deep inside
@example([(13.7667, 6.99257, 6.7e-9, 0.14628, 0.01238)], Parameters(0.418, 0.071))  # falling from rest
def test_no_bound_star_is_nan(rows, theta):
    assume(bool(MILKY_WAY.allowed(theta)))
    for delta in (DELTA, "local", "shell"):
        result = action_angle(stars(rows), theta, delta=delta)
        solved = result.status == Status.OK
        assert (solved | (result.status == Status.UNBOUND)).all()
        assert (np.isfinite(result).all(0) == solved).all()
        assert (result.J_R[solved] >= 0).all() and (result.J_z[solved] >= 0).all()
