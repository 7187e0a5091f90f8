"""The pull: the noise-averaged likelihood against an average over noises, and its slope against what it must be."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import otibayes as oti
from otibayes.generative import GaussianField, likelihood_data
from otibayes.generative.basis import prior_covariance
from otibayes.generative.density import hilbert_log_likelihood
from otibayes.generative.pull import averaged_log_likelihood, mean_field, slope_of_average
from otibayes.generative.statistic import condensed, design
from otibayes.generative.sums import all_inputs, all_moments, moments_at
from otibayes.stars.preparation import prepare_stars

THETA = np.array([1.1, 0.32, 15.0, 8.5])
FIELD = GaussianField(
    jnp.array([3.0, 4.0, 2.0]), jnp.array([0.5, 0.3]), jnp.linalg.cholesky(0.7 * jnp.eye(2) + 0.2), "expsquared"
)


def of_stars(number, missing=False, **options):
    stars = oti.embedded_stars()[:number]
    if missing:
        first = next(iter(stars.abundances))
        holes = np.where(np.arange(number) % 3 == 0, np.nan, stars.abundances[first])
        stars = replace(stars, abundances={**stars.abundances, first: holes})
    data = likelihood_data(prepare_stars(stars, list(stars.abundances), "local", every=False), **options)
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], FIELD)
    data = data.relabelled(np.array([1.0, 0.28, 20.8, 7.78])).on_box(one, 40)
    return data.resolving(one, [moments_at(data, THETA, degrees=data.finer.degrees.max(0))])


@pytest.fixture(scope="module", params=[False, True], ids=["alike", "missing"])
def data(request):
    return of_stars(300, request.param)


def found_at(data, theta, Y):
    return condensed(data.basis, moments_at(replace(data, Y=jnp.asarray(Y)), theta), len(data.elements))


@cache
def design_and_prior(data):
    """The design (N, M) on the labels at THETA, and the Cholesky factor of the process' prior covariance."""
    phi = jax.jit(lambda: design(data.basis, all_inputs(data, THETA)))()
    return np.asarray(phi), np.linalg.cholesky(prior_covariance(data.basis, FIELD.kernel, FIELD.lengths))


def truth_of(data, seed=0):
    """A field (N, E) from the prior, on the labels at THETA."""
    rng, (phi, process) = np.random.default_rng(seed), design_and_prior(data)
    trend = phi.shape[1] - len(process)
    B = np.zeros((phi.shape[1], 2))
    B[:trend] = rng.standard_normal((trend, 2)) @ np.asarray(FIELD.scatter_cholesky).T
    B[trend:] = process @ rng.standard_normal((len(process), 2)) * np.asarray(FIELD.amplitude)
    return phi @ B


@pytest.fixture(scope="module")
def average(data):
    return jax.jit(lambda found: averaged_log_likelihood(FIELD, found, data.basis, data.classes))


def test_average_over_noises(data, average):
    """Differences between two thetas, which the constant leaves; by 200 noises, each with both signs, in one pass."""
    truth, observed = truth_of(data), np.isfinite(data.variance)
    draws = np.random.default_rng(1).standard_normal((200, *truth.shape)) @ np.asarray(FIELD.scatter_cholesky).T
    noises = [sign * noise for noise in draws for sign in (1, -1)]
    many = replace(data, Y=jnp.asarray(np.concatenate([observed * (truth + noise) for noise in noises], 1)))

    @jax.jit
    def values(sums):
        found = condensed(data.basis, sums, many.Y.shape[1])

        def one(first):
            cut = lambda leaf, axis: jax.lax.dynamic_slice_in_dim(leaf, first, 2, axis)  # noqa: E731
            square = cut(cut(found.square, -1), -2)
            noisy = found._replace(projection=cut(found.projection, -1), square=square)
            return hilbert_log_likelihood(FIELD, noisy, data.basis, data.unlike)

        return jax.vmap(one)(2 * jnp.arange(len(noises)))

    other = THETA * [1.1, 1, 1, 1]
    differences = np.asarray(values(moments_at(many, other)) - values(moments_at(many, THETA))).reshape(-1, 2).mean(1)
    there, here = (float(average(found_at(data, theta, observed * truth))) for theta in (other, THETA))
    error = np.std(differences) / np.sqrt(len(differences))
    assert abs(there - here - np.mean(differences)) < 4 * error < 0.3 * abs(there - here)


def test_slope_is_that_of_the_average(data, average):
    """Against JAX's derivative of passes over the stars."""
    truth = truth_of(data)
    exact = replace(data, Y=jnp.asarray(truth))
    of_theta = jax.jit(jax.grad(lambda theta: average(condensed(data.basis, all_moments(exact, theta), 2))))
    expected = np.asarray(of_theta(jnp.asarray(THETA)))
    found = slope_of_average(data, FIELD, truth)(THETA)
    for i in range(4):
        assert found[i] == pytest.approx(expected[i], rel=1e-3, abs=1e-5 * np.abs(expected).max())


def test_nothing_is_preferred_on_average_over_the_prior(data, average):
    """The score has mean zero over noises and the prior's fields: so have differences of the average along theta."""
    step, differences = np.array([1e-3, 0, 0, 0]), []
    many = np.concatenate([truth_of(data, seed) for seed in range(100)], 1)
    wide = replace(data, Y=jnp.asarray(np.tile(np.isfinite(data.variance), (1, 100)) * many))
    up, down = (moments_at(wide, THETA + s * step) for s in (1, -1))
    condense = jax.jit(lambda sums: condensed(data.basis, sums, wide.Y.shape[1]))
    for found in map(condense, (up, down)):
        cut = [found._replace(projection=found.projection[..., e : e + 2]) for e in range(0, 200, 2)]
        differences.append([float(average(one)) for one in cut])
    score = np.subtract(*differences) / (2 * step[0])
    assert abs(score.mean()) < 4 * score.std() / np.sqrt(len(score))


def test_mean_field_is_what_the_abundances_say():
    """With little scatter, the field at the stars is their abundances."""
    data = of_stars(300)
    truth = truth_of(data)
    sharp = replace(FIELD, scatter_cholesky=1e-3 * FIELD.scatter_cholesky)
    found = mean_field(data, THETA, sharp, found_at(data, THETA, truth))
    np.testing.assert_allclose(found, truth, atol=1e-3 * np.ptp(truth))
