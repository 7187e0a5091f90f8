"""What sampling has done so far, kept on disk as arrays: a run that was killed goes on where it was, bit for bit."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..base.errors import InputError
from ..base.files import write_whole

__all__ = ["FORGETFUL", "Checkpoint", "differences", "open_checkpoint"]

_INPUTS = "inputs.json"


class Checkpoint:
    """Pytrees of arrays under names, one npz file each in `folder`, written whole or not at all; None keeps nothing.

    Arrays come back with the structure of `like`, whose leaves may be anything. A file that cannot be read counts as
    absent: what was in it is computed again.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def get(self, name: str, like: Any) -> Any:
        """What is kept under a name, or None."""
        if self.folder is None:
            return None
        tree: Any = jax.tree.structure(like)
        try:
            # opened here: np.load leaves a damaged file open
            with (self.folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return jax.tree.unflatten(tree, [kept[f"leaf_{i}"] for i in range(tree.num_leaves)])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, value: Any) -> None:
        """Keep a value; `InputError` where it cannot be written."""
        if self.folder is None:
            return
        leaves: dict[str, Any] = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(value))}
        write_whole(self.folder / f"{name}.npz", lambda whole: np.savez(whole, **leaves))

    def keep(self, name: str, compute: Callable[[], Any], like: Any) -> Any:
        """What is kept under a name, else the result of `compute`, which is kept."""
        value = self.get(name, like)
        if value is None:
            value = compute()
            self.put(name, value)
        return value


FORGETFUL = Checkpoint()


def open_checkpoint(folder: str | os.PathLike[str], inputs: Mapping[str, Any], resume: bool) -> Checkpoint:
    """The checkpoint in `folder` of a run that follows from `inputs` (ready for JSON), made where absent.

    Without `resume` it is emptied first. Raises `InputError` for a folder that is something else, cannot be written,
    or, with `resume`, belongs to other inputs: the message says which.
    """
    folder = Path(folder)
    told = folder / _INPUTS
    if folder.exists() and not told.is_file():
        if not folder.is_dir() or any(folder.iterdir()):
            raise InputError(f"{folder}: is not a checkpoint of otibayes, and is left alone; choose another place")
    elif resume and told.is_file():
        try:
            before = json.loads(told.read_text())
        except ValueError:
            raise InputError(f"{told}: is damaged; start anew without resuming") from None
        if different := differences(before, inputs):
            raise InputError(
                f"the checkpoint {folder} is of another run: {'; '.join(different)}; start anew without resuming, or"
                " give the inputs that it had"
            )
        return Checkpoint(folder)

    def begin(part: Path) -> None:
        part.mkdir()
        (part / _INPUTS).write_text(json.dumps(dict(inputs), indent=1))
        if folder.exists():
            shutil.rmtree(folder)

    write_whole(folder, begin)  # never without its inputs
    return Checkpoint(folder)


def differences(before: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Which inputs differ, in words."""
    now = json.loads(json.dumps(dict(inputs)))  # as they come back from a file

    def words(value: Any) -> str:
        text = "absent" if value is None else json.dumps(value)
        return f"{text[:40]}..." if len(text) > 43 else text

    names = dict.fromkeys([*before, *now])
    return [
        f"{name} was {words(before.get(name))}, is {words(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]
