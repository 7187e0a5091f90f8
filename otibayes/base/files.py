"""Files and folders that are there whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> None:
    """What `write` makes at the place that it is called with, moved to `path`, over what is there, once it is complete.

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
