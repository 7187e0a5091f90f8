"""Priors of the dynamical parameters, from the parameter table."""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from ..base.parameters import Parameter
from ..dynamics import MassModel

__all__ = ["prior", "sample_parameters"]


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
            numpyro.factor(f"{p.name}_limit", jnp.log((high - low) / (p.high - low)))  # uniform in both, not in turn
    numpyro.factor("allowed", jnp.where(model.allowed(theta), 0.0, -jnp.inf))
    return theta
