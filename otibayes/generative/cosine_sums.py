"""Sums over stars from which the Gram matrix of any cosines follows: the one pass over the stars of a likelihood.

A product of two cosines is half the sum of two cosines, of the sum and of the difference of their frequencies. So the
Gram matrix of M products of cosines, M^2 numbers, holds few different ones: sums over the stars of the products of up
to twice the degrees. Those are one matrix product, a tenth of the work of the Gram matrix itself, and serve every
choice of products and of their combinations made afterwards.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..dynamics.trend import wide_terms
from .basis import Basis, cosines

__all__ = ["Moments", "gram", "moments", "projection"]

_CHUNK = 512  # stars at once: their tables stay in the cache


class Moments(NamedTuple):
    """Of N stars on a box: `cosines` (2a+1, 2b+1, 2c+1), sums of the products of cosines of all degrees up to twice
    (a, b, c); `columns` (a+1, b+1, c+1, W+Z), those up to (a, b, c) times the W wide terms and Z columns of data;
    `square` (W+Z, W+Z), products of these with one another; `count`, N. There may be a leading axis.
    """

    cosines: Any
    columns: Any
    square: Any
    count: Any


def moments(box: tuple[Any, Any], degrees: tuple[int, ...], x: jax.Array, Z: jax.Array, weight: Any) -> Moments:
    """Of inputs x (N, 3) and data Z (N, Z), weighted by `weight` (N,), on the box (low, high); NaN beyond it."""
    number = len(x)
    chunk = min(_CHUNK, number)
    lack = -number % chunk

    def chunks(column: Any) -> Any:  # the last one is filled with copies of a star that weigh nothing
        padded = jnp.pad(column, ((0, lack), *[(0, 0)] * (column.ndim - 1)), mode="edge")
        return padded.reshape(-1, chunk, *column.shape[1:])

    weight = jnp.asarray(weight) * jnp.ones(number)
    every = (chunks(x), chunks(Z), chunks(weight) * (np.arange(number + lack) < number).reshape(-1, chunk))
    if len(every[0]) == 1:
        return _chunk(box, degrees, *(column[0] for column in every))
    shapes = jax.eval_shape(lambda: _chunk(box, degrees, *(column[0] for column in every)))

    def step(total: Moments, one: tuple) -> tuple[Moments, None]:
        return jax.tree.map(jnp.add, total, _chunk(box, degrees, *one)), None

    return jax.lax.scan(step, jax.tree.map(lambda s: jnp.zeros(s.shape), shapes), every)[0]


def _chunk(box: Any, degrees: tuple[int, ...], x: Any, Z: Any, weight: Any) -> Moments:
    # stars last: the products are of contiguous rows
    tables = [cosines(box, x[:, i], i, 2 * degree) for i, degree in enumerate(degrees)]
    weighted = tables[2] * weight[None]
    few = [table[: degree + 1] for table, degree in zip(tables, degrees, strict=True)]
    Z = jnp.concatenate([wide_terms(x), Z], 1).T
    wide = (tables[0][:, None] * tables[1][None]).reshape(-1, len(x))
    plane = (few[0][:, None] * few[1][None]).reshape(-1, len(x))
    third = (weighted[: degrees[2] + 1, None] * Z[None]).reshape(-1, len(x))
    return Moments(
        (wide @ weighted.T).reshape([2 * degree + 1 for degree in degrees]),
        (plane @ third.T).reshape(*(degree + 1 for degree in degrees), len(Z)),
        (Z * weight[None]) @ Z.T,
        jnp.sum(weight),
    )


def gram(basis: Basis, found: Moments) -> Any:
    """Phi^T Phi (M, M) of the basis' M products of cosines, uncombined."""
    d = basis.degrees
    sums, differences = d[:, None] + d[None], np.abs(d[:, None] - d[None])
    total = 0.0
    for signs in np.ndindex(2, 2, 2):
        a, b, c = (np.where(sign, sums[..., i], differences[..., i]) for i, sign in enumerate(signs))
        total = total + found.cosines[a, b, c]
    return total / 8


def projection(basis: Basis, found: Moments) -> Any:
    """Phi^T Z (M, W+Z) of the products with the wide terms and data Z."""
    a, b, c = basis.degrees.T
    return found.columns[a, b, c]
