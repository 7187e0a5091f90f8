"""Weights of stars whose abundances scatter with heavy tails: those that a Student t gives them about a first field."""

import jax
import jax.numpy as jnp
import numpy as np

from ..dynamics.trend import wide_terms
from .basis import features, make_basis, spectrum

__all__ = ["student_weights"]

_ROUNDS = 30
_LENGTH, _AMPLITUDE, _WIDE = 3.0, 0.5, 30.0  # of the first field: as the models' priors have them
_COSINES = 60


def student_weights(x: np.ndarray, linear: np.ndarray | None, Y: np.ndarray, seen: np.ndarray, nu: float) -> np.ndarray:
    """w (N,) = (nu + E) / (nu + d^2), of mean 1: the expected precision of each star under a multivariate t.

    Expectation-maximisation (Liu & Rubin 1995): a regression of Y (N, E), 0 where not `seen` (N, E), on a smooth field
    of the inputs x (N, 3) and on `linear` columns (N, L), and the scatter matrix of its residuals, from which the
    squared distances d^2 follow over the E elements that the star has.
    """
    basis = make_basis(x, np.full(3, _LENGTH), _COSINES)
    cosines = np.asarray(jax.jit(jax.vmap(lambda point: features(basis, point)))(jnp.asarray(x)))
    straight = np.asarray(wide_terms(jnp.asarray(x)))
    design = np.concatenate([straight, cosines] if linear is None else [straight, linear, cosines], 1)
    field = _AMPLITUDE**2 * np.asarray(spectrum(basis, "expsquared", np.full(3, _LENGTH)))
    penalty = 1 / np.concatenate([np.full(design.shape[1] - len(field), _WIDE**2), field])
    weight, elements = np.ones(len(Y)), seen.sum(1)
    patterns, which = np.unique(seen, axis=0, return_inverse=True)
    for _ in range(_ROUNDS):
        residual = np.zeros_like(Y)
        for e in range(Y.shape[1]):
            w = weight * seen[:, e]
            gram = (design * w[:, None]).T @ design + np.diag(penalty)
            residual[:, e] = seen[:, e] * (Y[:, e] - design @ np.linalg.solve(gram, design.T @ (w * Y[:, e])))
        both = seen.T.astype(float) @ seen
        Sigma = (residual * weight[:, None]).T @ residual / np.maximum(both, 1.0) + 1e-9 * np.eye(Y.shape[1])
        values, vectors = np.linalg.eigh(Sigma)  # pairs of elements may come from different stars
        Sigma = (vectors * np.maximum(values, 1e-6)) @ vectors.T
        distance = np.zeros(len(Y))
        for k, pattern in enumerate(patterns):
            mine, some = which.ravel() == k, np.flatnonzero(pattern)
            r = residual[np.ix_(mine, some)]
            distance[mine] = np.einsum("ni,ij,nj->n", r, np.linalg.inv(Sigma[np.ix_(some, some)]), r)
        weight = (nu + elements) / (nu + distance)
        weight /= weight.mean()
    return weight
