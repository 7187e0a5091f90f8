"""The generative path: abundances ~ a Gaussian process over actions, sampled with NUTS."""

from importlib import import_module
from typing import Any

# The module of each public name, imported when the name is first used: the command line reads settings without waiting
# for the samplers.
_HOMES = {
    "Data": "data",
    "GaussianField": "model",
    "Posterior": "posterior",
    "SampleSettings": "settings",
    "likelihood_data": "data",
    "predictions": "prediction",
    "requires": "model",
    "sample_parameters": "model",
    "sample_posterior": "posterior",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
