"""Relabelled inputs: labels of orbits that theta, averaged over the stars, leaves alone.

Theta relabels orbits. A survey sees each torus at some angles only, so the inputs x(theta) of the stars of a torus
change in the mean, and with them the field as a function of the inputs. A prior of the field on x(theta) prefers some
of these changes, and so biases theta. Any smooth function of x(theta) is as good a label. The one used is

    s = x(theta) - D(x(theta)),    D(x) = E[x(theta) - x(reference) | x(theta) = x] over the stars,

where D is a least-squares regression on polynomials of degree four. With it the score of theta is orthogonal to any
smooth change of the field (the efficient score of a semiparametric model: Bickel et al. 1993, chapter 3), so that an
error of the field's prior biases theta to second order only. Numbers: docs/generative.md, The field's prior and theta.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base.surface import chebyshev

__all__ = ["Reference", "Relabelling", "regression", "regression_sums"]

_DEGREE = 4
_ROOM = 1.2  # of the reference inputs' range, in which polynomials are used; beyond it they are constant
_RIDGE = 1e-10  # of a sum of squares, for terms that the stars do not tell


class Relabelling(NamedTuple):
    """s = x - D(x) at one theta: `change` (T, 3), D's coefficients of the terms; the terms' `middle` and `half` (3,),
    centre and half width of the range of their arguments."""

    change: Any
    middle: Any
    half: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        """Relabelled inputs (n, 3) of inputs x (n, 3)."""
        s = x - _weights(x) * (_terms(x, self.middle, self.half) @ self.change)
        return jnp.where(np.array([[True, False, True]]), jnp.abs(s), s)  # the field is even in both roots


class Reference(NamedTuple):
    """The inputs `x` (N, 3) of all stars in a reference model `theta` (d,), and the range of the terms: see
    `Relabelling`."""

    theta: np.ndarray
    x: np.ndarray
    middle: np.ndarray
    half: np.ndarray

    @classmethod
    def of(cls, theta: np.ndarray, x: np.ndarray) -> "Reference":
        arguments = np.asarray(_arguments(jnp.asarray(x)))
        low, high = arguments.min(0), arguments.max(0)
        return cls(np.asarray(theta, float), x, (low + high) / 2, np.maximum(_ROOM * (high - low) / 2, 1e-6))


def _arguments(x: jax.Array) -> jax.Array:
    """ln(1 + J_R / 30), (L_z - L_0) / 300, ln(1 + J_z / 10) (n, 3) of inputs x (n, 3)."""
    return jnp.stack([jnp.log1p(x[:, 0] ** 2), x[:, 1], jnp.log1p(x[:, 2] ** 2)], -1)


def _terms(x: jax.Array, middle: jax.Array, half: jax.Array) -> jax.Array:
    """All products of Chebyshev polynomials of total degree up to four in the arguments (n, T)."""
    unit = jnp.clip((_arguments(x) - jnp.asarray(middle)[None]) / jnp.asarray(half)[None], -1.0, 1.0)
    return jax.vmap(lambda point: chebyshev(point, _DEGREE))(unit)


def _weights(x: jax.Array) -> jax.Array:
    """(n, 3): the roots change in proportion, so that a zero stays a zero."""
    return jnp.stack([x[:, 0], jnp.ones(len(x)), x[:, 2]], -1)


def regression_sums(x: jax.Array, reference: jax.Array, weight: jax.Array, middle: Any, half: Any) -> tuple[Any, Any]:
    """Normal equations (3, T, T), (3, T) of the change x - reference (n, 3) of the inputs x (n, 3) on the terms."""
    design = _weights(x).T[:, :, None] * _terms(x, middle, half)[None]
    weighted = design * weight[None, :, None]
    return jnp.einsum("jnt,jnu->jtu", weighted, design), jnp.einsum("jnt,nj->jt", weighted, x - reference)


def regression(gram: jax.Array, projection: jax.Array) -> jax.Array:
    """The coefficients (T, 3) that solve the normal equations."""
    ridge = _RIDGE * jnp.trace(gram, axis1=1, axis2=2)[:, None, None] * jnp.eye(gram.shape[-1])[None]
    return jnp.linalg.solve(gram + ridge, projection[..., None])[..., 0].T
