"""Generative models by name, by file, or as they are, and what they bring: a mass model, columns of the stars."""

import hashlib
import importlib.util
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from ..base.errors import InputError
from ..dynamics import MassModel
from ..results.provenance import digest
from .likelihood import Likelihood
from .requirements import requirements_of

__all__ = ["Model", "extra_columns", "load_model", "mass_model_of", "named_model"]

Model = Callable[[Likelihood], None]


def named_model(model: str | os.PathLike[str] | Model) -> tuple[str, Model]:
    """A generative model and what to call it in a result."""
    if callable(model):
        name = f"{model.__module__}.{getattr(model, '__qualname__', type(model).__name__)}"
        try:
            return f"{name} {digest(inspect.getsource(model))}", model
        except (OSError, TypeError):  # made where there is no source
            return name, model
    function = load_model(model)
    if function.__module__.startswith("otibayes.models"):
        return str(model), function
    return f"{Path(model).name} {hashlib.sha256(Path(model).read_bytes()).hexdigest()}", function


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """The generative model of that name in `otibayes.models`, or in the user's own .py file, which is run.

    A file must define one public function named as the file or `model`, of one argument, the `Likelihood`. Raises
    `InputError` otherwise.
    """
    from .. import models

    name = os.fspath(name_or_path)
    if not name.endswith(".py"):
        if name not in models.__all__:
            known = ", ".join(models.__all__)
            raise InputError(f"unknown model {name!r}; choose one of {known}, or give the path of a .py file")
        return getattr(models, name)
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # for any name that ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's code may raise anything
        raise InputError(f"{path}: cannot be run: {type(error).__name__}: {str(error).splitlines()[:1]}") from error
    names = dict.fromkeys(n for n in (path.stem, "model") if callable(getattr(module, n, None)))
    if len(names) != 1:
        found = "both" if names else "neither"
        raise InputError(f"{path}: must define one function called {path.stem!r} or 'model'; it defines {found}")
    function = getattr(module, next(iter(names)))
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != 1:
        raise InputError(f"{path}: {function.__name__} must take one argument, the likelihood; it takes {len(needed)}")
    return function


def mass_model_of(posterior: xr.DataTree, given: MassModel | None = None) -> MassModel:
    """The mass model of a result: the one `given`, else that of its generative model, if shipped, else the default.

    Raises `InputError` where its parameters are not those of the result.
    """
    from .. import models

    name = json.loads(posterior.attrs["settings"]).get("model", "")
    model = given or requirements_of(getattr(models, name, None)).mass_model
    wanted = posterior.attrs["parameters"]
    if ",".join(model.Parameters._fields) != wanted:
        raise InputError(f"the result's parameters are {wanted}, the mass model's are not; give its own as mass_model")
    return model


def extra_columns(model: str | os.PathLike[str] | Model) -> tuple[str, ...]:
    """Names of the columns besides abundances that a generative model asks of the stars, such as LOGG and TEFF."""
    return requirements_of(named_model(model)[1]).extra
