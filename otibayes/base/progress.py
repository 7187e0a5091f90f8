"""Progress of long work, and how long its stages took: a bar on a terminal, elsewhere a plain line a minute at most."""

import io
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["Stages", "progress", "restart"]

_DELAY = 2.0  # s: shorter work shows nothing
_PERIOD = 60.0  # s between two lines of all loops together


class _Lines(tqdm):
    """A plain line for each display, where output is not a terminal."""

    last = time.monotonic()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        now = time.monotonic()
        if now - _Lines.last >= _PERIOD:
            _Lines.last = now
            print(self, file=sys.stderr, flush=True)


def restart() -> None:
    """Begin a new minute, before which no line is printed."""
    _Lines.last = time.monotonic()


def progress(
    iterable: Iterable[Any] | None,
    description: str,
    unit: str,
    total: int | None = None,
    done: int = 0,
    shown: bool = True,
) -> tqdm:
    """The `iterable`, or a bar to `update`, of which `done` of `total` units were there before; on stderr."""
    given: dict[str, Any] = {"desc": description, "unit": unit, "total": total, "initial": done, "disable": not shown}
    if sys.stderr.isatty():
        return tqdm(iterable, delay=_DELAY, **given)
    line = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} so far, {remaining} left{postfix}"
    # tqdm ends a bar with a control character, which a log file does not want
    return _Lines(iterable, file=io.StringIO(), miniters=1, mininterval=1.0, bar_format=line, **given)


class Stages:
    """Wall-clock `seconds` of the stages of a run: (name, seconds) in their order."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds.append((name, time.perf_counter() - start))
