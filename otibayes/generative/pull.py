"""The pull: how far a posterior is, averaged over the noise, from a truth set to its own posterior mean.

Take the posterior-mean field at the posterior-mean theta for the truth. Abundances that follow it, with the model's own
scatter, have a noise-averaged ln L whose maximum is somewhat off that theta: the prior of the field prefers some theta
to others. With P and b of `density.coefficients`, of abundances that are the field itself, it is, but for a constant,

    E ln L = (b^T P^-1 b - tr P^-1 - ln det P) / 2

at fixed hyperparameters, as the noise of b has covariance P - 1. To first order the maximum is off by C g, with g the
slope of E ln L at theta and C the posterior covariance.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ..base.parallel import cores, in_blocks
from ..base.store import Store
from .basis import Basis
from .data import Data
from .density import coefficients, sums_of_classes
from .model import GaussianField
from .statistic import Moments, Statistic, condensed, design
from .sums import inputs_at
from .surface import passes
from .unconstrained import Unconstrained
from .weights import Classes

__all__ = ["averaged_log_likelihood", "mean_field", "own_slope", "slope_of_average"]

_STEP = 2e-4  # of differences of fourth order, in units of the parameters' ranges


def averaged_log_likelihood(field: GaussianField, found: Statistic, basis: Basis, classes: Classes) -> jax.Array:
    """E ln L over the model's own noise, of a `Statistic` whose abundances are free of noise; but for a constant."""
    c = coefficients(field, basis, *sums_of_classes(found, classes), classes)
    factor = jnp.linalg.cholesky(c.precision)
    half = jax.scipy.linalg.solve_triangular(factor, jnp.eye(len(factor)), lower=True)
    explained = jnp.sum((half @ c.b) ** 2)
    return 0.5 * (explained - jnp.sum(half**2)) - jnp.sum(jnp.log(jnp.diagonal(factor)))


def mean_field(data: Data, theta: np.ndarray, field: GaussianField, found: Statistic) -> np.ndarray:
    """The posterior-mean field (N, E) of the stars at theta (d,), in units of `Data.scale`, from the statistic."""

    @jax.jit
    def mean(field: GaussianField, found: Statistic) -> jax.Array:
        c = coefficients(field, data.basis, *sums_of_classes(found, data.classes), data.classes)
        return c.unwhitened(jax.scipy.linalg.solve(c.precision, c.b, assume_a="pos"))

    B = mean(field, found)

    @jax.jit
    def values(x: jax.Array, linear: jax.Array) -> jax.Array:
        return design(data.basis, data.labels(x, found.relabelling), linear) @ B

    x = inputs_at(theta, data.stars, data.delta, data.model, data.block)
    linear = np.zeros((len(data), 0)) if data.linear is None else data.linear
    return np.asarray(in_blocks(values, x, linear, size=data.block))


def own_slope(
    unconstrained: Unconstrained, data: Data, statistic: Callable[[np.ndarray], Statistic], flat: np.ndarray
) -> np.ndarray:
    """That of `slope_of_average` (d,), at the mean of draws `flat` (..., P), of the posterior-mean field there."""
    middle = flat.reshape(-1, flat.shape[-1]).mean(0)
    theta = unconstrained.thetas(middle)
    field = jax.tree.map(lambda leaf: leaf[0], unconstrained.fields(middle[None]))
    return slope_of_average(data, field, mean_field(data, theta, field, statistic(theta)))(theta)


def slope_of_average(data: Data, field: GaussianField, truth: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The slope (d,) by theta of E ln L of abundances whose mean is `truth` (N, E), as a function of theta (d,)."""
    exact = replace(data, Y=jnp.asarray(truth))
    steps = np.diag([_STEP * (p.high - p.low) for p in data.model.parameters])

    @jax.jit
    def average(sums: Moments) -> jax.Array:
        found = condensed(data.basis, sums, len(data.elements))
        return averaged_log_likelihood(field, found, data.basis, data.classes)

    def slope(theta: np.ndarray) -> np.ndarray:
        points = [theta + k * step for step in steps for k in (1, -1, 2, -2)]
        values = [average(sums) for sums in passes(Store(threads=cores()), exact, points)]
        return np.reshape(values, (-1, 4)) @ np.array([8, -8, -1, 1]) / (12 * steps.sum(1))

    return slope
