"""What the stars tell the hyperparameters: the statistic of the likelihood, from sums over the stars."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..dynamics.trend import wide_terms
from .basis import Basis, combinations, features
from .cosine_sums import Moments, gram, moments, projection

__all__ = ["WIDTH", "Statistic", "condensed", "design", "statistic"]

WIDTH = 30.0  # prior sd of the wide terms' coefficients, in residual scatters per unit of their inputs


class Statistic(NamedTuple):
    """What hilbert_log_likelihood needs of N stars: sufficient for every hyperparameter where they weigh alike.

    Of the `design` matrix Phi (N, M), its first columns wide terms in units of their prior: `factor` (M, M), lower
    triangular, of 1 + Phi^T Phi; `projection` (M, E) = factor^-1 Phi^T Y; `square` (E, E) = Y^T Y; `count` = N. Where
    stars do not weigh alike, each class has its own, by a leading axis.

    A response surface carries it better than the Gram matrix itself: its errors are in units of what the stars say, and
    what it makes stays positive definite.
    """

    factor: Any
    projection: Any
    square: Any
    count: Any


def design(basis: Basis, x: jax.Array, linear: Any = None) -> jax.Array:
    """Phi (N, M) at inputs x (N, 3): wide terms in units of their prior, those of actions and then any `linear`
    (N, L) besides, and the features of the basis."""
    terms = wide_terms(x) if linear is None else jnp.concatenate([wide_terms(x), linear], 1)
    return jnp.concatenate([WIDTH * terms, jax.vmap(lambda point: features(basis, point))(x)], 1)


def statistic(basis: Basis, x: jax.Array, Y: jax.Array, linear: Any = None) -> Statistic:
    """The statistic of inputs x (N, 3), abundances Y (N, E) and further columns `linear` (N, L)."""
    box, degrees = (basis.low, basis.high), tuple(map(int, basis.degrees.max(0)))
    Z = Y if linear is None else jnp.concatenate([linear, Y], 1)
    return condensed(basis, moments(box, degrees, x, Z, jnp.ones(len(x))), Y.shape[1])


def condensed(basis: Basis, found: Moments, elements: int) -> Statistic:
    """The statistic of sums over the stars, the last columns of which are so many elements."""
    if jnp.ndim(found.count):
        return jax.vmap(lambda one: condensed(basis, one, elements))(found)
    combine, linear = combinations(basis), found.square.shape[-1] - elements
    width = np.where(np.arange(linear + elements) < linear, WIDTH, 1.0)
    square = found.square * (width[:, None] * width[None])
    across = combine.T @ (projection(basis, found) * width[None])
    wiggly = combine.T @ gram(basis, found) @ combine
    G = jnp.block([[square[:linear, :linear], across[:, :linear].T], [across[:, :linear], wiggly]])
    factor = jnp.linalg.cholesky(jnp.eye(len(G)) + G)
    b = jnp.concatenate([square[:linear, linear:], across[:, linear:]])
    b = jax.scipy.linalg.solve_triangular(factor, b, lower=True)
    return Statistic(factor, b, square[linear:, linear:], found.count)
