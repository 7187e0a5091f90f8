"""What a result follows from, by name: so that a result or a checkpoint of other inputs is known, and which differ."""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import InputError
from ..base.store import write_whole
from ..dynamics import MILKY_WAY, MassModel
from ..stars import Stars
from ..stars.stars import names_of

__all__ = ["differences", "digest", "open_checkpoint", "origins"]

_INPUTS = "inputs.json"
_PACKAGES = ("otibayes", "jax", "jaxlib", "numpyro", "numpy", "scipy")
_PLACES = ((4.0, 0.1), (9.0, 1.0))  # R, z [kpc], at which a mass model shows what it is


def origins(
    stars: Stars,
    elements: str | Sequence[str] | None,
    seed: int,
    settings: Mapping[str, Any],
    model: MassModel = MILKY_WAY,
    extra: Sequence[str] = (),
) -> dict[str, Any]:
    """All that a result follows from, ready for JSON: measurements as digests, elements, seed, settings, versions, and
    the mass model by its potential at some places."""
    elements = list(stars.abundances) if elements is None else list(names_of(elements))
    chosen = stars.with_elements(elements, every=False) if elements else stars  # refused where they are used
    arrays = [chosen.heliocentric, *chosen.abundances.values(), *chosen.errors.values()]
    arrays += [chosen.extra[name] for name in extra if name in chosen.extra]
    ends = [model.Parameters()._replace(**{p.name: end}) for p in model.parameters for end in (p.low, p.high)]
    potential = [model.potential(R, z, theta) for theta in (model.Parameters(), *ends) for R, z in _PLACES]
    table = json.dumps([p._asdict() for p in model.parameters])
    return {
        "stars": _digest_of(arrays),
        "catalogue": stars.provenance.sha256,
        "elements": elements,
        "seed": seed,
        **settings,
        "mass model": f"{','.join(model.Parameters._fields)} {digest(table + _digest_of(potential))[:16]}",
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of(arrays: Sequence[Any]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(np.asarray(array, float)).tobytes())
    return found.hexdigest()


def open_checkpoint(folder: Path, inputs: Mapping[str, Any], resume: bool) -> Path:
    """The folder in which a run that follows from `inputs` (ready for JSON) keeps what is done, made where absent.

    Without `resume` it is emptied first. Raises `InputError` for a folder that is something else, cannot be written,
    or, with `resume`, belongs to other inputs: the message says which.
    """
    recorded = folder / _INPUTS
    if folder.exists() and not recorded.is_file():
        if not folder.is_dir() or any(folder.iterdir()):
            raise InputError(f"{folder}: is not a checkpoint of otibayes, and is left alone; choose another place")
    elif resume and recorded.is_file():
        try:
            before = json.loads(recorded.read_text())
        except ValueError:
            raise InputError(f"{recorded}: is damaged; start anew without resuming") from None
        if different := differences(before, inputs):
            raise InputError(
                f"the checkpoint {folder} is of another run: {'; '.join(different)}; start anew without resuming, or"
                " give the inputs that it had"
            )
        return folder

    def begin(part: Path) -> None:
        part.mkdir()
        (part / _INPUTS).write_text(json.dumps(dict(inputs), indent=1))
        if folder.exists():
            shutil.rmtree(folder)

    write_whole(folder, begin)  # never without its inputs
    return folder


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
