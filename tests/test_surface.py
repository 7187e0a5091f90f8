"""The response surface: exact on polynomials, honest about the rest, and silent outside its region."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otibayes.base.response_surface import Evaluations, Region, chebyshev, contains, design, distance, draw, evaluate

WIDE = np.full(3, 1e3)
BALL = Region(np.array([1.0, 0.3, 20.0]), np.diag([5.0, 10.0, 0.1]), 2.0, -WIDE, WIDE)
CUT = Region(BALL.centre, BALL.whitening, 2.0, np.array([0.9, 0.25, 0.0]), WIDE, lambda t: t[0] + t[1] < 1.5)


def cubic(t):
    x, y, z = t[0], t[1], t[2] / 20
    return {"scalar": np.asarray(1 + x * y * z - 2 * x**3), "matrix": np.array([[y**2, z], [x * z**2, 0.0]])}


def smooth(t):
    return np.array([np.exp(-t[0]) * np.sin(4 * t[1]), 1 / (1 + (t[2] / 40) ** 2)])


def expand(function, region, degree):
    """The surface from no more evaluations than it needs."""
    known = Evaluations(lambda points: [function(point) for point in points])
    known.cover(region, degree)
    return known.surface(region, degree)


@pytest.mark.parametrize("region", [BALL, CUT])
def test_polynomials_are_exact(region):
    surface = expand(cubic, region, degree=3)
    for theta in draw(region, 5, seed=9):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), evaluate(surface, theta), cubic(theta))


def test_error_falls_with_degree():
    points, errors = draw(BALL, 40, seed=77, even_radius=True), []
    true = np.stack([smooth(t) for t in points])
    for degree in (1, 3, 5):
        surface = expand(smooth, BALL, degree=degree)
        errors.append(np.abs(np.asarray(jax.vmap(lambda t, s=surface: evaluate(s, t))(points)) - true).max())
    assert errors[2] < errors[1] / 5 < errors[0] / 25


def test_a_lean_surface_is_the_same_on_the_ball():
    surface = expand(cubic, CUT, degree=3)
    lean = surface.lean()
    assert lean.combine.shape == (56, 32)  # sizes that other surfaces have: all products of degree five
    for theta in draw(CUT, 5, seed=9):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), evaluate(lean, theta), evaluate(surface, theta)
        )


def test_gradient_and_jit():
    surface = expand(smooth, BALL, degree=5)
    theta = np.array([1.1, 0.32, 17.0])
    gradient = jax.jit(jax.grad(lambda t: evaluate(surface, t)[0]))(theta)
    expected = [-np.exp(-1.1) * np.sin(1.28), 4 * np.exp(-1.1) * np.cos(1.28), 0.0]
    np.testing.assert_allclose(gradient, expected, atol=1e-3)


def test_outside_is_refused():
    surface = expand(cubic, CUT, degree=3)
    centre = np.asarray(CUT.centre)
    for outside in np.array([[0, 0, 21.0], [-0.11, 0, 0], [0.15, 0.06, 0]]) + centre:
        assert not contains(CUT, outside)
        assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(evaluate(surface, outside)))
    assert contains(CUT, centre)


def test_a_design_stays_inside_and_are_the_same_for_a_seed():
    chosen = design(CUT, 3, seed=4)
    assert 28 <= len(chosen) <= 36  # 1.6 times 20 terms, roughly
    assert all(contains(CUT, node) for node in chosen)
    np.testing.assert_array_equal(chosen, design(CUT, 3, seed=4))
    assert len(design(CUT, 3, seed=4, known=chosen)) == 0
    crowded = np.repeat(chosen[:5], 20, 0)  # many, but they tell five terms
    assert len(design(CUT, 3, seed=4, known=crowded)) >= 20 - 5
    basis = np.stack([chebyshev(jnp.asarray(CUT.whitening @ (n - CUT.centre) / CUT.size), 3) for n in design(BALL, 3)])
    assert np.linalg.cond(basis) < 40


def test_held_out_points_are_spread_in_radius():
    radii = distance(BALL, draw(BALL, 200, seed=1, even_radius=True))
    assert 0.35 < np.median(radii) < 0.65


def test_a_region_without_room_is_an_error():
    nowhere = Region(BALL.centre, BALL.whitening, 2.0, -WIDE, WIDE, lambda t: t[0] > 50)
    with pytest.raises(ValueError, match="move or shrink"):
        draw(nowhere, 1, seed=0)


def test_a_larger_region_reuses_what_is_known():
    asked = []

    def function(points):
        asked.extend(points)
        return [cubic(point) for point in points]

    small, known = Region(BALL.centre, BALL.whitening, 1.6, -WIDE, WIDE), Evaluations(function)
    known.cover(small, 3)
    first = len(asked)
    known.cover(BALL, 3)
    assert 6 < len(asked) - first < first - 6  # those towards the boundary
    np.testing.assert_array_equal(known.theta, asked)
    for theta in draw(BALL, 5, seed=9):
        found = evaluate(known.surface(BALL, 3), theta)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), found, cubic(theta))
    known.cover(BALL, 3)
    assert len(asked) == len(known.theta)
