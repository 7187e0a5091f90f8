"""Neighbours out of lists made at another theta: against the tree, where they are said to be sure and where not."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otibayes.classical.neighbours import candidates, nearest
from otibayes.classical.problem import Problem, Single, resamples
from scipy.spatial import cKDTree
from toy_galaxy import TRUTH, toy, toy_sample

from otibayes.classical.objective import Settings, coefficients
from otibayes.dynamics import MILKY_WAY


def by_tree(points, number):
    """Without our function: the point itself is the first that a query lists."""
    return cKDTree(points).query(points, k=number + 1)[1][:, 1:]


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(0, 0.2), st.integers(60, 200))
def test_sure_neighbours_are_the_trees(seed, moved, listed):
    """Of some of the stars, after all have moved, together and each by itself; one in a thousand may be wrong."""
    rng = np.random.default_rng(seed)
    before = rng.exponential(size=(2000, 3))
    chosen = np.flatnonzero(rng.random(2000) < 0.7)
    after = (before * (1 + moved * rng.normal(size=3)) + 0.1 * moved * rng.normal(size=before.shape))[chosen]
    found = candidates(before, listed).of(chosen).among(jnp.asarray(after))
    stars = rng.permutation(len(chosen))[:700]
    index, sure = found(stars, 12)
    same = (index == by_tree(after, 12)[stars]).all(1)
    assert (sure & ~same).sum() <= 1
    assert moved > 0.03 or sure.mean() > 0.9


def test_more_than_are_listed_are_never_sure():
    points = np.random.default_rng(0).normal(size=(100, 3))
    lists = candidates(points, 1000)
    assert lists.index.shape == (100, 99)  # all others
    found = lists.of(np.arange(50)).among(jnp.asarray(points[:50]))
    assert not found(np.arange(50), 100)[1].any()
    assert not found(np.arange(50), 60)[1].any()  # there are no more than 49
    np.testing.assert_array_equal(found(np.arange(50), 5)[0], by_tree(points[:50], 5))


def test_nearest_leaves_out_the_star_itself_among_equals():
    """Seven stars in one place: any five of the others, but not the star."""
    points = np.concatenate([np.zeros((7, 3)), np.random.default_rng(0).normal(size=(20, 3)) + 9])
    found = nearest(cKDTree(points), np.arange(7), 5)
    assert (found < 7).all() and not (found == np.arange(7)[:, None]).any()
    assert all(len(set(row)) == 5 for row in found)


@pytest.mark.parametrize("apart", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("given", [{}, {"own_copies": True}, {"detrended": True}])
def test_coefficients_do_not_depend_on_candidates(given, apart):
    """Near the theta of the lists, farther, and where hardly any neighbour is sure; on a resample, with copies."""
    stars, labels = toy_sample(1200, 3)
    counts = resamples(1200, 3, 1)
    problem = Problem(stars, labels, None, counts, toy, Settings(neighbours=16, **given), MILKY_WAY)
    theta = np.array(TRUTH) + apart * np.array([0.005, 0.002, 0.5, 0.02])
    lists = problem.candidates(np.array(TRUTH))
    for task in ((0, 1, theta), (1, 2, theta)):
        one, other = (Single(problem, candidates=c)(task).series for c in (None, lists))
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    together = coefficients(MILKY_WAY.Parameters(*theta), stars, labels, None, counts, toy, problem.settings).series
    np.testing.assert_allclose(problem(theta, lists).series, together, rtol=1e-6, atol=1e-9)
