"""Work on a Dask cluster: stars travel to the workers once; after that only points go there, and sums come back."""

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from .errors import InputError

__all__ = ["connect", "map_there"]

_LARGE = 1 << 20  # bytes: arrays that travel once, whatever function they belong to
_TRIES = 3  # at sending, where all workers that had the stars have died
_functions: dict[str, Callable[[Any], Any]] = {}  # of a worker: the last one, as it was unpacked


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


def map_there(
    client: Any, sent: dict[str, Any], function: Callable[[Any], Any], points: Sequence[Any]
) -> Iterator[Any]:
    """Values of a function at points, in their order, from the workers of a `distributed.Client`.

    `sent` holds what the workers have already, by its digest, and learns what they get. Raises what the function
    raises.
    """
    packed, done = _packed(function), 0
    for tries_left in reversed(range(_TRIES)):
        shared = [_future(client, sent, item) for item in packed]
        tasks = client.map(_value, points[done:], shared=shared, pure=False)
        try:
            for task in tasks:
                yield task.result()
                done += 1
            return
        except CancelledError:
            if not tries_left:
                raise
            sent.clear()
        finally:
            client.cancel(tasks[done:])


def _packed(function: Callable[[Any], Any]) -> list[Any]:
    """A function as bytes, and the large arrays that these refer to by number."""
    import cloudpickle

    arrays: list[np.ndarray] = []

    class Pickler(cloudpickle.Pickler):  # type: ignore[name-defined, misc]
        def persistent_id(self, thing: Any) -> tuple[int, bool] | None:
            if not isinstance(thing, np.ndarray | jax.Array) or thing.nbytes < _LARGE:
                return None
            arrays.append(np.ascontiguousarray(thing))
            return len(arrays) - 1, isinstance(thing, jax.Array)

    buffer = io.BytesIO()
    Pickler(buffer).dump(function)
    return [buffer.getvalue(), *arrays]


def _unpacked(shared: list[Any]) -> Callable[[Any], Any]:
    class Unpickler(pickle.Unpickler):  # of our own client's, in its cluster
        def persistent_load(self, reference: tuple[int, bool]) -> Any:
            number, of_jax = reference
            return jnp.asarray(shared[1 + number]) if of_jax else shared[1 + number]

    return Unpickler(io.BytesIO(shared[0])).load()


def _future(client: Any, sent: dict[str, Any], item: bytes | np.ndarray) -> Any:
    """What stands for an item in tasks; it is sent to all workers, straight to them where they can be reached."""
    name = hashlib.sha256(item).hexdigest()
    if name not in sent:
        try:
            sent[name] = client.scatter(item, direct=True, broadcast=True)
        except (OSError, TimeoutError):
            sent[name] = client.scatter(item, direct=False, broadcast=True)
    return sent[name]


def _value(point: Any, shared: list[Any]) -> Any:
    """The function's value, on a worker, which unpacks a function once."""
    name = hashlib.sha256(shared[0]).hexdigest()
    if name not in _functions:
        function = _unpacked(shared)
        _functions.clear()
        _functions[name] = function
    with threadpool_limits(1, user_api="blas"):  # as in a store without a cluster: the same numbers, bit for bit
        return jax.tree.map(np.asarray, _functions[name](point))
