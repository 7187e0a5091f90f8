"""Generative models: what they return, what they may ask for, their priors, and how they are found by name or file."""

import hashlib
import importlib.util
import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ..base.errors import InputError
from ..base.parameters import Parameter
from ..dynamics import MILKY_WAY, MassModel
from ..results.provenance import digest

if TYPE_CHECKING:
    import xarray as xr

    from .data import Data

__all__ = [
    "GaussianField",
    "Model",
    "Requirements",
    "extra_columns",
    "load_model",
    "mass_model_of",
    "named_model",
    "prior",
    "requirements_of",
    "requires",
    "sample_parameters",
]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianField:
    """Abundances X ~ Normal(f(J), Sigma) with f_e = polynomial trend + GP(0, amplitude_e^2 k): a field, given theta.

    `lengths` (3,) of the kernel k, in units of the field's inputs; `amplitude` (E,), and the Cholesky factor of Sigma,
    `scatter_cholesky` (E, E), in units of the elements' standard deviations; `kernel`, one of `basis.KERNELS`. The
    fields of S draws have leading axes (S,).
    """

    lengths: Any
    amplitude: Any
    scatter_cholesky: Any
    kernel: str = field(default="expsquared", metadata={"static": True})


Model = Callable[["Data"], tuple[Any, GaussianField]]  # samples theta and hyperparameters of these stars' field


class Requirements(NamedTuple):
    """What a model needs: its own `mass_model`; `extra` columns of the stars, on which abundances depend linearly; the
    degrees of freedom `tails` of a Student t, by which outlying stars weigh less."""

    mass_model: MassModel = MILKY_WAY
    extra: tuple[str, ...] = ()
    tails: float | None = None


def requires(
    mass_model: MassModel = MILKY_WAY, extra: Sequence[str] = (), tails: float | None = None
) -> Callable[[Any], Any]:
    """A decorator that says what a model needs: see `Requirements`."""

    def mark(model: Any) -> Any:
        model.requirements = Requirements(mass_model, tuple(extra), tails)
        return model

    return mark


def requirements_of(model: Any) -> Requirements:
    """What a model needs: nothing special by default."""
    return getattr(model, "requirements", Requirements())


# ---- priors of the mass model's parameters


def prior(parameter: Parameter, high: Any = None) -> dist.Distribution:
    """Uniform between the bounds, up to `high` if given, or Normal(fiducial, prior_sd) truncated to the bounds."""
    if parameter.prior_sd is None:
        return dist.Uniform(parameter.low, parameter.high if high is None else high)
    return dist.TruncatedNormal(parameter.fiducial, parameter.prior_sd, low=parameter.low, high=parameter.high)


def sample_parameters(model: MassModel) -> Any:
    """theta (`Parameters`) as numpyro sample sites named as in the table, with no mass where the model forbids it."""
    free = [p for p in model.parameters if p.name not in model.limits]
    theta = model.Parameters(**{p.name: numpyro.sample(p.name, prior(p)) for p in free})
    for p in model.parameters:
        if p.name in model.limits:
            low, high = model.range(p, theta)
            theta = theta._replace(**{p.name: numpyro.sample(p.name, prior(p, high))})
            # uniform over the area that is allowed, rather than in one parameter given the others
            numpyro.factor(f"{p.name}_limit", jnp.log((high - low) / (p.high - low)))
    numpyro.factor("allowed", jnp.where(model.allowed(theta), 0.0, -jnp.inf))
    return theta


# ---- models by name or file


def named_model(model: str | os.PathLike[str] | Model) -> tuple[str, Model]:
    """A generative model and its name in a result: a user's own has the digest of its source in it."""
    if callable(model):
        name = f"{model.__module__}.{getattr(model, '__qualname__', type(model).__name__)}"
        try:
            return f"{name} {digest(inspect.getsource(model))}", model
        except (OSError, TypeError):  # there is no source
            return name, model
    function = load_model(model)
    if function.__module__.startswith("otibayes.models"):
        return str(model), function
    return f"{Path(model).name} {hashlib.sha256(Path(model).read_bytes()).hexdigest()}", function


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """The generative model of that name in `otibayes.models`, or in the user's own .py file, which is run.

    A file must define one public function named as the file or `model`, of one argument, the stars' `Data`. Raises
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
        number = "both" if names else "neither"
        raise InputError(f"{path}: must define one function called {path.stem!r} or 'model'; it defines {number}")
    function = getattr(module, next(iter(names)))
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != 1:
        raise InputError(f"{path}: {function.__name__} must take one argument, the data; it takes {len(needed)}")
    return function


def mass_model_of(posterior: "xr.DataTree", mass_model: MassModel | None = None) -> MassModel:
    """The mass model of a result: the one given, else that of its generative model, if shipped, else the default.

    Raises `InputError` where its parameters are not those of the result.
    """
    from .. import models

    name = json.loads(posterior.attrs["settings"]).get("model", "")
    model = mass_model or requirements_of(getattr(models, name, None)).mass_model
    wanted = posterior.attrs["parameters"]
    if ",".join(model.Parameters._fields) != wanted:
        raise InputError(f"the result's parameters are {wanted}, the mass model's are not; give its own as mass_model")
    return model


def extra_columns(model: str | os.PathLike[str] | Model) -> tuple[str, ...]:
    """Names of the columns besides abundances that a generative model asks of the stars, such as LOGG and TEFF."""
    return requirements_of(named_model(model)[1]).extra
