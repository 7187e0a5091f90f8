"""Nodes: a pure function at many points, here or on a Dask cluster, each finished value kept on disk.

A run that was killed, started again with the same store, computes only what it had not finished.
"""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from .errors import InputError
from .files import write_whole

__all__ = ["Nodes", "connect"]


@dataclass(frozen=True)
class Nodes:
    """A `Map`: values of a function at points, in their order, with a progress bar on a terminal.

    `store` is a folder for finished values, one npz file each, written whole or not at all and found again by
    `fingerprint`, which must tell all that a value depends on besides its point (data, settings, version), and by the
    point, a pytree of numbers. Values are arrays, or pytrees of the structure of `like`. `client`, a
    `distributed.Client`, evaluates them on its workers; tasks of a worker that dies are done by another. Without, they
    are done here by `threads`.
    """

    description: str = "nodes"
    unit: str = "node"
    store: str | os.PathLike[str] | None = None
    fingerprint: str = ""
    client: Any = None
    threads: int = 1
    like: Any = 0

    def of(self, kind: str, **changes: Any) -> "Nodes":
        """The same for values of another kind, whose fingerprint has `kind` too."""
        return replace(self, fingerprint=f"{self.fingerprint} {kind}", **changes)

    def __call__(self, function: Callable[[Any], Any], points: Iterable[Any]) -> list[Any]:
        """Raises `InputError` where the store cannot be written, and what `function` raises."""
        points = list(points)
        files = self._files(points)
        values = {i: value for i, file in enumerate(files) if (value := self._read(file)) is not None}
        missing = [i for i in range(len(points)) if i not in values]
        bar = tqdm(total=len(points), initial=len(values), desc=self.description, unit=self.unit, disable=None)
        with bar, closing(self._evaluated(function, [points[i] for i in missing])) as evaluated:
            for place, value in evaluated:
                i = missing[place]
                values[i] = value
                self._write(files[i], value)
                bar.update()
        return [values[i] for i in range(len(points))]

    def _evaluated(self, function: Callable[[Any], Any], points: list[Any]) -> Generator[tuple[int, Any]]:
        """(place, value) as they come."""
        if self.client is not None:
            yield from _on_cluster(self.client, function, points)
        elif self.threads == 1:
            yield from ((i, function(point)) for i, point in enumerate(points))
        else:
            pool = ThreadPoolExecutor(self.threads)
            try:
                places = {pool.submit(function, point): i for i, point in enumerate(points)}
                yield from ((places[future], future.result()) for future in as_completed(places))
            finally:
                pool.shutdown(cancel_futures=True)

    def _files(self, points: list[Any]) -> list[Path | None]:
        if self.store is None:
            return [None] * len(points)
        folder = Path(self.store)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot keep nodes there: {error.strerror}; choose another folder") from error
        return [folder / f"{_digest(self.fingerprint, point)}.npz" for point in points]

    def _read(self, file: Path | None) -> Any:
        """The value in a file, None where there is none or it is damaged."""
        if file is None or not file.exists():
            return None
        tree: Any = jax.tree.structure(self.like)
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
                return jax.tree.unflatten(tree, [kept[f"leaf_{i}"] for i in range(tree.num_leaves)])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _write(self, file: Path | None, value: Any) -> None:
        if file is None:
            return
        leaves: Any = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(value))}
        write_whole(file, lambda part: np.savez(part, **leaves))


def _digest(fingerprint: str, point: Any) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    for leaf in jax.tree.leaves(point):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:40]


def _itself(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return function


def _call(function: Callable[[Any], Any], point: Any) -> Any:
    return jax.tree.map(np.asarray, function(point))


def _on_cluster(client: Any, function: Callable[[Any], Any], points: list[Any]) -> Generator[tuple[int, Any]]:
    from distributed import as_completed

    if not points:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # the stars, once
        # a task, not `scatter`: a task's result is made again when the worker that held it dies
        there = client.submit(_itself, function, pure=False)
        places = {client.submit(_call, there, point, pure=False): i for i, point in enumerate(points)}
    try:
        for future in as_completed(places, loop=client.loop):
            yield places[future], future.result()
    finally:
        client.cancel([there, *places])


def connect(address: str) -> Any:
    """A client of the Dask scheduler at `address`, e.g. "tcp://10.0.0.1:8786".

    Raises `InputError` where there is none, or it has no worker.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=10, set_as_default=False)  # other libraries have their own schedulers
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address!r}; give its address, tcp://HOST:8786") from error
    if not client.scheduler_info()["workers"]:
        client.close()
        raise InputError(f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`")
    return client
