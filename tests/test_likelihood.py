"""The generative density: basis against tinygp's kernel, both likelihoods against each other and against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.contrib.hsgp.spectral_densities import spectral_density_matern, spectral_density_squared_exponential
from scipy.stats import multivariate_normal

from otibayes.base.errors import InputError
from otibayes.dynamics.trend import inputs, trend_terms
from otibayes.generative.basis import (
    KERNELS,
    even_kernel,
    features,
    make_basis,
    prior_covariance,
    reduced,
    spectrum,
)
from otibayes.generative.density import dense_log_likelihood, hilbert_log_likelihood, variance_ratio
from otibayes.generative.model import GaussianField
from otibayes.generative.statistic import WIDTH, statistic
from otibayes.generative.weights import Classes

LENGTHS = jnp.array([2.0, 2.5, 1.5])
AMPLITUDE = jnp.array([0.7, 0.4])
CHOLESKY = jnp.linalg.cholesky(jnp.array([[1.0, 0.6], [0.6, 1.2]]))
FIELD = GaussianField(LENGTHS, AMPLITUDE, CHOLESKY)


def _stars(n: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    J = np.stack([rng.exponential(30, n), rng.normal(1860, 250, n), rng.exponential(10, n)], 1)
    x = np.asarray(inputs(jnp.asarray(J)))
    mean = np.stack([x[:, 2] ** 2 + 0.3 * x[:, 1], -x[:, 2] + np.cos(x[:, 0])], 1)
    return jnp.asarray(x), jnp.asarray(mean + rng.multivariate_normal(np.zeros(2), [[1, 0.6], [0.6, 1]], n))


@pytest.mark.parametrize("kernel", KERNELS)
def test_even_kernel_is_even_in_both_roots_and_not_in_L_z(kernel):
    k = even_kernel(kernel, LENGTHS)
    x, y = jnp.array([0.8, 0.5, 1.1]), jnp.array([0.3, -0.7, 0.4])
    for sign in ([-1, 1, 1], [1, 1, -1], [-1, 1, -1]):
        np.testing.assert_allclose(k(x, y * jnp.array(sign)), k(x, y), rtol=1e-14)
    assert abs(k(x, y * jnp.array([1, -1, 1])) - k(x, y)) > 1e-3


@pytest.mark.parametrize(("kernel", "tolerance"), [("expsquared", 1e-6), ("matern52", 1e-2), ("matern32", 5e-2)])
def test_basis_converges_to_the_even_kernel(kernel, tolerance):
    x = jnp.abs(jnp.asarray(np.random.default_rng(1).normal(size=(6, 3))))
    basis = make_basis(np.asarray(x), LENGTHS, 8000, margin=5.0)
    phi = jax.vmap(lambda point: features(basis, point))(x)
    k = even_kernel(kernel, LENGTHS)
    expected = jax.vmap(lambda a: jax.vmap(lambda b: k(a, b))(x))(x)
    np.testing.assert_allclose((phi * spectrum(basis, kernel, LENGTHS)[None, :]) @ phi.T, expected, atol=tolerance)


def test_spectral_densities_are_numpyros():
    x, _ = _stars(50)
    basis = make_basis(np.asarray(x), LENGTHS, 40)
    frequency = np.pi * basis.degrees / (basis.high - basis.low)
    weight = np.prod(np.where(basis.degrees == 0, 1.0, 2.0) / (basis.high - basis.low), 1)
    for w, s, m32, m52 in zip(
        frequency, weight, spectrum(basis, "matern32", LENGTHS), spectrum(basis, "matern52", LENGTHS), strict=True
    ):
        row = jnp.asarray(w)[None]
        np.testing.assert_allclose(m32, s * spectral_density_matern(3, 1.5, row, 1.0, LENGTHS[None])[0], rtol=1e-9)
        np.testing.assert_allclose(m52, s * spectral_density_matern(3, 2.5, row, 1.0, LENGTHS[None])[0], rtol=1e-9)
    found = spectrum(basis, "expsquared", LENGTHS)
    expected = [
        s * spectral_density_squared_exponential(3, jnp.asarray(w)[None], 1.0, LENGTHS[None])[0]
        for w, s in zip(frequency, weight, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-18)


def test_outside_the_box_is_nan_not_an_extrapolation():
    x, _ = _stars(50)
    basis = make_basis(np.asarray(x), LENGTHS, 40)
    assert jnp.all(jnp.isnan(features(basis, jnp.asarray(basis.high) + 0.1)))


def test_a_kernel_without_a_spectral_density_is_refused():
    x, _ = _stars(50)
    with pytest.raises(InputError, match="periodic.*choose one of expsquared"):
        spectrum(make_basis(np.asarray(x), LENGTHS, 40), "periodic", LENGTHS)


def test_dense_is_the_multivariate_normal_of_all_stars_and_elements():
    x, Y = _stars(40)
    k = even_kernel("expsquared", LENGTHS)
    K = np.asarray(jax.vmap(lambda a: jax.vmap(lambda b: k(a, b))(x))(x))
    wide = WIDTH * np.asarray(trend_terms(x))
    Sigma = np.asarray(CHOLESKY @ CHOLESKY.T)
    covariance = np.kron(K, np.diag(np.asarray(AMPLITUDE) ** 2))
    covariance += np.kron(wide @ wide.T + np.eye(40), Sigma)
    expected = multivariate_normal(np.zeros(80), covariance).logpdf(np.asarray(Y).ravel())
    np.testing.assert_allclose(dense_log_likelihood(FIELD, x, Y), expected, rtol=1e-9)


def test_without_a_process_the_density_is_that_of_a_regression():
    """On the polynomial trend, with a proper prior of its coefficients."""
    x, Y = _stars(300)
    basis, Sigma = make_basis(np.asarray(x), LENGTHS, 40), np.asarray(CHOLESKY @ CHOLESKY.T)
    for stretched in (x, x * jnp.array([[1.3, 1.0, 0.8]])):
        wide, y = WIDTH * np.asarray(trend_terms(stretched)), np.asarray(Y)
        explained = y.T @ wide @ np.linalg.solve(np.eye(12) + wide.T @ wide, wide.T @ y)
        expected = -0.5 * np.trace(np.linalg.solve(Sigma, y.T @ y - explained))
        expected -= 150 * np.linalg.slogdet(2 * np.pi * Sigma)[1]
        expected -= np.linalg.slogdet(np.eye(12) + wide.T @ wide)[1]
        few = statistic(basis._replace(high=np.asarray(basis.high) * 1.3), stretched, Y)
        none = GaussianField(LENGTHS, jnp.full(2, 1e-6), CHOLESKY)
        np.testing.assert_allclose(hilbert_log_likelihood(none, few, basis), expected, rtol=1e-9)
        np.testing.assert_allclose(dense_log_likelihood(none, stretched, Y), expected, rtol=1e-9)


def test_hilbert_converges_to_dense_on_1000_stars():
    x, Y = _stars(1000)
    dense = dense_log_likelihood(FIELD, x, Y)
    errors = []
    for size in (100, 400, 1200):
        basis = make_basis(np.asarray(x), LENGTHS, size, margin=3.0)
        hilbert = hilbert_log_likelihood(FIELD, statistic(basis, x, Y), basis)
        errors.append(abs(float(hilbert - dense)))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-3


def test_reducing_the_basis_loses_less_than_half_of_what_was_dropped():
    """ln L in expectation under the model: the Kullback-Leibler divergence of the abundances' Gaussians, exactly."""
    x, _ = _stars(1000)
    calls = [(0.5 * LENGTHS, AMPLITUDE), (LENGTHS, 2 * AMPLITUDE), (2 * LENGTHS, 0.3 * AMPLITUDE)]
    basis = make_basis(np.asarray(x), 0.5 * LENGTHS)
    phi = np.asarray(jax.vmap(lambda point: features(basis, point))(x))
    ratios = [np.asarray(variance_ratio(a, CHOLESKY)) for _, a in calls]
    variances = [
        r.max() * spectrum(basis, "expsquared", lengths) for r, (lengths, _) in zip(ratios, calls, strict=True)
    ]
    for dropped in (1e-2, 1e-4):
        few = reduced(basis, phi.T @ phi, np.max(variances, 0), dropped, np.ones(2))
        assert few.vectors.shape[1] < 0.8 * len(basis.degrees)
        part = phi @ few.combinations
        for ratio, (lengths, _) in zip(ratios, calls, strict=True):
            for r in ratio:
                whole = np.eye(1000) + r * (phi * np.asarray(spectrum(basis, "expsquared", lengths))) @ phi.T
                less = np.eye(1000) + r * part @ np.asarray(prior_covariance(few, "expsquared", lengths)) @ part.T
                more = np.trace(np.linalg.solve(less, whole - less))
                lost = 0.5 * (more - np.linalg.slogdet(whole)[1] + np.linalg.slogdet(less)[1])
                assert -1e-6 < lost < 0.5 * dropped, (dropped, r, lost)


