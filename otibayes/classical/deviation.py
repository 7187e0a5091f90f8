"""The deviation of each star's label from the mean label at its actions (PW21, equation 2 and appendix A).

A bootstrap resample is a vector of integer weights, how often each star was drawn, so that one neighbour query serves
every label and every resample: a star's neighbours are taken in order of distance until their weights reach K, the
last one truncated.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..parallel import cores

__all__ = ["K_NEIGHBOURS", "deviation", "local_mean", "nearest"]

K_NEIGHBOURS = 64  # PW21, section 6.1

_CHUNK = 2**21  # weights (star, neighbour, resample) held at once: 16 MB as floats


def nearest(tree: cKDTree, stars: np.ndarray, number: int) -> np.ndarray:
    """Indices (S, number) of the neighbours nearest to the tree's points `stars` (S,), themselves left out."""
    _, index = tree.query(tree.data[stars], k=number + 1)
    itself = index == stars[:, None]
    itself[~itself.any(1), -1] = True  # a star that shares its actions with so many others that it is not listed
    return index[~itself].reshape(len(stars), number)


def local_mean(weights: Any, x: Any, y: Any, gradient: bool = True) -> np.ndarray:
    """Mean label at the test point, from weighted neighbours (PW21, equations A1-A6).

    `weights` (S, K, B) are the integer weights of K neighbours of S stars in B resamples, `x` (S, K, 3) the
    neighbours' displacements x_k - x_* from the star, `y` (S, K, E) their labels. Returns (S, B, E). `gradient=False`
    keeps the naive mean, A1; so does, with any value, a star whose neighbours' displacement A2 underflows.
    """
    total = weights.sum(1)  # K of the paper, (S, B)
    elements = y.shape[-1]
    xx, xy = x[..., :, None] * x[..., None, :], x[..., :, None] * y[..., None, :]
    moments = np.concatenate([y, x, xx.reshape(*x.shape[:2], 9), xy.reshape(*x.shape[:2], 3 * elements)], -1)
    sums = np.matmul(weights.transpose(0, 2, 1).astype(float), moments)  # over neighbours: (S, B, moments)
    sum_y, sum_x, sum_xx, sum_xy = np.split(sums, np.cumsum([elements, 3, 9]), -1)
    naive = sum_y / total[..., None]  # A1
    if not gradient:
        return naive
    d = sum_x / total[..., None]  # A2, less x_*
    xi = np.einsum("sbi,sbi->sb", d, sum_x)  # sums over k of xi_k = x_k . d (A3), xi_k^2 and xi_k y_k
    xi2 = np.einsum("sbi,sbij,sbj->sb", d, sum_xx.reshape(*d.shape, 3), d)
    xi_y = np.einsum("sbi,sbie->sbe", d, sum_xy.reshape(*d.shape, elements))
    norm = xi**2 - total * xi2  # sum of w_k = xi_k sum(xi) - sum(xi^2) (A6); never positive
    steep = -norm > 1e-12 * total * xi2
    mean = (xi[..., None] * xi_y - xi2[..., None] * sum_y) / np.where(steep, norm, -1.0)[..., None]  # A5
    return np.where(steep[..., None], mean, naive)


def deviation(
    actions: Any,
    labels: Any,
    counts: Any = None,
    neighbours: int = K_NEIGHBOURS,
    own_copies: bool = False,
    gradient: bool = True,
) -> np.ndarray:
    """Deviation of each star's labels from their mean over its neighbours in action space (PW21, equation 2).

    `actions` (N, 3) [kpc km/s], in the plain Euclidean metric; `labels` (N, E), finite, of any unit; `counts` (B, N),
    how often each star was drawn in each of B resamples (default: one, every star once). Returns (B, N, E) in the
    labels' units. The values of stars that a resample did not draw belong to no one; their count of 0 removes them
    from any sum.

    A star is not its own neighbour, nor are its copies in a resample, which would leak its label into its own mean;
    `own_copies=True` counts them at distance zero, as the original analysis did. `gradient=False` takes the naive
    mean. Raises `InputError` where a resample has fewer stars than `neighbours`, `ValueError` where an action is not
    finite.
    """
    actions, labels = np.asarray(actions, float), np.asarray(labels, float)
    stars = len(actions)
    counts = np.ones((1, stars), int) if counts is None else np.asarray(counts)
    if not np.isfinite(actions).all():
        bad = int((~np.isfinite(actions).all(1)).sum())
        raise ValueError(f"{bad} of {stars} stars have no finite actions; leave them out of the sample for every theta")
    if stars <= neighbours:
        raise InputError(f"{neighbours} neighbours need more than {neighbours} stars, got {stars}; use more stars")
    tree = cKDTree(actions)
    # uint8 where it holds every running sum, for speed; one row per star, so that a gather is contiguous
    drawn = counts.T.astype(np.min_scalar_type(neighbours + int(counts.max())), order="C")
    scale = labels.mean(0)  # subtracted for precision only: a constant cancels in equation 2
    result = np.empty((counts.shape[0], stars, labels.shape[1]))

    def fill(chosen: np.ndarray, number: int) -> None:
        """Deviations of the stars `chosen`, from that many neighbours; more for those that this leaves short."""
        step = max(1, _CHUNK // (number * counts.shape[0]))
        for chunk in np.split(chosen, range(step, len(chosen), step)):
            index = nearest(tree, chunk, number)
            if own_copies:
                index = np.column_stack([chunk, index])
            running = drawn[index]
            if own_copies:
                running[:, 0] -= running[:, 0] > 0
            np.minimum(running[:, 0], neighbours, out=running[:, 0])
            for k in range(1, running.shape[1]):
                np.add(running[:, k], running[:, k - 1], out=running[:, k])
                np.minimum(running[:, k], neighbours, out=running[:, k])
            enough = (running[:, -1] == neighbours).all(1)
            running[:, 1:] -= running[:, :-1].copy()
            index, done = index[enough], chunk[enough]
            x, y = actions[index] - actions[done, None], labels[index] - scale
            mean = local_mean(running[enough], x, y, gradient) + scale
            result[:, done] = labels[done] - mean.transpose(1, 0, 2)
            if not enough.all():
                if number == stars - 1:
                    raise InputError(f"a resample has fewer than {neighbours} neighbours for a star; use more stars")
                fill(chunk[~enough], min(2 * number, stars - 1))

    # every star counts once on average, so K neighbours hold K +- sqrt(K) draws: six sigmas seldom fall short
    margin = 0 if (counts == 1).all() else 6 * int(np.sqrt(2 * neighbours))
    halves = np.array_split(np.arange(stars), cores())  # the arithmetic leaves the interpreter's lock alone
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(fill, halves, [min(neighbours + margin, stars - 1)] * cores()))
    return result
