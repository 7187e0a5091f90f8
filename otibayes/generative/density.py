"""ln p(abundances | actions): the field's coefficients integrated out, elements joined by a full residual covariance.

X_n ~ Normal(f(J_n), Sigma + errors_n), f = polynomial trend + Gaussian process. Coefficients of the process are
matrix-normal, kernel spectrum x A with A = diag(amplitude^2). Those of the trend are wide, and spherical in units of
Sigma.

Where all stars weigh alike, the generalised eigenvectors of (A, Sigma) turn the E elements into E independent
regressions of unit noise on one Gram matrix, and one eigendecomposition serves all of them. Where abundances are
missing or errors differ, each class of stars has its Gram matrix, and the elements stay together. `dense` (a tinygp
process over the stars) and `hilbert` (a cosine basis) compute the same density.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tinygp import GaussianProcess, kernels

from ..dynamics.trend import trend_terms
from .basis import Basis, even_kernel, prior_covariance
from .model import GaussianField
from .statistic import WIDTH, Statistic
from .weights import Classes

__all__ = [
    "Coefficients",
    "coefficients",
    "dense_log_likelihood",
    "gram_axes",
    "hilbert_log_likelihood",
    "independent_axes",
    "sums_of_classes",
    "variance_ratio",
]


def _rotation(amplitude: Any, scatter_cholesky: Any) -> tuple[Any, Any]:
    """U (E, E) and d (E,): W = scatter_cholesky^-T U makes W^T Sigma W = 1 and W^T A W = diag(d)."""
    untied = amplitude * (1 + 1e-7 * jnp.arange(amplitude.shape[0]))  # equal eigenvalues have no gradient
    half = jax.scipy.linalg.solve_triangular(scatter_cholesky, jnp.diag(untied), lower=True)
    left, singular, _ = jnp.linalg.svd(half)
    return left, singular**2


def variance_ratio(amplitude: Any, scatter_cholesky: Any) -> Any:
    """Variances (E,) of the field in units of the noise's, along their joint principal axes."""
    return _rotation(amplitude, scatter_cholesky)[1]


def independent_axes(field: GaussianField) -> tuple[Any, Any]:
    """W (E, E), which makes abundances E independent ones of unit noise, and the field's variances d (E,) there."""
    left, d = _rotation(field.amplitude, field.scatter_cholesky)
    return jax.scipy.linalg.solve_triangular(field.scatter_cholesky, left, lower=True, trans=1), d


def hilbert_log_likelihood(field: GaussianField, found: Statistic, basis: Basis, classes: Classes | None = None) -> Any:
    """ln p(Y | x) with the coefficients integrated out (Solin & Sarkka 2020, section 3.3), from the `Statistic`.

    `classes` tells what the stars of each class lack, and their errors beyond Sigma; None where all weigh alike.
    """
    if classes is None:
        return _alike(field, found, basis)
    return _by_class(field, found, basis, classes)


def _possible(explained: Any, square: Any) -> Any:
    """explained - square; -inf where more is explained than there is, as an absurd amplitude leaves no digits."""
    return jnp.where(explained <= square, explained - square, -jnp.inf)


# ---- all stars alike


def _alike(field: GaussianField, found: Statistic, basis: Basis) -> Any:
    covariance = prior_covariance(basis, field.kernel, field.lengths)
    rotation, d = independent_axes(field)
    linear = len(found.factor) - len(covariance)
    b = found.projection @ rotation
    # the trend is as wide whatever the hyperparameters: the factor's first rows integrate it out
    trend = 0.5 * jnp.sum(b[:linear] ** 2) - len(d) * jnp.sum(jnp.log(jnp.diagonal(found.factor)[:linear]))
    square = jnp.sum((found.square @ rotation) * rotation)
    log_noise = jnp.sum(jnp.log(jnp.diagonal(field.scatter_cholesky)))
    normalisation = found.count * (0.5 * len(d) * jnp.log(2 * jnp.pi) + log_noise)
    process = _regressions(covariance, found.factor[linear:, linear:], b[linear:], d)
    return _possible(trend + process, 0.5 * square) - normalisation


@jax.custom_vjp
def _regressions(covariance: jax.Array, factor: jax.Array, b: jax.Array, d: jax.Array) -> jax.Array:
    """Sum over e of (p^T C p - ln det(1 + d P G)) / 2, with C = (1/(d P) + G)^-1: E regressions on one Gram matrix.

    P (K, K) prior covariance; G = factor factor^T - 1; p = factor b, b (K, E); d (E,) prior variances.
    """
    return _regressions_forward(covariance, factor, b, d)[0]


