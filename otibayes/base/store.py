"""Finished values on disk: a run that was killed, started again with the same store, computes only what is missing."""

import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .errors import InputError
from .progress import progress

__all__ = ["Store", "connect", "write_whole"]


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
    the workers of `client`, a `distributed.Client`, or else here by `threads`.
    """

    folder: Path | None = None
    fingerprint: str = ""
    client: Any = None
    threads: int = 1

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
        with progress(None, description, unit, len(points), len(points) - len(missing)) as bar:
            if missing:
                with self._executor() as executor:
                    shared = self._shared(function)
                    found: Any = executor.map(_call, [shared] * len(missing), [points[i] for i in missing])
                    with closing(found):  # cancels what has not begun
                        for i, value in zip(missing, found, strict=True):
                            values[i] = value
                            self.put(names[i], value)
                            bar.update()
        return values

    def _executor(self) -> Executor:
        if self.client is None:
            return ThreadPoolExecutor(self.threads)
        return self.client.get_executor(pure=False)

    def _shared(self, function: Callable[[Any], Any]) -> Any:
        """The function, or on a cluster the task that holds it: a task is made again when its worker dies."""
        if self.client is None:
            return function
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # the stars, once
            return self.client.submit(_itself, function, pure=False)

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


def _itself(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return function


def _call(function: Callable[[Any], Any], point: Any) -> Any:
    return jax.tree.map(np.asarray, function(point))


def connect(address: str) -> Any:
    """A client of the Dask scheduler at `address`, e.g. "tcp://10.0.0.1:8786".

    Raises `InputError` where Dask is not installed, no scheduler answers, or it has no worker.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("Dask is not installed; install it with: pip install 'otibayes[dask]'") from None

    try:
        client = Client(address, timeout=10, set_as_default=False)  # other libraries have their own schedulers
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address!r}; give its address, tcp://HOST:8786") from error
    if not client.scheduler_info()["workers"]:
        client.close()
        raise InputError(f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`")
    return client