def test_gradient_of_hilbert_against_central_differences():
    x, Y = _stars(200)
    basis = make_basis(np.asarray(x), LENGTHS, 60)

    def f(flat: jax.Array) -> jax.Array:
        data = statistic(basis, x * flat[5], Y)
        return hilbert_log_likelihood(GaussianField(flat[:3], flat[3:5], CHOLESKY), data, basis)

    point = jnp.concatenate([LENGTHS, AMPLITUDE, jnp.array([0.98])])
    steps = 1e-5 * jnp.eye(6)
    difference = jnp.stack([(f(point + step) - f(point - step)) / 2e-5 for step in steps])
    np.testing.assert_allclose(jax.grad(f)(point), difference, rtol=1e-6)


def test_order_of_elements_does_not_matter():
    x, Y = _stars(100)
    basis = make_basis(np.asarray(x), LENGTHS, 60)
    Sigma = CHOLESKY @ CHOLESKY.T
    swapped = jnp.linalg.cholesky(Sigma[::-1, ::-1])
    one = hilbert_log_likelihood(FIELD, statistic(basis, x, Y), basis)
    other = GaussianField(LENGTHS, AMPLITUDE[::-1], swapped)
    two = hilbert_log_likelihood(other, statistic(basis, x, Y[:, ::-1]), basis)
    np.testing.assert_allclose(one, two, rtol=1e-6)


@pytest.mark.parametrize("classes", [None, Classes(np.ones((1, 2), bool), np.full((1, 2), 1e-300))])
def test_an_absurd_amplitude_has_no_digits_and_no_density(classes):
    """A chain's first long step may go so far; rounding must not reward it."""
    x, Y = _stars(200)
    basis = make_basis(np.asarray(x), LENGTHS, 300)
    found = statistic(basis, x, Y)
    if classes is not None:
        found = jax.tree.map(lambda leaf: leaf[None], found)
    for power in (5, 20, 35, 50):
        absurd = GaussianField(LENGTHS, AMPLITUDE * 10.0**power, CHOLESKY)
        value = hilbert_log_likelihood(absurd, found, basis, classes)
        assert not value > hilbert_log_likelihood(FIELD, found, basis, classes)
