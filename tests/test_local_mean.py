"""Equation 2 and A1-A6 of PW21 against a brute-force version on the physically resampled catalogue."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from otibayes.base.errors import InputError
from otibayes.classical.local_mean import deviation, deviation_blocks, local_mean, nearest
from otibayes.classical.settings import ClassicalSettings

K = 8
FEW = ClassicalSettings(neighbours=K)


@pytest.fixture
def catalogue():
    rng = np.random.default_rng(3)
    actions = np.stack([rng.exponential(15, 150), rng.normal(1800, 40, 150), rng.exponential(5, 150)], -1)
    labels = np.stack([np.sqrt(actions[:, 2]) + 0.01 * actions[:, 1], rng.normal(5.0, 1.0, 150)], -1)
    return actions, labels


def independent_mean(x, y, star):
    """Appendix A, line by line, for one label."""
    displacement = x.mean(0) - star
    xi = (x - star) @ displacement
    if not xi.any():
        return y.mean()
    w = xi * xi.sum() - (xi**2).sum()
    return (w * y).sum() / w.sum()


def brute_force(actions, labels, draws, own_copies):
    """Equation 2 for each star drawn, on the resampled catalogue itself; keyed by the star's original index."""
    found = {}
    for i in draws:
        distance = np.linalg.norm(actions[draws] - actions[i], axis=1)
        if own_copies:
            distance[np.flatnonzero(draws == i)[0]] = np.inf
        else:
            distance[draws == i] = np.inf
        near = draws[np.argsort(distance, kind="stable")[:K]]
        found[i] = [labels[i, e] - independent_mean(actions[near], labels[near, e], actions[i]) for e in range(2)]
    return found


@pytest.mark.parametrize("own_copies", [False, True])
def test_resample_by_weights_equals_the_resampled_catalogue(catalogue, own_copies):
    actions, labels = catalogue
    draws = np.random.default_rng(5).integers(150, size=(3, 150))
    counts = np.array([np.bincount(d, minlength=150) for d in draws])
    result = deviation(actions, labels, counts, ClassicalSettings(neighbours=K, own_copies=own_copies))
    for b in range(3):
        for star, expected in brute_force(actions, labels, draws[b], own_copies).items():
            # single precision where there are several resamples; stars at the edge, far from 8 neighbours, magnify it
            np.testing.assert_allclose(result[b, star], expected, rtol=1e-3, atol=2e-5)
        alone = deviation(actions, labels, counts[[b]], ClassicalSettings(neighbours=K, own_copies=own_copies))
        for star, expected in brute_force(actions, labels, draws[b], own_copies).items():
            np.testing.assert_allclose(alone[0, star], expected, rtol=1e-9, atol=1e-9)


def test_own_copies_leak_the_label(catalogue):
    actions, labels = catalogue
    counts = np.full((1, 150), 3)
    assert (
        deviation(actions, labels, counts, ClassicalSettings(neighbours=K, own_copies=True)).std()
        < 0.9 * deviation(actions, labels, counts, FEW).std()
    )


def test_resample_that_needs_far_more_neighbours(catalogue):
    actions, labels = catalogue
    far = np.argsort(-np.linalg.norm(actions - actions[0], axis=1))[:12]
    counts = np.zeros((1, 150), int)
    counts[0, far], counts[0, 0] = 1, 1
    result = deviation(actions, labels, counts, FEW)
    expected = brute_force(actions, labels, np.flatnonzero(counts[0]), own_copies=False)
    np.testing.assert_allclose(result[0, 0], expected[0], rtol=1e-9)


def test_plane_is_reproduced_along_the_displacement():
    """A label linear in the one action that varies has no deviation, even at the edge of the sample."""
    actions = np.stack([np.linspace(0, 1, 50) ** 2, np.zeros(50), np.zeros(50)], -1)
    labels = 3 + 2 * actions[:, :1]
    assert np.abs(deviation(actions, labels, None, FEW)).max() < 1e-12
    assert np.abs(deviation(actions, labels, None, ClassicalSettings(neighbours=K, naive_mean=True))).max() > 0.1


def test_zero_displacement_takes_the_naive_mean():
    x = np.array([[[1.0, -1.0, 0, 0], [0, 0, 2.0, -2.0], [0, 0, 0, 0]]])
    y = np.array([[[1.0, 2.0, 3.0, 5.0]]])
    counts = np.ones((4, 1, 1))
    assert local_mean(counts, x, y)[0, 0, 0] == 2.75
    assert local_mean(counts, 1e-170 * (x + 0.1), y)[0, 0, 0] == 2.75  # xi^2 underflows


def test_sums_are_the_same_however_threads_run(catalogue):
    actions, labels = np.tile(catalogue[0], (10, 1)), np.tile(catalogue[1], (10, 1))
    actions = actions + 1e-3 * np.arange(1500)[:, None]
    counts = np.random.default_rng(0).poisson(1, (3, 1500))
    use = lambda stars, found: found.sum(0)  # noqa: E731
    totals = [sum(deviation_blocks(use, actions, labels, counts, FEW)) for _ in range(3)]
    assert (totals[0] == totals[1]).all() and (totals[0] == totals[2]).all()


def test_a_star_is_not_its_own_neighbour_among_equals():
    """Of seven stars in one place any five others will do, but not the star itself."""
    points = np.concatenate([np.zeros((7, 3)), np.random.default_rng(0).normal(size=(20, 3)) + 9])
    found = nearest(cKDTree(points), np.arange(7), 5)
    assert (found < 7).all() and not (found == np.arange(7)[:, None]).any()
    assert all(len(set(row)) == 5 for row in found)


def test_stars_with_the_same_actions_are_neighbours_of_each_other():
    actions = np.ones((20, 3))
    labels = np.arange(20.0)[:, None]
    assert np.isfinite(deviation(actions, labels, None, FEW)).all()


def test_refusals(catalogue):
    actions, labels = catalogue
    with pytest.raises(InputError, match="more than 64 stars, got 60"):
        deviation(actions[:60], labels[:60])
    with pytest.raises(ValueError, match="1 of 150 stars"):
        deviation(np.where(np.arange(150)[:, None] == 4, np.nan, actions), labels)
    with pytest.raises(InputError, match="fewer than 8 neighbours"):
        deviation(actions, labels, np.array([[20, 1, 1, 1] + [0] * 146]), FEW)
