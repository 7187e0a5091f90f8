"""The response surface: exact on polynomials, honest about the rest, and silent outside its region."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otibayes.base.surface import Region, chebyshev, contains, draw, evaluate, expand, nodes, radius

WIDE = np.full(3, 1e3)
BALL = Region(np.array([1.0, 0.3, 20.0]), np.diag([5.0, 10.0, 0.1]), 2.0, -WIDE, WIDE)
CUT = Region(BALL.centre, BALL.whitening, 2.0, np.array([0.9, 0.25, 0.0]), WIDE, lambda t: t[0] + t[1] < 1.5)


def cubic(t):
    x, y, z = t[0], t[1], t[2] / 20
    return {"scalar": np.asarray(1 + x * y * z - 2 * x**3), "matrix": np.array([[y**2, z], [x * z**2, 0.0]])}


def smooth(t):
    return np.array([np.exp(-t[0]) * np.sin(4 * t[1]), 1 / (1 + (t[2] / 40) ** 2)])


@pytest.mark.parametrize("region", [BALL, CUT])
def test_polynomials_are_exact(region):
    surface = expand(cubic, region, degree=3)
    for theta in draw(region, 5, seed=9):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), evaluate(surface, theta), cubic(theta))
    assert max(np.abs(e).max() for e in surface.held_out.error.values()) < 1e-9
    assert surface.held_out.error["matrix"].shape == (12, 2, 2)


def test_error_falls_with_degree_and_is_what_held_out_points_say():
    errors = []
    for degree in (1, 3, 5):
        surface = expand(smooth, BALL, degree=degree, held_out=40)
        elsewhere = draw(BALL, 40, seed=77, even_radius=True)
        true = np.stack([smooth(t) for t in elsewhere])
        error = np.abs(np.asarray(jax.vmap(lambda t, s=surface: evaluate(s, t))(elsewhere)) - true).max()
        stated = np.abs(surface.held_out.error).max()
        assert stated / 4 < error < 4 * stated
        errors.append(stated)
    assert errors[2] < errors[1] / 5 < errors[0] / 25


def test_gradient_and_jit():
    surface = expand(smooth, BALL, degree=5, held_out=0)
    theta = np.array([1.1, 0.32, 17.0])
    gradient = jax.jit(jax.grad(lambda t: evaluate(surface, t)[0]))(theta)
    expected = [-np.exp(-1.1) * np.sin(1.28), 4 * np.exp(-1.1) * np.cos(1.28), 0.0]
    np.testing.assert_allclose(gradient, expected, atol=1e-3)


def test_outside_is_refused():
    surface = expand(cubic, CUT, degree=3, held_out=0)
    centre = np.asarray(CUT.centre)
    for outside in np.array([[0, 0, 21.0], [-0.11, 0, 0], [0.15, 0.06, 0]]) + centre:
        assert not contains(CUT, outside)
        assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(evaluate(surface, outside)))
    assert contains(CUT, centre)


def test_nodes_stay_inside_and_are_the_same_for_a_seed():
    chosen = nodes(CUT, 3, seed=4)
    assert 28 <= len(chosen) <= 36  # 1.6 times 20 terms, roughly
    assert all(contains(CUT, node) for node in chosen)
    np.testing.assert_array_equal(chosen, nodes(CUT, 3, seed=4))
    assert len(nodes(CUT, 3, seed=4, known=chosen)) == 0
    crowded = np.repeat(chosen[:5], 20, 0)  # many, but they tell five terms
    assert len(nodes(CUT, 3, seed=4, known=crowded)) >= 20 - 5
    basis = np.stack([chebyshev(jnp.asarray(CUT.whitening @ (n - CUT.centre) / CUT.size), 3) for n in nodes(BALL, 3)])
    assert np.linalg.cond(basis) < 40


def test_held_out_points_are_spread_in_radius():
    radii = np.array([radius(BALL, t) for t in draw(BALL, 200, seed=1, even_radius=True)])
    assert 0.35 < np.median(radii) < 0.65


def test_a_region_without_room_is_an_error():
    nowhere = Region(BALL.centre, BALL.whitening, 2.0, -WIDE, WIDE, lambda t: t[0] > 50)
    with pytest.raises(ValueError, match="move or shrink"):
        draw(nowhere, 1, seed=0)


def test_values_come_through_the_map_in_order():
    seen = []

    def backwards(function, points):
        seen.append(len(points))
        return [function(p) for p in reversed(points)][::-1]

    expand(cubic, BALL, degree=1, held_out=3, map=backwards)
    assert len(seen) == 1 and seen[0] >= 4 + 3


def test_a_larger_region_reuses_what_is_known():
    small = Region(BALL.centre, BALL.whitening, 1.6, -WIDE, WIDE)
    first = expand(cubic, small, degree=3, held_out=6)
    second = expand(cubic, BALL, degree=3, held_out=6, reuse=first)
    assert 6 < second.nodes < first.nodes - 6  # the held-out ones, and those about the rim
    assert max(np.abs(e).max() for e in second.held_out.error.values()) < 1e-9
    assert len(second.evaluated[0]) == first.nodes + second.nodes
