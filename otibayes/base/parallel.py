"""Work on all cores, by threads: compiled code leaves Python's lock."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from .progress import progress

__all__ = ["BLOCK", "cores", "in_blocks", "threaded"]

BLOCK = 2048  # stars a block: a block's intermediate arrays stay in the cache


def cores() -> int:
    """How many threads to use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threaded(description: str, unit: str) -> Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]:
    """A map on all cores, with progress: map(function, points) is the list of values."""

    def parallel(function: Callable[[Any], Any], points: Iterable[Any]) -> list[Any]:
        points = list(points)
        with ThreadPoolExecutor(cores()) as pool:
            return list(progress(pool.map(function, points), description, unit, len(points)))

    return parallel


def in_blocks(function: Callable[..., Any], *columns: Any, threads: int = 1, size: int = BLOCK) -> Any:
    """`function` of arrays (N, ...), called with padded blocks of one shape (one compilation); its arrays (N, ...)."""
    columns = tuple(np.asarray(column) for column in columns)
    number = len(columns[0])
    edges = range(0, max(number, 1), size)

    def run(start: int) -> Any:
        blocks = []
        for column in columns:
            block = column[start : start + size]
            # Copies of the last star: any values would do, but these need no more work than the others.
            blocks.append(np.concatenate([block, np.broadcast_to(block[-1:], (size - len(block), *block.shape[1:]))]))
        return jax.tree.map(np.asarray, function(*blocks))

    if threads == 1:
        parts = [run(start) for start in edges]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(run, edges))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:number], *parts)
