"""Priors of the dynamical parameters, from the parameter table."""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ..dynamics import MassModel
from ..parameters import Parameter

__all__ = ["prior", "sample_parameters"]


def prior(parameter: Parameter) -> dist.Distribution:
    """Uniform between the bounds, or Normal(fiducial, prior_sd) truncated to them."""
    if parameter.prior_sd is None:
        return dist.Uniform(parameter.low, parameter.high)
    return dist.TruncatedNormal(parameter.fiducial, parameter.prior_sd, low=parameter.low, high=parameter.high)


def sample_parameters(model: MassModel) -> Any:
    """theta (`Parameters`) as numpyro sample sites named as in the table, with no mass where the model forbids it."""
    theta = model.Parameters(*(numpyro.sample(p.name, prior(p)) for p in model.parameters))
    numpyro.factor("allowed", jnp.where(model.allowed(theta), 0.0, -jnp.inf))
    return theta