def gram_axes(covariance: jax.Array, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues v (K,) and axes (K, K) with P = axes axes^T and C = axes diag(d / (1 + v d)) axes^T for every d."""
    root = jnp.linalg.cholesky(covariance)
    seen = factor.T @ root
    values, vectors = jnp.linalg.eigh(seen.T @ seen - root.T @ root, symmetrize_input=False)
    return jnp.maximum(values, 0.0), root @ vectors


def _regressions_forward(covariance: jax.Array, factor: jax.Array, b: jax.Array, d: jax.Array) -> tuple:
    values, axes = gram_axes(covariance, factor)
    q = axes.T @ (factor @ b)
    shrunk = 1 + values[:, None] * d[None, :]
    value = 0.5 * jnp.sum(q**2 * d[None, :] / shrunk - jnp.log(shrunk))
    return value, (factor, b, d, values, axes, q, shrunk)


def _regressions_backward(saved: tuple, cotangent: jax.Array) -> tuple:
    # By hand: the derivatives of a Cholesky factor and of eigenvectors cost several times as much, and the latter are
    # singular where eigenvalues meet, though the density is not.
    factor, b, d, values, axes, q, shrunk = saved
    weight = d[None, :] / shrunk
    mean = axes @ (weight * q)
    gram = factor @ factor.T - jnp.eye(len(factor))
    rest = factor @ b - gram @ mean
    seen = gram @ axes
    d_bar = 0.5 * jnp.sum(q**2 / shrunk**2 - values[:, None] / shrunk, 0)
    gram_bar = -0.5 * ((axes * jnp.sum(weight, 1)[None, :]) @ axes.T + mean @ mean.T)
    P_bar = (rest * d[None, :]) @ rest.T - jnp.sum(d) * gram + (seen * (weight @ d)[None, :]) @ seen.T
    factor_bar = jnp.tril(2 * gram_bar @ factor + mean @ b.T)
    return tuple(cotangent * bar for bar in (0.5 * P_bar, factor_bar, factor.T @ mean, d_bar))


_regressions.defvjp(_regressions_forward, _regressions_backward)


# ---- stars that lack elements, or differ in errors


class Coefficients(NamedTuple):
    """Posterior of the coefficients B (M, E) of the `design`, whitened by their prior: z ~ Normal(P^-1 b, P^-1).

    B = root (scale z) back^T, z (M, E); `precision` P (Q, Q) and `b` (Q,) are of the `needed` numbers of z, the others
    being negligible. `noise` (C, E, E) is the Cholesky factor of each class' residual covariance, `weight` (C, E, E)
    its inverse, 0 where an element is missing.
    """

    precision: jax.Array
    b: jax.Array
    needed: np.ndarray
    root: jax.Array
    scale: jax.Array
    back: jax.Array
    noise: jax.Array
    weight: jax.Array

    def unwhitened(self, z: jax.Array) -> jax.Array:
        """B (M, E) of z (Q,)."""
        whole = jnp.zeros(self.scale.size).at[self.needed].set(z).reshape(self.scale.shape)
        return self.root @ (self.scale * whole) @ self.back.T


def coefficients(
    field: GaussianField, basis: Basis, gram: jax.Array, projection: jax.Array, classes: Classes
) -> Coefficients:
    """From the sums over each class of stars: `gram` (C, M, M) = Phi^T Phi, `projection` (C, M, E) = Phi^T Y."""
    covariance = prior_covariance(basis, field.kernel, field.lengths)
    left, d = _rotation(field.amplitude, field.scatter_cholesky)
    elements, size = len(d), gram.shape[-1]
    linear = size - len(covariance)
    seen = jnp.asarray(classes.observed, float)
    both = seen[:, :, None] * seen[:, None, :]
    Sigma = field.scatter_cholesky @ field.scatter_cholesky.T
    noise = both * (Sigma[None] + jnp.asarray(classes.variance)[:, :, None] * jnp.eye(elements)[None])
    # an element that is missing has a noise of its own, of unit variance, which no abundance ever meets
    noise = jnp.linalg.cholesky(noise + (1 - seen)[:, :, None] * jnp.eye(elements)[None])
    weight = both * jax.vmap(lambda L: jax.scipy.linalg.cho_solve((L, True), jnp.eye(elements)))(noise)
    back = field.scatter_cholesky @ left  # abundances from rotated ones

    root = jax.scipy.linalg.block_diag(jnp.eye(linear), jnp.linalg.cholesky(covariance))
    scale = jnp.where(jnp.arange(size)[:, None] < linear, 1.0, jnp.sqrt(d)[None, :])
    whitened = jax.vmap(lambda G: root.T @ G @ root)(gram)
    rotated = jnp.einsum("ie,cij,jf->cef", back, weight, back)
    precision = jnp.einsum("ckl,cef->kelf", whitened, rotated) * scale[:, :, None, None] * scale[None, None]
    p = root.T @ jnp.einsum("cke,cef,fg->kg", projection, weight, back) * scale
    # most of the combinations are for the axis along which the field is strongest
    ranks = size if basis.ranks is None else np.asarray(basis.ranks)
    needed = np.flatnonzero(np.broadcast_to(np.arange(size)[:, None] < linear + ranks, (size, elements)))
    precision = precision.reshape(size * elements, -1)[needed[:, None], needed[None]] + jnp.eye(len(needed))
    return Coefficients(precision, p.reshape(-1)[needed], needed, root, scale, back, noise, weight)


def sums_of_classes(found: Statistic, classes: Classes) -> tuple[jax.Array, jax.Array]:
    """Phi^T Phi (C, M, M) and Phi^T Y (C, M, E) of each class of stars, from their statistic."""
    return _sums(jax.tree.map(lambda leaf: leaf[None], found) if classes.common else found)


def _sums(found: Statistic) -> tuple[jax.Array, jax.Array]:
    gram = jax.vmap(lambda F: F @ F.T - jnp.eye(len(F)))(found.factor)
    return gram, jax.vmap(jnp.matmul)(found.factor, found.projection)


def _by_class(field: GaussianField, found: Statistic, basis: Basis, classes: Classes) -> Any:
    c = coefficients(field, basis, *_sums(found), classes)
    explained = _explained(c.precision, c.b)
    log_noise = jnp.sum(jnp.log(jnp.diagonal(c.noise, axis1=1, axis2=2)), 1)
    observed = jnp.asarray(classes.observed, float).sum(1)
    normalisation = jnp.sum(found.count * (0.5 * observed * jnp.log(2 * jnp.pi) + log_noise))
    return _possible(explained, 0.5 * jnp.sum(c.weight * found.square)) - normalisation


@jax.custom_vjp
def _explained(precision: jax.Array, b: jax.Array) -> jax.Array:
    """(b^T P^-1 b - ln det P) / 2 for a positive definite P; NaN where it is not."""
    return _explained_forward(precision, b)[0]


def _explained_forward(precision: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple]:
    factor = jnp.linalg.cholesky(precision)
    solution = jax.scipy.linalg.cho_solve((factor, True), b)
    return 0.5 * b @ solution - jnp.sum(jnp.log(jnp.diagonal(factor))), (factor, solution)


def _explained_backward(saved: tuple, cotangent: jax.Array) -> tuple:
    # the adjoint of the density itself costs one inverse; that of its Cholesky factor several times as much
    factor, solution = saved
    inverse = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(solution.size))
    return -0.5 * cotangent * (inverse + solution[:, None] * solution[None, :]), cotangent * solution


_explained.defvjp(_explained_forward, _explained_backward)


# ---- the plain Gaussian process


def dense_log_likelihood(
    field: GaussianField, x: jax.Array, Y: jax.Array, linear: Any = None, variance: np.ndarray | None = None
) -> Any:
    """The same density by tinygp over the stars: one process for each rotated element, N^3, for N <= 2,000.

    x (N, 3) inputs, Y (N, E) abundances, `linear` (N, L) further columns. With `variance` (N, E), each star's own
    errors squared, infinite where an abundance is missing, one process over all abundances, (N E)^3.
    """
    even, amplitude, scatter_cholesky = (
        even_kernel(field.kernel, field.lengths),
        field.amplitude,
        field.scatter_cholesky,
    )
    points = x if linear is None else jnp.concatenate([x, linear], 1)

    def trend(point: Any) -> Any:
        return WIDTH * jnp.concatenate([trend_terms(point[:3]), point[3:]])

    def trend_kernel(a: Any, b: Any) -> Any:
        return jnp.dot(trend(a), trend(b))

    if variance is not None:
        Sigma = scatter_cholesky @ scatter_cholesky.T
        star, element = np.nonzero(np.isfinite(variance))

        def covariance(a: Any, b: Any) -> Any:
            (x, n, e), (y, m, f) = a, b
            process = jnp.where(e == f, amplitude[e] ** 2, 0.0) * even(x[:3], y[:3])
            return process + (trend_kernel(x, y) + jnp.where(n == m, 1.0, 0.0)) * Sigma[e, f]

        abundances: Any = (points[star], jnp.asarray(star), jnp.asarray(element))
        own = jnp.asarray(variance[star, element])
        return GaussianProcess(kernels.Custom(covariance), abundances, diag=own).log_probability(Y[star, element])

    rotation, d = independent_axes(field)

    def of_axis(d: Any, y: Any) -> Any:
        covariance = kernels.Custom(lambda a, b: d * even(a[:3], b[:3]) + trend_kernel(a, b))
        return GaussianProcess(covariance, points, diag=jnp.ones(x.shape[0])).log_probability(y)

    unit_noise = jax.vmap(of_axis, in_axes=(0, 1))(d, Y @ rotation)
    return jnp.sum(unit_noise) - Y.shape[0] * jnp.sum(jnp.log(jnp.diagonal(scatter_cholesky)))
