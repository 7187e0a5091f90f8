"""The deviation of each star's label from the mean label at its actions (PW21, equation 2 and appendix A), fast.

A bootstrap resample is a vector of integer weights, how often each star was drawn, so that one neighbour query serves
every label and every resample: a star's neighbours are taken in order of distance until their weights reach K, the
last one truncated. Stars are worked on in blocks, by threads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from ..errors import InputError
from ..parallel import cores

__all__ = ["K_NEIGHBOURS", "Neighbours", "deviation", "local_mean", "nearest", "over_blocks"]

K_NEIGHBOURS = 64  # PW21, section 6.1

_BLOCK = 256  # stars: what a block needs stays in the cache
_MARGIN = 4.3  # of Poisson sigmas: neighbours beyond K that a resample seldom needs


class Neighbours(NamedTuple):
    """Which neighbours make the mean: how many, whether a star's copies are among them, and how they are weighted.

    `own_copies=True` counts a star's copies in a resample at distance zero, as the original analysis did, which leaks
    its label into its own mean. `gradient=False` takes the naive mean.
    """

    number: int = K_NEIGHBOURS
    own_copies: bool = False
    gradient: bool = True


def nearest(tree: cKDTree, stars: np.ndarray, number: int) -> np.ndarray:
    """Indices (S, number) of the neighbours nearest to the tree's points `stars` (S,), themselves left out."""
    _, index = tree.query(tree.data[stars], k=number + 1)
    itself = index == stars[:, None]
    itself[~itself.any(1), -1] = True  # a star that shares its actions with so many others that it is not listed
    return index[~itself].reshape(len(stars), number)


def local_mean(weights: Any, x: Any, y: Any, gradient: bool = True) -> np.ndarray:
    """Mean label at the test point, from weighted neighbours (PW21, equations A1-A6): (S, E, B).

    `weights` (S, K, B) are the weights of K neighbours of S stars in B resamples, `x` (S, 3, K) the neighbours'
    displacements x_k - x_* from the star, `y` (S, E, K) their labels. `gradient=False` keeps the naive mean, A1; so
    does, with any value, a star whose neighbours' displacement A2 underflows.
    """
    S, E, K = y.shape
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    moments = [np.ones((S, 1, K), x.dtype), y]
    if gradient:
        moments += [x, *(x[:, [i]] * x[:, [j]] for i, j in pairs), *(x[:, [i]] * y for i in range(3))]
    sums = np.matmul(np.concatenate(moments, 1), weights)  # over neighbours: (S, moments, B)
    # K of the paper, (S, B); the means of stars without any neighbour in a resample are nobody's
    total, sum_y = np.maximum(sums[:, 0], 1), sums[:, 1 : 1 + E]
    naive = sum_y / total[:, None]  # A1
    if not gradient:
        return naive
    sum_x, sum_xx = sums[:, 1 + E : 4 + E], sums[:, 4 + E : 10 + E]
    d = sum_x / total[:, None]  # A2, less x_*
    xi = (d * sum_x).sum(1)  # sums over k of xi_k = x_k . d (A3), xi_k^2 and xi_k y_k
    xi2 = sum((1 if i == j else 2) * d[:, i] * d[:, j] * sum_xx[:, n] for n, (i, j) in enumerate(pairs))
    xi_y = sum(d[:, [i]] * sums[:, 10 + E * (i + 1) : 10 + E * (i + 2)] for i in range(3))
    norm = xi**2 - total * xi2  # sum of w_k = xi_k sum(xi) - sum(xi^2) (A6); never positive
    steep = -norm > 64 * np.finfo(norm.dtype).eps * total * xi2
    mean = (xi[:, None] * xi_y - xi2[:, None] * sum_y) / np.where(steep, norm, -1.0)[:, None]  # A5
    return np.where(steep[:, None], mean, naive)


def over_blocks(
    use: Callable[[np.ndarray, np.ndarray], Any],
    actions: Any,
    labels: Any,
    counts: Any = None,
    neighbours: Neighbours = Neighbours(),  # noqa: B008
) -> Iterator[Any]:
    """What `use` makes of the deviations of each block of stars: called with indices (S,) and deviations (S, E, B).

    Results come in the same order whatever the threads do, so that sums of them are reproducible.

    Arguments and errors as for `deviation`. Sums over neighbours are in single precision where there are resamples:
    their rounding, some 1e-8 of a label's scatter, is far below what a resample changes.
    """
    actions, labels = np.asarray(actions, float), np.asarray(labels, float)
    stars, K = len(actions), neighbours.number
    counts = np.ones((1, stars), int) if counts is None else np.asarray(counts)
    if not np.isfinite(actions).all():
        bad = int((~np.isfinite(actions).all(1)).sum())
        raise ValueError(f"{bad} of {stars} stars have no finite actions; leave them out of the sample for every theta")
    if stars <= K:
        raise InputError(f"{K} neighbours need more than {K} stars, got {stars}; use more stars")
    tree = cKDTree(actions)
    dtype = np.float64 if len(counts) == 1 else np.float32
    # uint8 where it holds every running sum, for speed; one row per star, so that a gather is contiguous
    drawn = counts.T.astype(np.min_scalar_type(K + int(counts.max())), order="C")
    scale = labels.mean(0)  # subtracted for precision only: a constant cancels in equation 2
    centred = (labels - scale).T.copy()

    def deviations(chosen: np.ndarray, number: int) -> np.ndarray:
        """Of the stars `chosen`, from that many neighbours; more for those that this leaves short."""
        index = nearest(tree, chosen, number)
        if neighbours.own_copies:
            index = np.column_stack([chosen, index])
        running = drawn[index.T]  # neighbours first, (number, S, B): their running sums are then contiguous
        if neighbours.own_copies:
            running[0] -= running[0] > 0
        np.minimum(running[0], K, out=running[0])
        weights = np.empty((len(chosen), len(index.T), len(counts)), dtype)
        weights[:, 0] = running[0]
        for k in range(1, len(running)):
            np.add(running[k], running[k - 1], out=running[k])
            np.minimum(running[k], K, out=running[k])
            weights[:, k] = running[k] - running[k - 1]
        x = np.ascontiguousarray((actions[index] - actions[chosen, None]).transpose(0, 2, 1), dtype)
        y = np.ascontiguousarray(centred[:, index].transpose(1, 0, 2), dtype)
        found = centred[:, chosen].T[..., None] - local_mean(weights, x, y, neighbours.gradient)
        short = (running[-1] < K).any(1)
        if short.any():
            if number == stars - 1:
                raise InputError(f"a resample has fewer than {K} neighbours for a star; use more stars")
            found[short] = deviations(chosen[short], min(2 * number, stars - 1))
        return found

    # every star counts once on average: K + 4.3 sqrt(K + ...) neighbours seldom hold fewer than K draws
    margin = 0 if (counts == 1).all() else int(_MARGIN * np.sqrt(1.5 * K)) + 1
    first = min(K + margin, stars - 1)
    # stars that are near in action space share neighbours, which are then in the cache
    blocks = np.array_split(tree.indices, np.ceil(stars / _BLOCK))
    # BLAS threads would spend many times the work of these small products in waiting for one another
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(lambda block: use(block, deviations(block, first)), blocks)


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
