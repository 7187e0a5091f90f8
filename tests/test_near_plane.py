"""The part of stars near the plane in the coefficients: against sums written out, and for what it is there."""

from dataclasses import replace

import numpy as np
import pytest
from otibayes.classical.deviation import deviation
from otibayes.classical.near_plane import SHARE, near_plane
from otibayes.classical.problem import Problem, resamples
from toy_galaxy import TRUTH, toy, toy_sample

from otibayes.base.surface import Region, fit, nodes, predict
from otibayes.classical.objective import Settings
from otibayes.dynamics import MILKY_WAY, phase_space

THETA = np.array(TRUTH)
REGION = Region(THETA, np.diag([50.0, 100.0, 0.1, 2.0]), 1.0, np.full(4, -np.inf), np.full(4, np.inf))


@pytest.fixture(scope="module")
def problem():
    stars, labels = toy_sample(800, 5)
    counts = np.concatenate([np.ones((1, 800), int), resamples(800, 5, 0)])
    sigma = np.random.default_rng(1).uniform(0.5, 2, labels.shape)
    return Problem(stars, labels, sigma, counts, toy, Settings(), MILKY_WAY)


@pytest.mark.parametrize("angle", ["theta_z", "theta_R"])
def test_the_part_is_the_sum_over_the_stars_of_least_action(problem, angle):
    problem = replace(problem, settings=Settings(angle=angle))
    elsewhere = THETA + np.array([0.03, 0.01, 2, 0.1])
    found = near_plane(problem, THETA)
    here, there = (toy(phase_space(problem.stars, t), t) for t in (TRUTH, problem.model.Parameters(*elsewhere)))
    J = np.stack([here.J_R, here.L_z, here.J_z], 1)
    few = np.argsort({"theta_z": here.J_z, "theta_R": here.J_R}[angle])[: int(SHARE * 800)]
    for b, counts in enumerate(problem.counts):
        value = deviation(J, problem.labels, counts[None])[0]
        for e in range(2):
            weight = counts / problem.sigma[:, e] ** 2

            def terms(aa):
                x = getattr(aa, angle)
                return np.stack([np.ones(800), np.cos(x), np.sin(x), np.cos(2 * x), np.sin(2 * x)], 1)

            normal = terms(here).T @ (weight[:, None] * terms(here))
            for theta, aa in ((THETA, here), (elsewhere, there)):
                expected = np.linalg.solve(normal, terms(aa)[few].T @ (weight * value[:, e])[few])
                np.testing.assert_allclose(found(theta)[b, e], expected, rtol=1e-4, atol=1e-6)
                np.testing.assert_allclose(found.of(e, b, theta), expected, rtol=1e-4, atol=1e-6)


def test_without_it_the_coefficients_are_smooth(problem):
    """Where deviations hardly change, as of a mean over nearly all stars, it makes most of what a surface leaves."""
    problem = replace(problem, settings=Settings(neighbours=750, gradient=False))
    points = nodes(REGION, 3, 2.0, 0, np.empty((0, 4)))
    values = np.array([problem(theta).series for theta in points])
    part = np.array([near_plane(problem, THETA)(theta) for theta in points])

    def roughness(values):
        left = values - predict(REGION, 3, points, fit(REGION, 3, points, values))
        return np.sqrt((left[..., 1:4] ** 2).mean())

    assert roughness(values - part) < 0.3 * roughness(values)
