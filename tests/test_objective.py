"""Equations 3 to 7 of PW21 against a version written out, and resamples by weights against repeated rows."""

import numpy as np
import pytest

from otibayes.classical.objective import coefficient_names, design, least_squares, objective


@pytest.fixture
def stars():
    rng = np.random.default_rng(1)
    return (
        rng.uniform(0, 2 * np.pi, 80),
        rng.normal(size=(2, 80, 3)),
        rng.uniform(0.5, 2, (80, 3)),
        rng.poisson(1, (2, 80)),
    )


def written_out(theta_z, y, sigma):
    M = np.column_stack(
        [np.ones_like(theta_z), np.cos(theta_z), np.sin(theta_z), np.cos(2 * theta_z), np.sin(2 * theta_z)]
    )
    C_inverse = np.diag(1 / sigma**2)
    return np.linalg.inv(M.T @ C_inverse @ M) @ M.T @ C_inverse @ y


def test_weighted_least_squares(stars):
    theta_z, y, sigma, counts = stars
    result = least_squares(theta_z, y, 1 / sigma**2, counts)
    for b in range(2):
        rows = np.repeat(np.arange(80), counts[b])
        for e in range(3):
            np.testing.assert_allclose(
                result[b, e], written_out(theta_z[rows], y[b, rows, e], sigma[rows, e]), rtol=1e-9
            )


def test_equal_weights_where_there_are_no_errors(stars):
    theta_z, y, _, _ = stars
    np.testing.assert_allclose(least_squares(theta_z, y), least_squares(theta_z, y, np.full((80, 3), 11.0)), rtol=1e-9)


@pytest.mark.parametrize("harmonics", [(1,), (1, 2), (1, 2, 4), (1, 2, 3, 4)])
def test_a_series_is_recovered_in_the_order_of_the_names(stars, harmonics):
    theta_z = stars[0]
    truth = np.arange(1.0, 2 + 2 * len(harmonics))
    series = truth[0] + sum(
        truth[2 * i + 1] * np.cos(m * theta_z) + truth[2 * i + 2] * np.sin(m * theta_z) for i, m in enumerate(harmonics)
    )
    np.testing.assert_allclose(
        least_squares(theta_z, series[None, :, None], harmonics=harmonics)[0, 0], truth, rtol=1e-9
    )
    assert design(theta_z, harmonics).shape == (80, 1 + 2 * len(harmonics))


def test_objective_is_equation_8():
    c = np.array([[10.0, 1.0, 2.0, 3.0, 20.0]])
    assert objective(c) == 14
    assert objective(c, all_terms=True) == 514


def test_names():
    assert coefficient_names() == ["c0", "a1", "b1", "a2", "b2"]
    assert coefficient_names((1, 2, 4))[-2:] == ["a4", "b4"]
