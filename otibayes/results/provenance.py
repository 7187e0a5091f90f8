"""What a result follows from, by name: so that a result or a checkpoint of other inputs is known, and which differ."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..dynamics import MILKY_WAY, MassModel
from ..stars import Stars
from ..stars.stars import names_of

__all__ = ["digest", "origins"]

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
