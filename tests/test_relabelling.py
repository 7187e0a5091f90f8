"""Relabelled inputs: what theta can do to labels by a smooth change alone leaves the likelihood as it is."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import otibayes as oti
from otibayes.generative import GaussianField, likelihood_data
from otibayes.generative.basis import make_basis
from otibayes.generative.density import dense_log_likelihood, hilbert_log_likelihood
from otibayes.generative.relabelling import Reference, Relabelling, fit_relabelling, relabelling_sums
from otibayes.generative.statistic import condensed
from otibayes.generative.sums import all_inputs, inputs_at, moments_at
from otibayes.stars.preparation import prepare_stars

REFERENCE, THETA = np.array([1.0, 0.28, 20.8, 7.78]), np.array([1.1, 0.32, 15.0, 8.5])
FIELD = GaussianField(jnp.array([3.0, 4.0, 2.0]), jnp.array([0.5, 0.3]), jnp.linalg.cholesky(jnp.eye(2) + 0.3))


@pytest.fixture(scope="module")
def data():
    stars = oti.embedded_stars()[:600]
    return likelihood_data(prepare_stars(stars, list(stars.abundances), "local")).relabelled(REFERENCE)


@pytest.fixture(scope="module")
def inputs_of(data):
    """Relabelled inputs as a compiled function of theta."""
    return jax.jit(partial(all_inputs, data))


@jax.jit
def relabelled(x, reference):
    sums = relabelling_sums(x, reference.x, jnp.ones(len(x)), reference.terms)
    return Relabelling(fit_relabelling(sums, reference.terms), reference.terms)(x)


def smooth_change(x, epsilon):
    """A change of labels by terms of the regression, which leaves zeros of the roots where they are."""
    u, v, w = jnp.log1p(x[:, 0] ** 2), x[:, 1], jnp.log1p(x[:, 2] ** 2)
    change = jnp.stack([x[:, 0] * (1 + u * w - 0.3 * v**2), u - 0.2 * v * w, x[:, 2] * (0.5 - w**2 + 0.2 * u * v)], 1)
    return x + epsilon * change


def test_a_smooth_change_of_all_labels_is_taken_off(data):
    """To first order: what is left is of the second."""
    reference = data.reference
    changed = [relabelled(smooth_change(jnp.asarray(reference.x), epsilon), reference) for epsilon in (2e-3, 1e-3)]
    left = [float(jnp.abs(s - reference.x).max()) for s in changed]
    assert left[1] < 2e-4
    np.testing.assert_allclose(left[0] / left[1], 4.0, rtol=0.1)


def test_the_likelihood_does_not_know_a_smooth_change_of_labels(data):
    reference = Reference.of(REFERENCE, data.reference.x[:100], 2)

    @partial(jax.jit, static_argnums=1)
    def slope(epsilon, relabel):
        def log_likelihood(epsilon):
            x = smooth_change(jnp.asarray(reference.x), epsilon)
            return dense_log_likelihood(FIELD, relabelled(x, reference) if relabel else x, data.Y[:100])

        return jax.jvp(log_likelihood, (epsilon,), (1.0,))[1]

    assert abs(slope(0.0, False)) > 1.0
    assert abs(slope(0.0, True)) < 1e-5 * abs(slope(0.0, False))


def test_the_reference_keeps_its_labels_and_the_stars_elsewhere_keep_them_in_the_mean(data, inputs_of):
    np.testing.assert_allclose(inputs_of(jnp.asarray(REFERENCE)), data.reference.x, atol=1e-9)
    x = inputs_at(THETA, data.stars, data.delta, data.model)
    s = np.asarray(inputs_of(jnp.asarray(THETA)))
    terms = np.stack([np.ones(len(x)), np.log1p(x[:, 0] ** 2), x[:, 1], np.log1p(x[:, 2] ** 2) ** 2], 1)
    weights = np.stack([x[:, 0], np.ones(len(x)), x[:, 2]], 1)
    before, after = (np.abs(terms.T @ (weights * (y - data.reference.x))) for y in (x, s))
    assert (before.max(0)[[0, 2]] > 0.5).all()
    np.testing.assert_allclose(after, 0.0, atol=1e-5 * before.max())


def test_a_zero_stays_a_zero_and_outliers_stay_in_reach(data):
    x = jnp.array([[0.0, 0.3, 0.0], [1e-6, -0.2, 2.0], [40.0, 8.0, 30.0]])
    s = relabelled(jnp.concatenate([inputs_at(THETA, data.stars, data.delta, data.model), x]), Reference.of(
        REFERENCE, np.concatenate([data.reference.x, x]), 4
    ))[-3:]  # fmt: skip
    np.testing.assert_array_equal(s[0, jnp.array([0, 2])], 0.0)
    assert (np.abs(s[2] - x[2]) < 0.2 * np.abs(x[2])).all()


def test_basis_and_tinygp_agree_on_relabelled_inputs(data):
    some = data.some(300, 0).relabelled(REFERENCE)
    some = replace(some, basis=make_basis(some.reference.x, np.array([3.0, 4.0, 2.0]), 500, margin=2.0))
    found = condensed(some.basis, moments_at(some, THETA), 2)
    dense = dense_log_likelihood(FIELD, all_inputs(some, jnp.asarray(THETA)), some.Y)
    np.testing.assert_allclose(hilbert_log_likelihood(FIELD, found, some.basis), dense, atol=2e-2)


def test_inputs_and_their_slopes_are_those_of_differences(data, inputs_of):
    theta, v = jnp.asarray(THETA), jnp.asarray(np.random.default_rng(0).normal(size=(len(data), 3)))
    slope = jax.jit(jax.grad(lambda theta: jnp.sum(v * all_inputs(data, theta))))(theta)
    steps = np.diag([1e-5, 1e-5, 1e-2, 1e-3])
    ends = [[float(jnp.sum(v * inputs_of(theta + sign * step))) for sign in (1, -1)] for step in steps]
    difference = [(a - b) / (2 * step.max()) for (a, b), step in zip(ends, steps, strict=True)]
    np.testing.assert_allclose(slope, difference, rtol=1e-5)
