"""Sums over stars, and the statistic that follows from them: all that the likelihood needs of the stars.

A product of two cosines is half the sum of two cosines, of the sum and of the difference of their frequencies. So the
Gram matrix of M products of cosines, M^2 numbers, holds few different ones: sums over the stars of the products of up
to twice the degrees (`Moments`). They are one matrix product, a tenth of the work of the Gram matrix, and serve any
choice of products and of their combinations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..dynamics.trend import trend_terms
from .basis import Basis, cosines, features, products_of_pairs

__all__ = [
    "WIDTH",
    "Moments",
    "Statistic",
    "condensed",
    "design",
    "gram",
    "moments",
    "projection",
    "statistic",
    "sum_over_chunks",
]

WIDTH = 30.0  # prior sd of the trend's coefficients, in residual scatters per unit of its terms
_CHUNK = 512  # stars at once: their tables stay in the cache


class Moments(NamedTuple):
    """Of N stars on a box: `cosines` (2a+1, 2b+1, 2c+1), sums of the products of cosines of all degrees up to twice
    (a, b, c); `columns` (a+1, b+1, c+1, T+Z), those up to (a, b, c) times the T trend terms and Z columns of data;
    `square` (T+Z, T+Z), products of these with one another; `count`, N; `change`, the relabelling's coefficients at
    the theta of the sums, or None where inputs are not relabelled. There may be a leading axis of classes.
    """

    cosines: Any
    columns: Any
    square: Any
    count: Any
    change: Any = None


class Statistic(NamedTuple):
    """What `hilbert_log_likelihood` needs of N stars: sufficient for every hyperparameter where they weigh alike.

    Of the `design` matrix Phi (N, M): `factor` (M, M), lower triangular, of 1 + Phi^T Phi; `projection` (M, E) =
    factor^-1 Phi^T Y; `square` (E, E) = Y^T Y; `count` = N; `change` as in `Moments`. Where stars do not weigh alike,
    there is a leading axis of classes. A response surface carries the factor better than the Gram matrix: its errors
    are in units of what the stars tell, and it stays positive definite.
    """

    factor: Any
    projection: Any
    square: Any
    count: Any
    change: Any = None

    @property
    def relabelling(self) -> Any:
        """`change`, which all classes share, without their axis."""
        return self.change[0] if self.change is not None and jnp.ndim(self.count) else self.change


def moments(box: tuple[Any, Any], degrees: tuple[int, ...], x: jax.Array, Z: jax.Array, weight: Any) -> Moments:
    """Of inputs x (N, 3) and data Z (N, Z), weighted by `weight` (N,), on the box (low, high); NaN beyond it."""
    return sum_over_chunks(partial(_chunk, box, degrees), x, Z, jnp.asarray(weight) * jnp.ones(len(x)))


def sum_over_chunks(function: Callable[..., Any], *columns: Any) -> Any:
    """Sum over chunks of stars of a `function` of their columns (n, ...), the last of which are weights (n,)."""
    number = len(columns[0])
    chunk = min(_CHUNK, number)
    lack = -number % chunk

    def chunks(column: Any) -> Any:  # the last one is filled with copies of a star that weigh nothing
        padded = jnp.pad(column, ((0, lack), *[(0, 0)] * (column.ndim - 1)), mode="edge")
        return padded.reshape(-1, chunk, *column.shape[1:])

    *others, weight = map(chunks, columns)
    pieces = (*others, weight * (np.arange(number + lack) < number).reshape(-1, chunk))
    if len(weight) == 1:
        return function(*(piece[0] for piece in pieces))
    shapes = jax.eval_shape(lambda: function(*(piece[0] for piece in pieces)))

    def step(total: Any, one: tuple) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*one)), None

    return jax.lax.scan(step, jax.tree.map(lambda s: jnp.zeros(s.shape), shapes), pieces)[0]


def _chunk(box: Any, degrees: tuple[int, ...], x: Any, Z: Any, weight: Any) -> Moments:
    # stars last: the products are of contiguous rows
    tables = [cosines(box, x[:, i], i, 2 * degree) for i, degree in enumerate(degrees)]
    weighted = tables[2] * weight[None]
    low = [table[: degree + 1] for table, degree in zip(tables, degrees, strict=True)]
    Z = jnp.concatenate([trend_terms(x), Z], 1).T
    double = (tables[0][:, None] * tables[1][None]).reshape(-1, len(x))
    single = (low[0][:, None] * low[1][None]).reshape(-1, len(x))
    third = (weighted[: degrees[2] + 1, None] * Z[None]).reshape(-1, len(x))
    return Moments(
        (double @ weighted.T).reshape([2 * degree + 1 for degree in degrees]),
        (single @ third.T).reshape(*(degree + 1 for degree in degrees), len(Z)),
        (Z * weight[None]) @ Z.T,
        jnp.sum(weight),
    )


def gram(basis: Basis, found: Moments) -> Any:
    """Phi^T Phi (M, M) of the basis' M products of cosines, uncombined."""
    return products_of_pairs(found.cosines, basis.degrees)


def projection(basis: Basis, found: Moments) -> Any:
    """Phi^T Z (M, T+Z) of the products with the trend terms and data Z."""
    a, b, c = basis.degrees.T
    return found.columns[a, b, c]


def design(basis: Basis, x: jax.Array, linear: Any = None) -> jax.Array:
    """Phi (N, M) at inputs x (N, 3): trend terms in units of their prior, any `linear` (N, L) columns likewise, and the
    features of the basis."""
    terms = trend_terms(x) if linear is None else jnp.concatenate([trend_terms(x), linear], 1)
    return jnp.concatenate([WIDTH * terms, jax.vmap(lambda point: features(basis, point))(x)], 1)


def statistic(basis: Basis, x: jax.Array, Y: jax.Array, linear: Any = None) -> Statistic:
    """The statistic of inputs x (N, 3), abundances Y (N, E) and further columns `linear` (N, L)."""
    box, degrees = (basis.low, basis.high), tuple(map(int, basis.degrees.max(0)))
    Z = Y if linear is None else jnp.concatenate([linear, Y], 1)
    return condensed(basis, moments(box, degrees, x, Z, jnp.ones(len(x))), Y.shape[1])


def condensed(basis: Basis, found: Moments, elements: int) -> Statistic:
    """The statistic that follows from sums over the stars, whose last columns are the elements."""
    if jnp.ndim(found.count):
        return jax.vmap(lambda one: condensed(basis, one, elements))(found)
    combine, linear = basis.combinations, found.square.shape[-1] - elements
    width = np.where(np.arange(linear + elements) < linear, WIDTH, 1.0)
    square = found.square * (width[:, None] * width[None])
    across = combine.T @ (projection(basis, found) * width[None])
    process = combine.T @ gram(basis, found) @ combine
    G = jnp.block([[square[:linear, :linear], across[:, :linear].T], [across[:, :linear], process]])
    factor = jnp.linalg.cholesky(jnp.eye(len(G)) + G)
    b = jnp.concatenate([square[:linear, linear:], across[:, linear:]])
    b = jax.scipy.linalg.solve_triangular(factor, b, lower=True)
    return Statistic(factor, b, square[linear:, linear:], found.count, found.change)
