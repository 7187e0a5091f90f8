"""Generative models by name, by file, or as they are: what they bring, and whether they can be sampled and saved."""

import functools
import hashlib
import importlib.util
import inspect
import json
import os
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax.numpy as jnp
import xarray as xr
from numpyro import handlers

from ..base.errors import InputError
from ..dynamics import MassModel
from ..results.provenance import digest
from ..results.schema import DERIVED, file_name
from .data import Data
from .likelihood import Likelihood
from .requirements import requirements_of

__all__ = ["Model", "check_model", "extra_columns", "load_model", "mass_model_of", "named_model"]

Model = Callable[[Likelihood], None]

_PRIOR_DRAWS = 8  # at which a model's density is evaluated
# Dimensions and coordinates of the groups of a result
_RESERVED = {"chain", "draw", "star", "element", "element_2", "input"}


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
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        _blame(path, error)
    names = dict.fromkeys(n for n in (path.stem, "model") if callable(getattr(module, n, None)))
    if len(names) != 1:
        found = "both" if names else "neither"
        raise InputError(f"{path}: must define one function called {path.stem!r} or 'model'; it defines {found}")
    function = getattr(module, next(iter(names)))
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != 1:
        raise InputError(f"{path}: {function.__name__} must take one argument, the likelihood; it takes {len(needed)}")

    @functools.wraps(function)
    def model(likelihood: Likelihood) -> None:
        try:
            function(likelihood)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            _blame(path, error)

    return model


def _blame(path: Path, error: BaseException) -> NoReturn:
    """Raise `InputError` for an error in a user's file, with the last of its lines that ran."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    reason = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())[:300]
    where = f"{path}, line {line}" if line else str(path)
    raise InputError(f"{where}: {type(error).__name__}: {reason or 'no message'}; correct the model file") from error


def check_model(model: Model, data: Data) -> None:
    """Raise `InputError` where a model could not be sampled, or its draws not be saved.

    It must sample every parameter of the mass model; its prior density must be a number at some of its own draws; and
    names of sites and elements must stay apart from one another, and from those of a result, in a file.
    """
    prior = Likelihood(data, "none")
    finite, culprits = False, Counter[str]()
    for seed in range(_PRIOR_DRAWS):
        sites = handlers.trace(handlers.seed(model, seed)).get_trace(prior)
        sampled = {name: site for name, site in sites.items() if site["type"] == "sample"}
        density = {name: jnp.sum(site["fn"].log_prob(site["value"])) for name, site in sampled.items()}
        culprits.update(name for name, value in density.items() if not jnp.isfinite(value))
        finite |= bool(jnp.isfinite(sum(density.values())))
    free = {name for name, site in sampled.items() if not site["is_observed"]}
    missing = [p.name for p in data.model.parameters if p.name not in free]
    if missing:
        raise InputError(
            f"the model does not sample {', '.join(missing)}; begin it with"
            " theta = otibayes.generative.sample_parameters(likelihood.data.model)"
        )
    if not finite:
        worst = culprits.most_common(1)[0][0]
        raise InputError(
            f"the model's density is not finite at any of {_PRIOR_DRAWS} draws of its prior; correct its site {worst!r}"
        )
    saved = [*free, *(name for name, site in sites.items() if site["type"] == "deterministic")]
    _check_names("site", [name for name in saved if name not in data.model.Parameters._fields])
    _check_names("element", data.elements)


def _check_names(kind: str, names: Any) -> None:
    """Raise `InputError` where two names are one in a file, or one is that of something else in a result."""
    in_file: dict[str, Any] = {}
    for name in names:
        other = in_file.setdefault(file_name(name), name)
        if other != name:
            raise InputError(f"the {kind}s {other!r} and {name!r} have the same name in a file; rename one")
        if file_name(name) in _RESERVED | ({*DERIVED} if kind == "site" else set()):
            raise InputError(f"the {kind} {name!r} has the name of something else in a result; rename it")


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
