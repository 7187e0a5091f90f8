"""ln p(abundances | actions): the Gaussian-process mean integrated out, elements joined by a full residual covariance.

X_n ~ Normal(f(J_n), Sigma), f = linear terms + Gaussian process. Coefficients of the process are matrix-normal, kernel
spectrum x A with A = diag(amplitude^2); those of the linear terms are spherical in units of Sigma, and wide. The
generalised eigenvectors of (A, Sigma) then turn the E elements into E independent regressions of unit noise on one
Gram matrix. `dense` (a tinygp process over the stars) and `hilbert` (a cosine basis) compute the same density.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from tinygp import GaussianProcess, kernels

from ..errors import InputError
from .basis import Basis, even_kernel, features, inputs, linear_terms, prior_root, size
from .data import Data

__all__ = [
    "LIKELIHOODS",
    "LINEAR_WIDTH",
    "Likelihood",
    "Statistic",
    "dense_log_likelihood",
    "design",
    "hilbert_log_likelihood",
    "statistic",
    "variance_ratio",
]

LIKELIHOODS = ("hilbert", "dense")
DENSE_MOST = 2000  # stars: beyond, N^3 is hopeless

LINEAR_WIDTH = 30.0  # prior sd of the linear terms' coefficients, in residual scatters per unit of their inputs


class Statistic(NamedTuple):
    """What hilbert_log_likelihood needs of N stars: sufficient for every hyperparameter where weights are common.

    Of the `design` matrix Phi (N, M), its first columns linear terms in units of their prior: `factor` (M, M), lower
    triangular, of 1 + Phi^T Phi; `projection` (M, E) = factor^-1 Phi^T Y; `square` (E, E) = Y^T Y; `count` = N.

    A response surface carries it better than the Gram matrix itself: its errors are in units of what the stars say, and
    what it makes stays positive definite.
    """

    factor: Any
    projection: Any
    square: Any
    count: Any


def design(basis: Basis, x: jax.Array, linear: Any = None) -> jax.Array:
    """Phi (N, M) at inputs x (N, 3): linear terms in units of their prior, those of actions and then any `linear`
    (N, K) besides, and the features of the basis."""
    terms = linear_terms(x) if linear is None else jnp.concatenate([linear_terms(x), linear], 1)
    return jnp.concatenate([LINEAR_WIDTH * terms, jax.vmap(lambda point: features(basis, point))(x)], 1)


def statistic(basis: Basis, x: jax.Array, Y: jax.Array, linear: Any = None) -> Statistic:
    """The statistic of inputs x (N, 3), abundances Y (N, E) and further columns `linear` (N, K)."""
    phi = design(basis, x, linear)
    factor = jnp.linalg.cholesky(jnp.eye(phi.shape[1]) + phi.T @ phi)
    projection = jax.scipy.linalg.solve_triangular(factor, phi.T @ Y, lower=True)
    return Statistic(factor, projection, Y.T @ Y, jnp.asarray(float(Y.shape[0])))


def _rotation(amplitude: Any, scatter_cholesky: Any) -> tuple[Any, Any]:
    """W (E, E) and d (E,): W^T Sigma W = 1 and W^T A W = diag(d)."""
    untied = amplitude * (1 + 1e-7 * jnp.arange(amplitude.shape[0]))  # equal eigenvalues have no gradient
    half = jax.scipy.linalg.solve_triangular(scatter_cholesky, jnp.diag(untied), lower=True)
    left, singular, _ = jnp.linalg.svd(half)
    return jax.scipy.linalg.solve_triangular(scatter_cholesky, left, lower=True, trans=1), singular**2


def variance_ratio(amplitude: Any, scatter_cholesky: Any) -> Any:
    """Variances (E,) of the field in units of the noise's, along their joint principal axes."""
    return _rotation(amplitude, scatter_cholesky)[1]


def _normalisation(count: Any, scatter_cholesky: Any) -> Any:
    elements = scatter_cholesky.shape[0]
    return -count * (0.5 * elements * jnp.log(2 * jnp.pi) + jnp.sum(jnp.log(jnp.diagonal(scatter_cholesky))))


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


