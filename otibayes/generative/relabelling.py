"""Relabelled inputs: labels of orbits that, averaged over the stars, do not change with theta.

Theta relabels orbits. A survey sees each torus at some angles only, so the inputs x(theta) of the stars of a torus
change in the mean, and with them the field as a function of the inputs. A prior of the field on x(theta) prefers some
of these changes, and so biases theta. Any smooth function of x(theta) is as good a label. The one used is

    s = x(theta) - D(x(theta)),    D(x) = E[x(theta) - x(reference) | x(theta) = x] over the stars,

where D is a least-squares regression on polynomials. With it the score of theta is orthogonal to any smooth change of
the field (the efficient score of a semiparametric model: Bickel et al. 1993, chapter 3), so that an error of the
field's prior biases theta to second order only. Numbers: docs/checks.md, The bias of the field's prior.
"""

from dataclasses import dataclass, field
from functools import partial
from math import comb
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base.response_surface import exponents
from .basis import multiples, products_of_pairs
from .statistic import sum_over_chunks

__all__ = ["Reference", "Relabelling", "Terms", "degree_for", "fit_relabelling", "relabelling_sums", "relabelled"]

_DEGREES = (2, 3, 4, 5, 6, 8)  # of the polynomials: the largest for which there are stars enough
_STARS = 50  # for each term, at least
_ROOM = 1.2  # of the reference inputs' range, in which polynomials are used; beyond it they are constant
_RIDGE = 1e-10  # of a sum of squares, for terms that the stars do not tell


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Terms:
    """The T products of Chebyshev polynomials of total degree <= `degree` in ln(1 + J_R / 30), (L_z - L_0) / 300 and
    ln(1 + J_z / 10), over a range of these arguments with its `middle` and `half` width (3,)."""

    middle: Any
    half: Any
    degree: int = field(metadata={"static": True})

    @classmethod
    def over(cls, x: np.ndarray, degree: int) -> "Terms":
        """Over the range of inputs x (N, 3)."""
        arguments = np.asarray(_arguments(jnp.asarray(x)))
        low, high = arguments.min(0), arguments.max(0)
        return cls((low + high) / 2, np.maximum(_ROOM * (high - low) / 2, 1e-6), degree)

    @property
    def exponents(self) -> np.ndarray:
        """Degree in each argument (T, 3)."""
        return exponents(3, self.degree)

    def tables(self, x: jax.Array, most: int) -> jax.Array:
        """Chebyshev polynomials of degrees 0 to `most` in each argument of inputs x (n, 3): (3, most + 1, n)."""
        unit = jnp.clip((_arguments(x) - jnp.asarray(self.middle)[None]) / jnp.asarray(self.half)[None], -1.0, 1.0)
        return jnp.swapaxes(multiples(unit.T, most), 0, 1)


def degree_for(stars: int) -> int:
    """The degree of the polynomials that so many stars can tell."""
    return max((d for d in _DEGREES if comb(3 + d, 3) * _STARS <= stars), default=_DEGREES[0])


def _arguments(x: jax.Array) -> jax.Array:
    return jnp.stack([jnp.log1p(x[:, 0] ** 2), x[:, 1], jnp.log1p(x[:, 2] ** 2)], -1)


def _weights(x: jax.Array) -> jax.Array:
    """(3, n): the roots change in proportion, so that a zero stays a zero."""
    return jnp.stack([x[:, 0], jnp.ones(len(x)), x[:, 2]])


def _pairs(size: int) -> Any:
    """Degrees in the first two arguments whose sum is less than `size`: two arrays."""
    return np.nonzero(np.add.outer(np.arange(size), np.arange(size)) < size)


class Relabelling(NamedTuple):
    """s = x - D(x) at one theta: `change` (T, 3), D's coefficients of the `terms`."""

    change: Any
    terms: Terms

    def __call__(self, x: jax.Array) -> jax.Array:
        """Relabelled inputs (n, 3) of inputs x (n, 3)."""
        tables, size, (a, b, c) = self.terms.tables(x, self.terms.degree), self.terms.degree + 1, self.terms.exponents.T
        first, second = _pairs(size)
        whole = jnp.zeros((size, size, 3, size)).at[a, b, :, c].set(self.change)[first, second]
        inner = whole.reshape(len(first), -1).T @ (tables[0][first] * tables[1][second])
        s = x - (_weights(x) * jnp.sum(inner.reshape(3, size, -1) * tables[2][None], 1)).T
        return jnp.where(np.array([[True, False, True]]), jnp.abs(s), s)  # the field is even in both roots


class Reference(NamedTuple):
    """The inputs `x` (N, 3) of all stars in a reference model `theta` (d,), and the `terms` of their regression."""

    theta: np.ndarray
    x: np.ndarray
    terms: Terms

    @classmethod
    def of(cls, theta: np.ndarray, x: np.ndarray, degree: int) -> "Reference":
        return cls(np.asarray(theta, float), x, Terms.over(x, degree))


def relabelled(x: jax.Array, change: Any, terms: Terms | None) -> jax.Array:
    """Labels (n, 3) of inputs x (n, 3), by coefficients of the terms; the inputs, where there are none."""
    return x if change is None or terms is None else Relabelling(change, terms)(x)


def relabelling_sums(x: jax.Array, reference: jax.Array, weight: jax.Array, terms: Terms) -> tuple[Any, Any]:
    """Sums over stars that give the normal equations of the change x - reference (n, 3) of the inputs x (n, 3): of the
    products of polynomials of up to twice the degree, and of the polynomials times the change."""
    # backwards, tables are made again: cheaper than to keep those of all chunks
    return sum_over_chunks(jax.checkpoint(partial(_chunk, terms)), x, reference, weight)


def _chunk(terms: Terms, x: jax.Array, reference: jax.Array, weight: jax.Array) -> tuple[Any, Any]:
    tables, size = terms.tables(x, 2 * terms.degree), terms.degree + 1
    weighted = _weights(x) * weight[None]

    def sums(tables: jax.Array, columns: jax.Array) -> jax.Array:
        size = tables.shape[1]
        first, second = _pairs(size)
        others = (columns[:, None] * tables[2][None]).reshape(3 * size, -1)
        found = (tables[0][first] * tables[1][second]) @ others.T
        return jnp.zeros((size, size, 3, size)).at[first, second].set(found.reshape(-1, 3, size))

    return sums(tables, weighted * _weights(x)), sums(tables[:, :size], weighted * (x - reference).T)


def fit_relabelling(sums: Any, terms: Terms) -> jax.Array:
    """The coefficients (T, 3) that solve the normal equations of `relabelling_sums`."""
    products, projections = sums
    a, b, c = terms.exponents.T
    gram = jnp.stack([products_of_pairs(products[:, :, j], terms.exponents) for j in range(3)])
    ridge = _RIDGE * jnp.trace(gram, axis1=1, axis2=2)[:, None, None] * jnp.eye(len(a))[None]
    return jnp.linalg.solve(gram + ridge, projections[a, b, :, c].T[..., None])[..., 0].T
