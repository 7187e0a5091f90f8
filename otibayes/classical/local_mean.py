"""The deviation of each star's label from the local mean at its actions (PW21, equation 2 and appendix A).

A bootstrap resample is a vector of integer weights: how often each star was drawn. One neighbour search then serves
all labels and all resamples: a star's neighbours are taken in order of distance until their weights sum to K, and the
weight of the last one is truncated. Threads work on blocks of stars that are close in action space.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from ..base.errors import InputError
from ..base.parallel import cores
from .settings import ClassicalSettings

__all__ = ["deviation", "deviation_blocks", "local_mean", "nearest"]

_BLOCK = 128 * 129  # stars times resamples in a block, so that the neighbours' weights stay in the cache
_LARGEST_BLOCK = 2048  # stars
_ROWS = 4096  # arrays are padded to multiples of it, so that few sizes are compiled
_SHORT = 2e-3  # share of stars that the first search leaves with too few neighbours in some resample
_PAIRS = [(i, j) for i in range(3) for j in range(i, 3)]  # of actions
_ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}  # each block already has a thread of its own


def nearest(tree: cKDTree, stars: np.ndarray, number: int) -> np.ndarray:
    """Indices (S, number) of the nearest neighbours of the tree's points `stars` (S,), without the point itself."""
    _, index = tree.query(tree.data[stars], k=number + 1)
    itself = index == stars[:, None]
    itself[~itself.any(1), -1] = True  # many stars share its actions, and the query did not list the star itself
    return index[~itself].reshape(len(stars), number)


def local_mean(counts: Any, x: Any, y: Any, naive: bool = False) -> np.ndarray:
    """Mean label at the star, from its neighbours: (S, E, B) (PW21, equations A1-A6).

    `counts` (K, S, B): how often each of K neighbours of S stars counts in each of B resamples; `x` (S, 3, K): their
    displacements J_k - J_* [kpc km/s]; `y` (S, E, K): their labels. `naive` takes A1, and so does a star whose
    displacement A2 underflows.
    """
    counts = np.asarray(counts)
    if naive:
        weights, total = counts, counts.sum(0)
    else:  # products by BLAS, three times as fast as XLA's
        sums = np.matmul(np.asarray(_moments(x)), counts.transpose(1, 0, 2))
        weights, total = map(np.asarray, _weights(counts, x, sums))
    return np.matmul(np.asarray(y), weights.transpose(1, 0, 2)) / total[:, None]


@partial(jax.jit, compiler_options=_ONE_THREAD)
def _moments(x: Any) -> Any:
    """1, x and x x of each neighbour: (S, 10, K)."""
    return jnp.concatenate([jnp.ones_like(x[:, :1]), x, *(x[:, [i]] * x[:, [j]] for i, j in _PAIRS)], 1)


@partial(jax.jit, compiler_options=_ONE_THREAD)
def _weights(counts: Any, x: Any, sums: Any) -> tuple[Any, Any]:
    """Weights w_k of A6 times the counts, (K, S, B), and their sum over neighbours (S, B); `sums` of `_moments`."""
    total = jnp.maximum(sums[:, 0], 1)  # K of the paper, (S, B); no one uses the mean of a star without neighbours
    sum_x, sum_xx = sums[:, 1:4], sums[:, 4:]
    d = sum_x / total[:, None]  # A2, less J_*
    xi = (d * sum_x).sum(1)  # sums over k of xi_k = x_k . d (A3) and of xi_k^2
    xi2 = sum((1 if i == j else 2) * d[:, i] * d[:, j] * sum_xx[:, n] for n, (i, j) in enumerate(_PAIRS))
    norm = total * xi2 - xi**2  # sum of -w_k, where w_k = xi_k sum(xi) - sum(xi^2) (A6); never negative
    steep = norm > 64 * jnp.finfo(norm.dtype).eps * total * xi2
    terms = d * jnp.where(steep, xi, 0)[:, None], jnp.where(steep, xi2, 1), jnp.where(steep, norm, total)
    # without the barrier XLA computes these terms anew for every neighbour
    slope, constant, norm = jax.lax.optimization_barrier(terms)
    return counts * (constant[None] - sum(x[:, i].T[:, :, None] * slope[None, :, i] for i in range(3))), norm


@partial(jax.jit, static_argnums=(2, 3, 4), compiler_options=_ONE_THREAD)
def _truncated_counts(drawn: Any, index: Any, K: int, own_copies: bool, dtype: Any) -> Any:
    """Total count (S, B), at most K, and how often each of the neighbours `index` (S, k) is in it (k, S, B)."""
    rows = drawn[index.T]
    if own_copies:  # the first neighbour is the star itself, and only its copies count
        rows = rows.at[0].set(jnp.maximum(rows[0], 1) - 1)

    def step(before: Any, row: Any) -> Any:
        now = jnp.minimum(before + row, K)
        return now, (now - before).astype(dtype)

    return jax.lax.scan(step, jnp.zeros_like(rows[0]), rows)


@partial(jax.jit, static_argnums=4, compiler_options=_ONE_THREAD)
def _gathered(actions: Any, labels: Any, stars: Any, index: Any, dtype: Any) -> Any:
    """Displacements (S, 3, k) of the neighbours from their star, and their labels (S, E, k)."""
    x = actions[index] - actions[stars][:, None]
    return jnp.moveaxis(x, 2, 1).astype(dtype), jnp.moveaxis(labels[index], 2, 1).astype(dtype)


