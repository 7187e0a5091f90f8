"""The deviation of each star's label from the mean label at its actions (PW21, equation 2 and appendix A), fast.

A bootstrap resample is a vector of integer weights, how often each star was drawn, so that one neighbour query serves
every label and every resample: a star's neighbours are taken in order of distance until their weights reach K, the
last one truncated. Stars are worked on in blocks, by threads; what surrounds the matrix product of neighbours with
resamples is compiled, so that no array of it passes through memory more than once.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from ..base.errors import InputError
from ..base.parallel import ALONE, cores, padded
from .neighbours import Candidates, nearest, tree_of

__all__ = ["K_NEIGHBOURS", "Neighbours", "deviation", "local_mean", "over_blocks"]

K_NEIGHBOURS = 64  # PW21, section 6.1

_ROOM = 128 * 129  # stars of a block times resamples: there is room for its neighbours' weights in the cache, ...
_LENGTH = 4096  # stars are many times as many in compiled programs
_MOST = 2048  # ... and for so many stars' displacements
_PAIRS = [(i, j) for i in range(3) for j in range(i, 3)]  # of actions
_SHORT = 2e-3  # of the stars may need more neighbours in one of the resamples: they are gone through again


class Neighbours(NamedTuple):
    """Which neighbours make the mean: how many, whether a star's copies are among them, and how they are weighted.

    `own_copies=True` counts a star's copies in a resample at distance zero, as the original analysis did, which leaks
    its label into its own mean. `gradient=False` takes the naive mean.
    """

    number: int = K_NEIGHBOURS
    own_copies: bool = False
    gradient: bool = True


def local_mean(weights: Any, x: Any, y: Any, gradient: bool = True) -> np.ndarray:
    """Mean label at the test point, from weighted neighbours (PW21, equations A1-A6): (S, E, B).

    `weights` (S, K, B) are the weights of K neighbours of S stars in B resamples, `x` (S, 3, K) the neighbours'
    displacements x_k - x_* from the star, `y` (S, E, K) their labels. `gradient=False` keeps the naive mean, A1; so
    does, with any value, a star whose neighbours' displacement A2 underflows.
    """
    sums = np.matmul(np.asarray(_moments(x, y, gradient)), weights)  # over neighbours; XLA's takes three times as long
    return np.asarray(_mean(sums, y.shape[1], gradient))


@partial(jax.jit, static_argnums=2, compiler_options=ALONE)
def _moments(x: Any, y: Any, gradient: bool) -> Any:
    """1, y and, for the gradient, x, x x, x y of each neighbour (S, moments, K)."""
    moments = [jnp.ones((len(x), 1, x.shape[2]), x.dtype), y]
    if gradient:
        moments += [x, *(x[:, [i]] * x[:, [j]] for i, j in _PAIRS), *(x[:, [i]] * y for i in range(3))]
    return jnp.concatenate(moments, 1)


@partial(jax.jit, static_argnums=(1, 2), compiler_options=ALONE)
def _mean(sums: Any, E: int, gradient: bool) -> Any:
    """The mean (S, E, B) that sums of `_moments` over neighbours (S, moments, B) make."""
    # K of the paper, (S, B); the means of stars without any neighbour in a resample are nobody's
    total, sum_y = jnp.maximum(sums[:, 0], 1), sums[:, 1 : 1 + E]
    naive = sum_y / total[:, None]  # A1
    if not gradient:
        return naive
    sum_x, sum_xx = sums[:, 1 + E : 4 + E], sums[:, 4 + E : 10 + E]
    d = sum_x / total[:, None]  # A2, less x_*
    xi = (d * sum_x).sum(1)  # sums over k of xi_k = x_k . d (A3), xi_k^2 and xi_k y_k
    xi2 = sum((1 if i == j else 2) * d[:, i] * d[:, j] * sum_xx[:, n] for n, (i, j) in enumerate(_PAIRS))
    xi_y = sum(d[:, [i]] * sums[:, 10 + E * (i + 1) : 10 + E * (i + 2)] for i in range(3))
    norm = xi**2 - total * xi2  # sum of w_k = xi_k sum(xi) - sum(xi^2) (A6); never positive
    steep = -norm > 64 * jnp.finfo(norm.dtype).eps * total * xi2
    mean = (xi[:, None] * xi_y - xi2[:, None] * sum_y) / jnp.where(steep, norm, -1.0)[:, None]  # A5
    return jnp.where(steep[:, None], mean, naive)


@partial(jax.jit, static_argnums=(2, 3, 4), compiler_options=ALONE)
def _weights(drawn: Any, index: Any, K: int, own_copies: bool, dtype: Any) -> Any:
    """How often neighbours `index` (S, k) were drawn, (k, S, B), until K were; and how many that is (S, B)."""
    rows = _times(drawn, index, own_copies)

    def step(before: Any, row: Any) -> Any:
        now = jnp.minimum(before + row, K)
        return now, (now - before).astype(dtype)

    return jax.lax.scan(step, jnp.zeros_like(rows[0]), rows)


def _times(drawn: Any, index: Any, own_copies: bool) -> Any:
    """How often neighbours `index` (S, k) were drawn, (k, S, B).

    `own_copies`: the first of them is the star itself, whose copies count but for one.
    """
    rows = drawn[index.T]
    return rows.at[0].set(jnp.maximum(rows[0], 1) - 1) if own_copies else rows


@partial(jax.jit, static_argnums=(5, 6, 7), compiler_options=ALONE)
def _sums_of_one(
    actions: Any, labels: Any, drawn: Any, stars: Any, index: Any, K: int, own_copies: bool, gradient: bool
) -> Any:
    """How many neighbours `index` (S, k) weigh (S, 1), and their sums of `_moments` (S, moments, 1), in one resample.

    A neighbour at a time: a product of matrices, which serves many resamples, would only move memory for one.
    """
    J, y = list(actions.T), list(labels.T)
    here = [column[stars] for column in J]
    rows = _times(drawn, index, own_copies)[..., 0]

    def step(before: Any, neighbour: Any) -> Any:
        total, sums = before
        i, row = neighbour
        now = jnp.minimum(total + row, K)
        weight = (now - total).astype(actions.dtype)
        value = [column[i] for column in y]
        moments = [weight, *(weight * v for v in value)]
        if gradient:
            x = [column[i] - own for column, own in zip(J, here, strict=True)]
            weighted = [weight * a for a in x]
            moments += [*weighted, *(weighted[i] * x[j] for i, j in _PAIRS), *(a * v for a in weighted for v in value)]
        return (now, [a + b for a, b in zip(sums, moments, strict=True)]), None

    number = 1 + len(y) + (9 + 3 * len(y) if gradient else 0)
    start = jnp.zeros_like(rows[0]), [jnp.zeros(len(stars), actions.dtype)] * number
    total, sums = jax.lax.scan(step, start, (index.T, rows))[0]
    return total[:, None], jnp.stack(sums, 1)[..., None]


@partial(jax.jit, static_argnums=4, compiler_options=ALONE)
def _displaced(actions: Any, labels: Any, stars: Any, index: Any, dtype: Any) -> Any:
    """Displacements (S, 3, k) of the neighbours from their star, and their labels (S, E, k)."""
    x = actions[index] - actions[stars][:, None]
    return jnp.moveaxis(x, 2, 1).astype(dtype), jnp.moveaxis(labels[index], 2, 1).astype(dtype)


def over_blocks(
    use: Callable[[np.ndarray, np.ndarray], Any],
    actions: Any,
    labels: Any,
    counts: Any = None,
    neighbours: Neighbours = Neighbours(),  # noqa: B008
    candidates: Candidates | None = None,
) -> Iterator[Any]:
    """What `use` makes of the deviations of each block of stars: called with indices (S,) and deviations (S, E, B).

    Results come in the same order whatever the threads do, so that sums of them are reproducible.

    Arguments and errors as for `deviation`; `candidates`, among which neighbours are looked for first. Where there are
    resamples, sums over neighbours and deviations are in single precision: their rounding, some 1e-8 of a label's
    scatter, is far below what a resample changes.
    """
    actions, labels = np.asarray(actions, float), np.asarray(labels, float)
    stars, K = len(actions), neighbours.number
    counts = np.ones((1, stars), int) if counts is None else np.asarray(counts)
    if not np.isfinite(actions).all():
        bad = int((~np.isfinite(actions).all(1)).sum())
        raise ValueError(f"{bad} of {stars} stars have no finite actions; leave them out of the sample for every theta")
    if max(stars, counts.sum(1).min()) <= K:
        raise InputError(f"{K} neighbours need more than {K} stars, got {stars}; use more stars")
    tree = tree_of(actions)
    dtype = jnp.float64 if len(counts) == 1 else jnp.float32
    # uint8 where it holds every running sum, for speed; one row per star, so that a gather is contiguous
    drawn = counts.T.astype(np.min_scalar_type(K + int(counts.max())), order="C")
    centred = labels - labels.mean(0)  # for precision only: a constant cancels in equation 2
    more = (0, -stars % _LENGTH)  # rows that nobody asks for: every number of stars would be compiled anew
    there = [jnp.asarray(np.pad(array, (more, (0, 0)))) for array in (actions, centred, drawn)]

    listed = None if candidates is None else candidates.among(there[0])

    def near(chosen: np.ndarray, number: int) -> np.ndarray:
        if listed is None:
            return nearest(tree, chosen, number)
        index, sure = listed(chosen, number)
        if not sure.all():
            index[~sure] = nearest(tree, chosen[~sure], number)
        return index

    def deviations(chosen: np.ndarray, number: int) -> np.ndarray:
        """Of the stars `chosen`, from that many neighbours; more for those that this leaves short."""
        index = near(chosen, number)
        if neighbours.own_copies:
            index = np.column_stack([chosen, index])
        S = len(chosen)
        block, index = padded(chosen), padded(index)  # with stars whose results are left out
        if len(counts) == 1:
            total, sums = _sums_of_one(*there, block, index, K, neighbours.own_copies, neighbours.gradient)
            mean = np.asarray(_mean(sums, labels.shape[1], neighbours.gradient))
        else:
            total, weights = _weights(there[2], index, K, neighbours.own_copies, dtype)
            x, y = _displaced(*there[:2], block, index, dtype)
            mean = local_mean(np.asarray(weights).transpose(1, 0, 2), x, y, neighbours.gradient)
        found = centred[chosen, :, None].astype(dtype) - mean[:S]
        short = (np.asarray(total)[:S] < K).any(1)
        if short.any():
            if number == stars - 1:
                raise InputError(f"a resample has fewer than {K} neighbours for a star; use more stars")
            found[short] = deviations(chosen[short], min(2 * number, stars - 1))
        return found

    # n neighbours weigh K or more, but for a margin of so many sigmas: n mean - sqrt(n) scatter = K
    mean, scatter = counts.mean(), norm.isf(_SHORT / len(counts)) * counts.std()
    needed = ((scatter + math.sqrt(scatter**2 + 4 * mean * K)) / (2 * mean)) ** 2
    # rounded up, so that resamples share their compiled programs
    first = min(4 * math.ceil(needed / 4 - 1e-9), stars - 1)

    def used(block: np.ndarray) -> Any:
        return use(block, deviations(block, first))

    # stars that are near in action space share neighbours, which are then in the cache
    blocks = np.array_split(tree.indices, np.ceil(stars / min(max(_ROOM // len(counts), 1), _MOST)))
    # BLAS threads would spend many times the work of these small products in waiting for one another
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(used, blocks)


def deviation(
    actions: Any,
    labels: Any,
    counts: Any = None,
    neighbours: Neighbours = Neighbours(),  # noqa: B008
) -> np.ndarray:
    """Deviation of each star's labels from their mean over its neighbours in action space (PW21, equation 2).

    `actions` (N, 3) [kpc km/s], in the plain Euclidean metric; `labels` (N, E), finite, of any unit; `counts` (B, N),
    how often each star was drawn in each of B resamples (default: one, every star once). Returns (B, N, E) in the
    labels' units. The values of stars that a resample did not draw belong to no one; their count of 0 removes them
    from any sum.

    A star is not its own neighbour, nor are its copies in a resample, unless `neighbours` says so. Raises `InputError`
    where a resample has fewer stars than neighbours are wanted, `ValueError` where an action is not finite.
    """
    resamples = 1 if counts is None else len(counts)
    result = np.empty((resamples, len(labels), np.shape(labels)[1]))

    def fill(stars: np.ndarray, found: np.ndarray) -> None:
        result[:, stars] = found.transpose(2, 0, 1)

    for _ in over_blocks(fill, actions, labels, counts, neighbours):
        pass
    return result
