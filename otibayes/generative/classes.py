"""Classes of stars that lack the same abundances and have like errors: each needs sums of its own, no star does."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2

__all__ = ["Classes", "classify"]

_PATTERNS = 8  # of missing abundances, at most
_SEED = 0x636C61


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
    kept = patterns[[i for i in commonest if patterns[i].any()][:_PATTERNS]]
    serves = np.array([[not (k & ~p).any() for k in kept] for p in patterns])
    best = np.where(serves.any(1), np.argmax(np.where(serves, kept.sum(1)[None], -1), 1), -1)
    member = best[np.ravel(pattern)]
    used = np.unique(member[member >= 0])
    if variance is None:
        label = np.searchsorted(used, member)
        return np.where(member < 0, -1, label), Classes(kept[used], np.zeros((len(used), observed.shape[1])))
    label = np.full(len(observed), -1)
    rows: list[np.ndarray] = []
    means: list[np.ndarray] = []
    for k in used:
        stars = np.flatnonzero(member == k)
        for group in _alike(variance[stars][:, kept[k]], number):
            label[stars[group]] = len(rows)
            rows.append(kept[k])
            means.append(np.where(kept[k], variance[stars[group]].mean(0), 0.0))
    return label, Classes(np.array(rows), np.array(means))


def _alike(variance: np.ndarray, number: int) -> list[np.ndarray]:
    """Indices of the stars of each group."""
    log = np.log(np.maximum(variance, 1e-12))
    if number == 1 or np.ptp(log, 0).max() < 1e-9:
        return [np.arange(len(log))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty group is left out
        _, group = kmeans2(log, min(number, len(log)), minit="++", seed=_SEED)
    return [np.flatnonzero(group == g) for g in np.unique(group)]