def deviation_blocks(
    use: Callable[[np.ndarray, np.ndarray], Any],
    actions: Any,
    labels: Any,
    counts: Any = None,
    settings: ClassicalSettings = ClassicalSettings(),
) -> Iterator[Any]:
    """What `use` returns for each block of stars: called with indices (S,) and deviations (S, E, B).

    Results come in the same order however the threads run, so that their sum is reproducible. Arguments and errors as
    for `deviation`. With several resamples the sums over neighbours are in single precision: the rounding, some 1e-8
    of a label's scatter, is far smaller than the differences between resamples.
    """
    actions, labels = np.asarray(actions, float), np.asarray(labels, float)
    counts = np.ones((1, len(actions)), int) if counts is None else np.asarray(counts)
    present = np.flatnonzero(counts.any(0))  # a single resample lacks a third of all stars
    actions, labels, counts = actions[present], labels[present], counts[:, present]
    stars, K = len(actions), settings.neighbours
    if bad := int((~np.isfinite(actions).all(1)).sum()):
        raise ValueError(f"{bad} of {stars} stars have no finite actions; leave them out of the sample for every theta")
    if max(stars, counts.sum(1).min()) <= K:
        raise InputError(f"{K} neighbours need more than {K} stars, got {stars}; use more stars")
    tree = cKDTree(actions, leafsize=32)  # a tenth faster than the default
    dtype = jnp.float64 if len(counts) == 1 else jnp.float32
    # one row a star, in the smallest integers that hold every running sum
    drawn = counts.T.astype(np.min_scalar_type(K + int(counts.max())), order="C")
    centred = labels - labels.mean(0)  # a constant cancels in equation 2, and costs digits
    padding = ((0, -stars % _ROWS), (0, 0))
    padded_actions, padded_labels, padded_drawn = (jnp.asarray(np.pad(a, padding)) for a in (actions, centred, drawn))
    size = min(1 << int(math.log2(max(_BLOCK // len(counts), 1))), _LARGEST_BLOCK)

    def block(chosen: np.ndarray, number: int) -> tuple[Any, np.ndarray]:
        """The result of the stars that have enough neighbours, and the stars that have too few."""
        index = nearest(tree, chosen, number)
        if settings.own_copies:
            index = np.column_stack([chosen, index])
        S = len(chosen)
        filled, index = np.resize(chosen, size), np.resize(index, (size, index.shape[1]))  # repeats rows
        total, kept = _truncated_counts(padded_drawn, index, K, settings.own_copies, dtype)
        x, y = _gathered(padded_actions, padded_labels, filled, index, dtype)
        mean = local_mean(kept, x, y, settings.naive_mean)
        enough = (np.asarray(total)[:S] >= K).all(1)
        found = centred[chosen, :, None].astype(dtype) - mean[:S]
        return use(present[chosen[enough]], found[enough]), chosen[~enough]

    # n neighbours count at least K times, but for a margin of so many sigmas: n mean - sqrt(n) scatter = K
    mean, scatter = counts.mean(), norm.isf(_SHORT / len(counts)) * counts.std()
    needed = ((scatter + math.sqrt(scatter**2 + 4 * mean * K)) / (2 * mean)) ** 2
    number = min(4 * math.ceil(needed / 4 - 1e-9), stars - 1)  # rounded, so that few sizes are compiled
    left = tree.indices  # stars that are close in action space share neighbours, which are then in the cache
    # BLAS threads would spend many times the work of these small products in waiting for one another
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
        while True:
            blocks = [left[first : first + size] for first in range(0, len(left), size)]
            short = []
            for result, few in pool.map(partial(block, number=number), blocks):
                short.append(few)
                yield result
            left = np.concatenate(short)
            if not len(left):
                return
            if number == stars - 1:
                raise InputError(f"a resample has fewer than {K} neighbours for a star; use more stars")
            number = min(2 * number, stars - 1)


def deviation(
    actions: Any,
    labels: Any,
    counts: Any = None,
    settings: ClassicalSettings = ClassicalSettings(),
) -> np.ndarray:
    """Deviation of each star's labels from their local mean in action space (PW21, equation 2): (B, N, E).

    `actions` (N, 3) [kpc km/s], in the Euclidean metric; `labels` (N, E), finite, in any unit, which the result has
    too; `counts` (B, N): how often each star was drawn in each of B resamples (None: one, every star once). A star that
    a resample did not draw has no meaningful value there, and its count of 0 removes it from every sum.

    A star is not its own neighbour, nor are its copies in a resample, unless `settings.own_copies`. Raises
    `InputError` where a resample has too few stars, `ValueError` where an action is not finite.
    """
    resamples = 1 if counts is None else len(counts)
    result = np.zeros((resamples, len(labels), np.shape(labels)[1]))

    def fill(stars: np.ndarray, found: np.ndarray) -> None:
        result[:, stars] = found.transpose(2, 0, 1)

    for _ in deviation_blocks(fill, actions, labels, counts, settings):
        pass
    return result