def hilbert_log_likelihood(
    data: Statistic, basis: Basis, kernel: str, lengths: Any, amplitude: Any, scatter_cholesky: Any
) -> Any:
    """ln p(Y | x) with the coefficients integrated out (Solin & Sarkka 2020, section 3.3), from the `Statistic`.

    lengths (3,) in units of the inputs; amplitude (E,) and Cholesky factor of Sigma (E, E) in units of Y.
    """
    rotation, d = _rotation(amplitude, scatter_cholesky)
    square = jnp.einsum("ie,ij,je->e", rotation, data.square, rotation)
    linear = data.factor.shape[0] - size(basis)
    root = jax.scipy.linalg.block_diag(jnp.eye(linear), prior_root(basis, kernel, lengths))
    gram = root.T @ (data.factor @ data.factor.T - jnp.eye(len(root))) @ root
    projection = root.T @ (data.factor @ (data.projection @ rotation))

    def regression(d: Any, projection: Any, square: Any) -> Any:
        scale = jnp.where(jnp.arange(len(root)) < linear, 1.0, jnp.sqrt(d))
        precision = jnp.eye(scale.size) + scale[:, None] * gram * scale[None, :]
        return -0.5 * square + _explained(precision, scale * projection)

    terms = jax.vmap(regression, in_axes=(0, 1, 0))(d, projection, square)
    return _normalisation(data.count, scatter_cholesky) + jnp.sum(terms)


def dense_log_likelihood(
    x: jax.Array, Y: jax.Array, kernel: str, lengths: Any, amplitude: Any, scatter_cholesky: Any, linear: Any = None
) -> Any:
    """The same density by one tinygp Gaussian process over the N stars for each rotated element: N^3, for N <= 2,000.

    x (N, 3) inputs, Y (N, E) abundances, `linear` (N, K) further columns; the rest as `hilbert_log_likelihood`.
    """
    rotation, d = _rotation(amplitude, scatter_cholesky)
    even = even_kernel(kernel, lengths)

    points = x if linear is None else jnp.concatenate([x, linear], 1)

    def terms(a: Any) -> Any:
        return jnp.concatenate([linear_terms(a[:3]), a[3:]])

    def process(d: Any, y: Any) -> Any:
        covariance = kernels.Custom(lambda a, b: d * even(a[:3], b[:3]) + LINEAR_WIDTH**2 * jnp.dot(terms(a), terms(b)))
        return GaussianProcess(covariance, points, diag=jnp.ones(x.shape[0])).log_probability(y)

    unit_noise = jax.vmap(process, in_axes=(0, 1))(d, Y @ rotation)
    half_log_two_pi = 0.5 * Y.size * jnp.log(2 * jnp.pi)
    return _normalisation(float(Y.shape[0]), scatter_cholesky) + jnp.sum(unit_noise) + half_log_two_pi


@dataclass(frozen=True, eq=False)
class Likelihood:
    """ln p(abundances | theta, hyperparameters) of the stars in `data`: what a model in `models/` is given.

    Computed by the `kind` "hilbert" or "dense" ("none" is 0: the prior alone). `source`, a function of theta, replaces
    the stars as where the statistic of "hilbert" comes from: a response surface; it also returns a term to add to the
    logarithm, 0 where the surface holds. -inf where a star's actions are undefined or leave the basis' box, or a Gram
    matrix is not positive definite.
    """

    data: Data
    kind: str = "hilbert"
    source: Callable[[Any], tuple[Statistic, Any]] | None = None

    def __post_init__(self) -> None:
        if self.kind not in (*LIKELIHOODS, "none"):
            raise InputError(f"unknown likelihood {self.kind!r}; choose one of {', '.join(LIKELIHOODS)}")
        if self.kind == "dense" and len(self.data) > DENSE_MOST:
            raise InputError(
                f"likelihood 'dense' is for at most {DENSE_MOST} stars; got {len(self.data)}; use likelihood='hilbert'"
            )

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the elements, in the order of amplitude and scatter."""
        return self.data.elements

    def __call__(self, theta: Any, kernel: str, lengths: Any, amplitude: Any, scatter_cholesky: Any) -> Any:
        """Natural logarithm, for theta (`Parameters`) and the arguments of `hilbert_log_likelihood`.

        amplitude (E,) and scatter_cholesky (E, E) in units of `data.scale`, the elements' standard deviations.
        """
        if self.kind == "none":
            return 0.0
        if self.kind == "dense":
            x = inputs(self.data.actions(theta))
            value = dense_log_likelihood(x, self.data.Y, kernel, lengths, amplitude, scatter_cholesky, self.data.linear)
        else:
            if self.data.basis is None:
                raise InputError("likelihood 'hilbert' needs a basis: Data.resolving")
            found, extra = self.source(theta) if self.source else (self._statistic(theta), 0.0)
            value = hilbert_log_likelihood(found, self.data.basis, kernel, lengths, amplitude, scatter_cholesky) + extra
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def _statistic(self, theta: Any) -> Statistic:
        return statistic(self.data.basis, inputs(self.data.actions(theta)), self.data.Y, self.data.linear)
