"""How stars weigh: classes that lack the same abundances and have like errors, and Student weights of outlying stars.

Each class needs its own sums over its stars; single stars need none.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

from ..dynamics.trend import trend_terms
from .basis import features, make_basis, spectrum

__all__ = ["Classes", "classify", "student_weights"]

_PATTERNS = 8  # of missing abundances, at most
_SEED = 0x636C61
_ROUNDS = 30  # of expectation-maximisation
_LENGTH, _AMPLITUDE, _TREND = 3.0, 0.5, 30.0  # of the first field: as the models' priors have them
_COSINES = 60


class Classes(NamedTuple):
    """Of C classes, which of E elements are `observed` (C, E), and the mean `variance` (C, E) of their measurement
    errors beyond what Sigma has, in units of Y squared."""

    observed: np.ndarray
    variance: np.ndarray

    @property
    def common(self) -> bool:
        """Whether all stars weigh alike, and have all elements."""
        return len(self.observed) == 1 and bool(self.observed.all()) and not self.variance.any()


def classify(observed: np.ndarray, variance: np.ndarray | None, number: int) -> tuple[np.ndarray, Classes]:
    """Each star's class (N,), -1 for a star that is in none, and the classes.

    `observed` (N, E); `variance` (N, E) of errors, None where all are alike; `number` of classes of error for each
    pattern of missing elements, by k-means in the logarithm of the variances. The commonest patterns are kept; a star
    with another one serves with those of its abundances that such a pattern has.
    """
    patterns, pattern, count = np.unique(observed, axis=0, return_inverse=True, return_counts=True)
    commonest = np.argsort(-count, kind="stable")
    common = patterns[[i for i in commonest if patterns[i].any()][:_PATTERNS]]
    serves = np.array([[not (k & ~p).any() for k in common] for p in patterns])
    best = np.where(serves.any(1), np.argmax(np.where(serves, common.sum(1)[None], -1), 1), -1)
    member = best[np.ravel(pattern)]
    used = np.unique(member[member >= 0])
    if variance is None:
        label = np.searchsorted(used, member)
        return np.where(member < 0, -1, label), Classes(common[used], np.zeros((len(used), observed.shape[1])))
    label = np.full(len(observed), -1)
    rows: list[np.ndarray] = []
    means: list[np.ndarray] = []
    for k in used:
        stars = np.flatnonzero(member == k)
        for group in _alike(variance[stars][:, common[k]], number):
            label[stars[group]] = len(rows)
            rows.append(common[k])
            means.append(np.where(common[k], variance[stars[group]].mean(0), 0.0))
    return label, Classes(np.array(rows), np.array(means))


def _alike(variance: np.ndarray, number: int) -> list[np.ndarray]:
    """Indices of the stars of each group of like variances."""
    log = np.log(np.maximum(variance, 1e-12))
    if number == 1 or np.ptp(log, 0).max() < 1e-9:
        return [np.arange(len(log))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty group is left out
        _, group = kmeans2(log, min(number, len(log)), minit="++", seed=_SEED)
    return [np.flatnonzero(group == g) for g in np.unique(group)]


def student_weights(x: np.ndarray, linear: np.ndarray | None, Y: np.ndarray, seen: np.ndarray, nu: float) -> np.ndarray:
    """w (N,) = (nu + E) / (nu + d^2), of mean 1: the expected precision of each star under a multivariate t.

    Expectation-maximisation (Liu & Rubin 1995): a regression of Y (N, E), 0 where not `seen` (N, E), on a smooth field
    of the inputs x (N, 3) and on `linear` columns (N, L), and the scatter matrix of its residuals, from which the
    squared distances d^2 follow over the E elements that the star has.
    """
    basis = make_basis(x, np.full(3, _LENGTH), _COSINES)
    cosines = np.asarray(jax.jit(jax.vmap(lambda point: features(basis, point)))(jnp.asarray(x)))
    trend = np.asarray(trend_terms(jnp.asarray(x)))
    design = np.concatenate([trend, cosines] if linear is None else [trend, linear, cosines], 1)
    field = _AMPLITUDE**2 * np.asarray(spectrum(basis, "expsquared", np.full(3, _LENGTH)))
    penalty = 1 / np.concatenate([np.full(design.shape[1] - len(field), _TREND**2), field])
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
            mine, present = which.ravel() == k, np.flatnonzero(pattern)
            r = residual[np.ix_(mine, present)]
            distance[mine] = np.einsum("ni,ij,nj->n", r, np.linalg.inv(Sigma[np.ix_(present, present)]), r)
        weight = (nu + elements) / (nu + distance)
        weight /= weight.mean()
    return weight
