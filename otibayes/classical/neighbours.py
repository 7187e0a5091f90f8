"""Who is near whom in action space: by a tree, or out of lists that were made at a theta not far away."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from ..base.parallel import ALONE, cores, in_blocks, padded

__all__ = ["Candidates", "candidates", "nearest", "tree_of"]

_SAFETY = 2  # a star that is not listed comes nearer by less than so many times what any of those listed does


def tree_of(actions: np.ndarray) -> cKDTree:
    """Of actions (N, 3), in the plain Euclidean metric."""
    return cKDTree(actions, leafsize=32)  # a pass is a tenth faster than with the default


def nearest(tree: cKDTree, stars: np.ndarray, number: int) -> np.ndarray:
    """Indices (S, number) of the neighbours nearest to the tree's points `stars` (S,), themselves left out."""
    _, index = tree.query(tree.data[stars], k=number + 1)
    itself = index == stars[:, None]
    itself[~itself.any(1), -1] = True  # a star that shares its actions with so many others that it is not listed
    return index[~itself].reshape(len(stars), number)


@dataclass(frozen=True)
class Candidates:
    """Of each of N stars the M nearest at one theta, from which those at a theta near it are picked by a sort.

    `index` (N, M) and `distance` (N, M) [kpc km/s] there, in order; `chosen` (n,), the stars that are sought among.
    """

    index: jax.Array
    distance: jax.Array
    chosen: np.ndarray

    def of(self, chosen: np.ndarray) -> "Candidates":
        """The same among some of the N stars only; indices are then theirs."""
        return replace(self, chosen=chosen)

    def among(self, actions: jax.Array) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
        """A function of stars (S,) and a number: so many neighbours of each (S, number), and if they are sure (S,).

        `actions` (n, 3) of the chosen stars [kpc km/s], or with more rows that are nobody's. Neighbours are sure where
        no star that is not listed can have come nearer than the last of them, judged by how much those listed have.
        """
        place = np.full(len(self.index), -1, np.int32)
        place[self.chosen] = np.arange(len(self.chosen))
        there = actions, self.index, self.distance, jnp.asarray(place)

        def find(stars: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
            S = len(stars)
            if number > self.index.shape[1]:
                return np.zeros((S, number), int), np.zeros(S, bool)
            stars = padded(stars)
            index, now, nearer, reach = (np.asarray(a)[:S] for a in _compared(*there, self.chosen[stars], stars))
            order = np.argsort(now, 1)[:, :number]
            last = np.take_along_axis(now, order[:, -1:], 1)[:, 0]
            sure = last + _SAFETY * nearer < reach
            # where most have moved too far, the others' lists are no good either
            return np.take_along_axis(index, order, 1), sure & (sure.mean() > 0.5)

        return find


@partial(jax.jit, compiler_options=ALONE)
def _compared(actions: Any, index: Any, distance: Any, place: Any, rows: Any, stars: Any) -> Any:
    """Listed neighbours' indices among the chosen and distances (S, M), infinite where they are not among them.

    And by how much any of them came nearer, and how far the list reached (S,).
    """
    index, before = place[index[rows]], distance[rows]
    now = jnp.sqrt(sum((column[index] - column[stars][:, None]) ** 2 for column in actions.T))
    now = jnp.where(index >= 0, now, jnp.inf)
    return index, now, jnp.maximum(before - now, 0).max(1), before[:, -1]


def candidates(actions: np.ndarray, number: int) -> Candidates:
    """`number` for each of N stars, or all others, from their actions (N, 3) at one theta."""
    stars, tree = np.arange(len(actions)), tree_of(actions)
    number = min(number, len(actions) - 1)

    def block(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = nearest(tree, some, number)
        distance = np.linalg.norm(actions[index] - actions[some][:, None], axis=2)
        return index.astype(np.int32), distance.astype(np.float32)

    index, distance = map(jnp.asarray, in_blocks(block, stars, threads=cores()))
    return Candidates(index, distance, stars)
