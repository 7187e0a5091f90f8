"""Generative models: what they return, what they may ask for, their priors, and how they are found by name or file."""

import functools
import hashlib
import importlib.util
import inspect
import json
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from ..base.errors import InputError
from ..base.parameters import Parameter
from ..dynamics import MILKY_WAY, MassModel
from ..results.provenance import digest
from ..results.schema import DERIVED, file_name
from .basis import KERNELS

if TYPE_CHECKING:
    import xarray as xr

    from .data import Data

__all__ = [
    "PRIOR_DRAWS",
    "GaussianField",
    "Model",
    "Requirements",
    "check_model",
    "extra_columns",
    "load_model",
    "mass_model_of",
    "named_model",
    "prior",
    "prior_of",
    "requirements_of",
    "requires",
    "sample_parameters",
]


PRIOR_DRAWS = 500  # of a model's prior at once
_TRIED = 8  # draws at which a model's density is looked at
# Dimensions and coordinates of the groups of a result
_RESERVED = {"chain", "draw", "star", "element", "element_2", "input"}


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
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        _blame(path, error)
    names = dict.fromkeys(n for n in (path.stem, "model") if callable(getattr(module, n, None)))
    if len(names) != 1:
        number = "both" if names else "neither"
        raise InputError(f"{path}: must define one function called {path.stem!r} or 'model'; it defines {number}")
    function = getattr(module, next(iter(names)))
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != 1:
        raise InputError(f"{path}: {function.__name__} must take one argument, the data; it takes {len(needed)}")

    @functools.wraps(function)
    def model(data: "Data") -> tuple[Any, GaussianField]:
        try:
            return function(data)
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


def check_model(model: Model, data: "Data") -> None:
    """Raise `InputError` where a model could not be sampled, or its draws not be saved.

    It must sample every parameter of the mass model, return theta and a `GaussianField` of these elements, and have a
    finite prior density at some of its own draws. Names of sites and elements must stay apart from one another, and
    from those of a result, in a file.
    """
    found: dict[str, Any] = {}

    def once(key: Any) -> None:
        with handlers.trace() as sites:
            found["returned"] = handlers.seed(model, key)(data)
        found["sites"] = sites

    jax.eval_shape(once, jax.random.PRNGKey(0))
    sites = found["sites"]
    free = [name for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]]
    missing = [p.name for p in data.model.parameters if p.name not in free]
    if missing:
        raise InputError(
            f"the model does not sample {', '.join(missing)}; begin it with"
            " theta = otibayes.generative.sample_parameters(data.model)"
        )
    density = {name: values[:_TRIED] for name, values in next(prior_of(model, data, 0))[2].items()}
    if not np.isfinite(sum(density.values())).any():
        worst = max(density, key=lambda name: int(np.sum(~np.isfinite(density[name]))))
        raise InputError(
            f"the model's density is not finite at any of {_TRIED} draws of its prior; correct its site {worst!r}"
        )
    _check_field(found["returned"], len(data.elements))
    saved = [*free, *(name for name, site in sites.items() if site["type"] == "deterministic")]
    _check_names("site", [name for name in saved if name not in data.model.Parameters._fields])
    _check_names("element", data.elements)


@functools.lru_cache(maxsize=1)
def _prior_program(model: Model, data: "Data") -> Callable[[Any], Any]:
    """Of keys (S, 2): what `prior_of` yields."""

    def one(key: Any) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        with handlers.trace() as sites:
            returned = handlers.seed(model, key)(data)
        field = returned[1] if _has_field(returned) else None
        sampled = {name: site for name, site in sites.items() if site["type"] == "sample"}
        density = {name: jnp.sum(site["fn"].log_prob(site["value"])) for name, site in sampled.items()}
        shown = [name for name, site in sampled.items() if not site["is_observed"]]
        shown += [name for name, site in sites.items() if site["type"] == "deterministic"]
        return {name: sites[name]["value"] for name in shown}, field, density

    return jax.jit(jax.vmap(one))


def prior_of(model: Model, data: "Data", seed: int) -> Iterator[tuple[dict[str, Any], GaussianField, dict[str, Any]]]:
    """Draws of every site from a model's prior, in parts of `PRIOR_DRAWS`, without end: the values, the fields, and ln
    of the density of every site, factors (limits of parameters) among them."""
    key = jax.random.PRNGKey(seed)
    while True:
        key, now = jax.random.split(key)
        drawn = _prior_program(model, data)(jax.random.split(now, PRIOR_DRAWS))
        yield jax.tree.map(np.asarray, drawn)


def _has_field(returned: Any) -> bool:
    return isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], GaussianField)


def _check_field(returned: Any, elements: int) -> None:
    if not _has_field(returned):
        raise InputError(
            f"the model returned {type(returned).__name__}; it must return theta and a GaussianField, for example"
            " `return joint_abundances(data)`"
        )
    shapes = {"lengths": (3,), "amplitude": (elements,), "scatter_cholesky": (elements, elements)}
    for name, shape in shapes.items():
        if np.shape(getattr(returned[1], name)) != shape:
            wrong = np.shape(getattr(returned[1], name))
            raise InputError(f"the model's {name} has shape {wrong}; {shape} is needed for {elements} elements")
    if returned[1].kernel not in KERNELS:
        raise InputError(f"the model's kernel {returned[1].kernel!r} is unknown; choose one of {', '.join(KERNELS)}")


def _check_names(kind: str, names: Any) -> None:
    """Raise `InputError` where two names are one in a file, or one is that of something else in a result."""
    in_file: dict[str, Any] = {}
    for name in names:
        other = in_file.setdefault(file_name(name), name)
        if other != name:
            raise InputError(f"the {kind}s {other!r} and {name!r} have the same name in a file; rename one")
        if file_name(name) in _RESERVED | ({*DERIVED} if kind == "site" else set()):
            raise InputError(f"the {kind} {name!r} has the name of something else in a result; rename it")


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
