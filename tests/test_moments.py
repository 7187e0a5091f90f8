"""Sums over stars against the design matrix that they replace; classes of stars against each star's own weight."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import otibayes as oti
from otibayes.generative import likelihood_data
from otibayes.generative.basis import features, make_basis, reduced
from otibayes.generative.density import dense_log_likelihood, hilbert_log_likelihood
from otibayes.generative.model import GaussianField
from otibayes.generative.statistic import condensed, gram, moments, projection, statistic
from otibayes.generative.sums import all_moments, moments_at
from otibayes.generative.weights import Classes, classify
from otibayes.stars.preparation import prepare_stars

LENGTHS, AMPLITUDE = jnp.array([2.0, 2.5, 1.5]), jnp.array([0.7, 0.4])
CHOLESKY = jnp.linalg.cholesky(jnp.array([[1.0, 0.6], [0.6, 1.2]]))
THETA, REFERENCE = np.array([1.1, 0.32, 15.0, 8.5]), np.array([1.0, 0.28, 20.8, 7.78])


def inputs_and_abundances(n):
    rng = np.random.default_rng(n)
    x = np.abs(rng.normal(size=(n, 3))) * [1.0, 2.0, 1.0]
    Y = np.stack([x[:, 2] ** 2 + 0.3 * x[:, 1], -x[:, 2] + np.cos(x[:, 0])], 1)
    return x, Y + rng.multivariate_normal(np.zeros(2), [[1, 0.6], [0.6, 1]], n)


def boxed(basis):
    return (tuple(map(float, basis.low)), tuple(map(float, basis.high))), tuple(map(int, basis.degrees.max(0)))


@pytest.mark.parametrize("number", [100, 512, 1300])  # less than a chunk, one, and some
def test_sums_are_those_of_the_design_matrix(number):
    x, Y = inputs_and_abundances(number)
    weight = np.random.default_rng(0).random(number)
    basis = make_basis(x, LENGTHS, 80)
    box, degrees = boxed(basis)
    found = moments(box, tuple(d + 2 for d in degrees), jnp.asarray(x), jnp.asarray(Y), weight)
    phi = np.asarray(jax.vmap(partial(features, basis))(x))
    np.testing.assert_allclose(gram(basis, found), (phi * weight[:, None]).T @ phi, atol=1e-10 * number)
    np.testing.assert_allclose(projection(basis, found)[:, -2:], (phi * weight[:, None]).T @ Y, atol=1e-10 * number)
    np.testing.assert_allclose(found.square[-2:, -2:], (Y * weight[:, None]).T @ Y, rtol=1e-12)
    outside = moments(box, degrees, jnp.asarray(x).at[7, 1].set(box[1][1] + 0.1), jnp.asarray(Y), weight)
    assert jnp.isnan(gram(basis, outside)).any()


@pytest.fixture(scope="module")
def data():
    stars = oti.embedded_stars()[:700]
    lacking = {e: np.where(np.arange(700) % 5 == i, np.nan, v) for i, (e, v) in enumerate(stars.abundances.items())}
    every = likelihood_data(prepare_stars(stars, list(stars.abundances), "local", every=False))
    some = likelihood_data(
        prepare_stars(replace(stars, abundances=lacking), delta="local", every=False), error_classes=2
    )
    data = [replace(d, basis=make_basis(d.extent, LENGTHS, 60)) for d in (every, some)]
    return [data[0], *(d.relabelled(REFERENCE) for d in data)]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_passes_over_the_stars_agree_and_have_derivatives(data, which, monkeypatch):
    data = data[which]
    found = moments_at(data, THETA)
    traced, pull = jax.vjp(jax.jit(partial(all_moments, data)), jnp.asarray(THETA))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-8), found, traced)
    rng = np.random.default_rng(1)
    cotangent = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), found)
    if found.change is not None:  # nothing depends on it but through the sums
        cotangent = cotangent._replace(change=np.zeros_like(found.change))

    def against(theta):
        pairs = zip(jax.tree.leaves(moments_at(data, theta)), jax.tree.leaves(cotangent), strict=True)
        return sum(np.sum(a * b) for a, b in pairs)

    steps = np.diag([1e-5, 1e-5, 1e-2, 1e-3])
    difference = [(against(THETA + step) - against(THETA - step)) / (2 * step.max()) for step in steps]
    np.testing.assert_allclose(pull(cotangent)[0], difference, rtol=1e-5)
    monkeypatch.setattr("otibayes.generative.data.BLOCK", 128)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-8), moments_at(data, THETA), found)


def test_classes_are_each_stars_own_weight_where_errors_fall_in_classes():
    x, Y = inputs_and_abundances(200)
    rng = np.random.default_rng(2)
    observed = rng.random((200, 2)) > 0.2
    observed[~observed.any(1)] = True
    variance = np.where(rng.random((200, 1)) > 0.5, 0.3, 0.05) * np.ones((200, 2))
    member, classes = classify(observed, variance, 2)
    assert len(classes.observed) == 6 and (member >= 0).all()
    Y = np.where(observed, Y, 0.0)
    basis = make_basis(x, LENGTHS, 900, margin=3.0)
    box, degrees = boxed(basis)
    parts = [
        moments(box, degrees, jnp.asarray(x[rows]), jnp.asarray(Y[rows]), jnp.ones(rows.sum()))
        for rows in (member == c for c in range(6))
    ]
    found = condensed(basis, jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts), 2)
    field = GaussianField(LENGTHS, AMPLITUDE, CHOLESKY)
    own = np.where(observed, variance, np.inf)
    expected = dense_log_likelihood(field, jnp.asarray(x), jnp.asarray(Y), variance=own)
    np.testing.assert_allclose(hilbert_log_likelihood(field, found, basis, classes), expected, atol=5e-3)


def test_one_class_of_no_errors_is_all_stars_alike():
    """The joint regression of all elements and the independent ones of rotated elements; so are their gradients."""
    x, Y = inputs_and_abundances(300)
    basis = make_basis(x, LENGTHS, 100)
    box, degrees = boxed(basis)
    found = moments(box, degrees, jnp.asarray(x), jnp.asarray(Y), jnp.ones(300))
    basis = reduced(basis, np.asarray(gram(basis, found)), np.full(100, 0.05), 1e-3, np.array([1.0, 0.5]))
    assert basis.ranks[1] < basis.ranks[0] < 100
    joint = Classes(np.ones((1, 2), bool), np.full((1, 2), 1e-300))

    def density(lengths, amplitude, scatter, weight, classes):
        sums = jax.tree.map(lambda leaf: weight * leaf, found)
        one = condensed(basis._replace(ranks=None), sums, 2)
        one = one if classes is None else jax.tree.map(lambda leaf: leaf[None], one)
        field = GaussianField(lengths, amplitude, scatter * CHOLESKY)
        return hilbert_log_likelihood(field, one, basis._replace(ranks=None), classes)

    point = (LENGTHS, AMPLITUDE, jnp.asarray(0.9), jnp.asarray(1.1))
    two = [jax.value_and_grad(partial(density, classes=c), (0, 1, 2, 3))(*point) for c in (None, joint)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7), *two)
    alike = condensed(basis, found, 2)
    whole, few = (
        hilbert_log_likelihood(
            GaussianField(LENGTHS, AMPLITUDE, CHOLESKY), jax.tree.map(lambda leaf: leaf[None], alike), b, joint
        )
        for b in (basis._replace(ranks=None), basis)
    )
    assert abs(whole - few) < 0.02
    np.testing.assert_allclose(
        statistic(basis, jnp.asarray(x), jnp.asarray(Y)).factor, alike.factor, rtol=1e-9, atol=1e-9
    )


def test_rare_patterns_serve_with_what_a_common_one_has():
    observed = np.ones((1000, 4), bool)
    observed[:100, 3] = False
    observed[100] = [True, False, True, True]
    for i in range(7):  # as many patterns as there may be besides: each commoner than that of star 100
        observed[200 + 20 * i : 220 + 20 * i] = [i & 1, i & 2, i & 4, True]
    member, classes = classify(observed, None, 0)
    assert len(classes.observed) == 8 and (member >= 0).all()
    own = classes.observed[member]
    assert not (own & ~observed).any() and own.any(1).all()
    assert (own[:100] == observed[:100]).all() and own[100].sum() < 4
    alone = observed.copy()
    alone[100] = [True, False, False, False]  # no kept pattern has this element alone
    assert classify(alone, None, 0)[0][100] == -1
