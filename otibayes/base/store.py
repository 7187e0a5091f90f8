"""Finished values on disk: a run that was killed, started again with the same store, computes only what is missing."""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from .errors import InputError
from .progress import progress

__all__ = ["Store", "write_whole"]


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> None:
    """Make the file or folder `path` by `write(part)`, whole or not at all, in place of what is there.

    Raises `InputError` where the folder is absent or cannot be written.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".otibayes-") as folder:
            part = Path(folder) / path.name
            write(part)
            os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from error


@dataclass(frozen=True)
class Store:
    """Finished values, one npz file each in `folder`; with None nothing is kept.

    Values are pytrees of arrays, kept under a name or, by `map`, under the point at which a function had them. They
    are read back with the structure of `like`, a pytree whose leaves may be anything. A file that cannot be read counts
    as absent. `fingerprint` must tell all that the values of `map` depend on besides their points. `map` evaluates on
    the workers of `client`, a `distributed.Client`, or else here by `threads`; `sent` is what these workers have.
    """

    folder: Path | None = None
    fingerprint: str = ""
    client: Any = None
    threads: int = 1
    sent: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def of(self, kind: str, **changes: Any) -> "Store":
        """The same for values of another kind, whose fingerprint has `kind` too."""
        return replace(self, fingerprint=f"{self.fingerprint} {kind}", **changes)

    def get(self, name: str, like: Any = 0) -> Any:
        """The value under a name; None where there is none."""
        if self.folder is None:
            return None
        tree: Any = jax.tree.structure(like)
        try:
            # opened here: np.load leaves a damaged file open
            with (self.folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return jax.tree.unflatten(tree, [arrays[f"leaf_{i}"] for i in range(tree.num_leaves)])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, value: Any) -> None:
        """Keep a value; `InputError` where it cannot be written."""
        if self.folder is None:
            return
        leaves: dict[str, Any] = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(value))}
        write_whole(self.folder / f"{name}.npz", lambda part: np.savez(part, **leaves))

    def keep(self, name: str, compute: Callable[[], Any], like: Any = 0) -> Any:
        """The value under a name, else the result of `compute`, which is kept."""
        value = self.get(name, like)
        if value is None:
            value = compute()
            self.put(name, value)
        return value

    def map(
        self,
        function: Callable[[Any], Any],
        points: Iterable[Any],
        like: Any = 0,
        description: str = "stars",
        unit: str = "pass",
    ) -> list[Any]:
        """Values of a pure function at points, pytrees of numbers, in their order, with progress.

        Raises what the function raises, and `InputError` where the store cannot be written.
        """
        points = list(points)
        self._make_folder()
        names = [_digest(self.fingerprint, point) for point in points]
        values = [self.get(name, like) for name in names]
        missing = [i for i, value in enumerate(values) if value is None]
        evaluated = closing(self._evaluated(function, [points[i] for i in missing]))  # cancels what has not begun
        with progress(None, description, unit, len(points), len(points) - len(missing)) as bar, evaluated as found:
            for i, value in zip(missing, found, strict=True):
                values[i] = value
                self.put(names[i], value)
                bar.update()
        return values

    def _evaluated(self, function: Callable[[Any], Any], points: list[Any]) -> Generator[Any]:
        """Values at points, in their order, each as soon as it is there."""
        if not points:
            return
        if self.client is None:
            # one thread of BLAS each: they do not wait for one another, and solve equations as a cluster's workers do
            with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self.threads) as executor:
                found: Any = executor.map(_call, [function] * len(points), points)
                with closing(found):
                    yield from found
            return
        from .cluster import map_there

        yield from map_there(self.client, self.sent, function, points)

    def _make_folder(self) -> None:
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{self.folder}: cannot be made: {error.strerror}; choose another folder") from error


def _digest(fingerprint: str, point: Any) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    for leaf in jax.tree.leaves(point):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:40]


def _call(function: Callable[[Any], Any], point: Any) -> Any:
    return jax.tree.map(np.asarray, function(point))
