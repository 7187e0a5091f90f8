"""The field that the likelihood integrates out: draws of its coefficients, and of abundances that follow from them.

Given theta and hyperparameters the coefficients B (M, E) of the `design` are Gaussian. Those of the trend have the
prior covariance Sigma, those of the process are matrix-normal. Stars add Phi^T Phi x (Sigma + errors)^-1 to the
precision, class by class of stars that lack the same elements and have the same errors.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base.parallel import threaded
from ..dynamics.trend import TREND_SIZE
from .basis import Basis
from .data import Data
from .density import coefficients, sums_of_classes
from .model import PRIOR_DRAWS, GaussianField, Model, prior_of
from .pointwise import log_prior, pointwise
from .statistic import Statistic, design
from .sums import inputs_at
from .unconstrained import Unconstrained
from .weights import Classes

__all__ = [
    "FieldDraws",
    "Predictions",
    "field_draws",
    "posterior_coefficients",
    "predict",
    "predictions",
    "prior_draws",
]

_PRIOR_SHOWN = 1000  # draws
SHOWN_DRAWS, SHOWN_STARS = 100, 300  # of the posterior and of the stars: what ArviZ shows, and predictions stay small
_COMPARED = 400  # draws: with 100 the tail of the weights of leave-one-out has five, which give no Pareto k


class FieldDraws(NamedTuple):
    """At S draws: theta (S, P), what the model assumes of the field (S), coefficients of the design (S, M, E), in units
    of `Data.scale`, and those of the relabelling (S, T, 3) of its inputs, or None."""

    theta: np.ndarray
    field: GaussianField
    coefficients: np.ndarray
    change: Any = None


def prior_draws(model: Model, data: Data, number: int, seed: int) -> tuple[dict[str, np.ndarray], GaussianField]:
    """Draws (number, ...) of every site from the model's prior, and the fields; its factors (limits of parameters) by
    rejection."""
    parts = list(itertools.islice(prior_of(model, data, seed), -(-4 * number // PRIOR_DRAWS)))
    values, field, density = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    weight = sum((density[name] for name in density if name not in values), np.zeros(len(parts) * PRIOR_DRAWS))
    chance = np.random.default_rng([seed, 0x7072696F72]).random(len(weight))
    likely = np.exp(weight - weight.max()) > chance
    return jax.tree.map(lambda leaf: leaf[likely][:number], (values, field))


def posterior_coefficients(
    field: GaussianField, basis: Basis, gram: Any, projection: Any, classes: Classes, key: Any
) -> jax.Array:
    """One draw (M, E) of the coefficients, from the sums over each class of stars: see `density.coefficients`."""
    # all combinations: far from the stars, those that the stars do not constrain matter too
    c = coefficients(field, basis._replace(ranks=None), gram, projection, classes)
    factor = jnp.linalg.cholesky(c.precision)
    z = jax.scipy.linalg.cho_solve((factor, True), c.b)
    z = z + jax.scipy.linalg.solve_triangular(factor, jax.random.normal(key, c.b.shape), lower=True, trans=1)
    return c.unwhitened(z)


def field_draws(
    data: Data, statistic: Callable[[np.ndarray], Statistic], theta: np.ndarray, field: GaussianField, seed: int
) -> FieldDraws:
    """The field at S draws of theta (S, P) and of what is assumed of it, from the `statistic` at each theta."""

    @jax.jit
    def one(field: GaussianField, found: Statistic, key: Any) -> jax.Array:
        sums = sums_of_classes(found, data.classes)
        return posterior_coefficients(field, data.basis, *sums, data.classes, key)

    keys = jax.random.split(jax.random.PRNGKey(seed), len(theta))

    def at(s: int) -> tuple[np.ndarray, Any]:
        found = statistic(theta[s])
        drawn = one(jax.tree.map(lambda leaf: jnp.asarray(leaf[s]), field), found, keys[s])
        return jax.tree.map(np.asarray, (drawn, found.relabelling))

    drawn = threaded("field", "draw")(at, range(len(theta)))
    return FieldDraws(theta, field, *jax.tree.map(lambda *leaves: np.stack(leaves), *drawn))


def _prior_field(data: Data, theta: np.ndarray, field: GaussianField, seed: int) -> FieldDraws:
    """The field at S draws of theta (S, P) and of what is assumed of it, from its prior: there are no stars, and no
    relabelling."""
    size = TREND_SIZE + data.basis.size + (0 if data.linear is None else data.linear.shape[1])
    elements = len(data.elements)
    none = Classes(np.zeros((1, elements), bool), np.zeros((1, elements)))

    def one(field: GaussianField, key: Any) -> jax.Array:
        nothing = jnp.zeros((1, size, size)), jnp.zeros((1, size, elements))
        return posterior_coefficients(field, data.basis, *nothing, none, key)

    keys = jax.random.split(jax.random.PRNGKey(seed), len(theta))
    return FieldDraws(theta, field, np.asarray(jax.jit(jax.vmap(one))(field, keys)))


class Predictions(NamedTuple):
    """What a result shows besides the posterior's draws: draws from the `prior` (S, ...) of every site; of the `chosen`
    draws of each chain (thinned), the field and abundances (S, n, E) [dex] of the `stars` (indices) that it predicts;
    the same from the prior; of more draws, `compared`, leave-one-out densities `log_likelihood` (S, n) of these stars;
    of all draws, the `log_prior` (chain, draw) of every site."""

    prior: dict[str, np.ndarray]
    chosen: np.ndarray
    stars: np.ndarray
    field: FieldDraws
    predicted: np.ndarray
    prior_predicted: np.ndarray
    compared: np.ndarray
    log_likelihood: np.ndarray
    log_prior: dict[str, np.ndarray]


def predictions(
    unconstrained: Unconstrained,
    data: Data,
    draws: Mapping[str, np.ndarray],
    statistic: Callable[[np.ndarray], Statistic],
    seed: int,
) -> Predictions:
    """Prior draws, and field and predictions at a thinned set of the posterior's `draws` (chain, draw, ...)."""
    names = data.model.Parameters._fields
    chains, length = draws[names[0]].shape[:2]

    def thinned(number: int) -> np.ndarray:
        return np.unique(np.linspace(0, length - 1, min(length, -(-number // chains))).astype(int))

    def at(chosen: np.ndarray) -> tuple[np.ndarray, GaussianField]:
        few = {name: value[:, chosen].reshape(-1, *value.shape[2:]) for name, value in draws.items()}
        fields = jax.tree.map(np.asarray, jax.jit(jax.vmap(unconstrained.field))(few))
        return np.stack([few[name] for name in names], 1), fields

    chosen = thinned(SHOWN_DRAWS)
    compared = np.union1d(chosen, thinned(_COMPARED))
    whole = np.isfinite(data.variance).all(1)  # stars with every element, if any
    usable = np.flatnonzero(whole) if whole.any() else np.arange(len(data))
    # whatever the seed, so that results of the same stars compare
    stars = np.sort(np.random.default_rng(0x73746172).permutation(usable)[:SHOWN_STARS])
    theta, fields = at(chosen)
    field = field_draws(data, statistic, theta, fields, seed)
    prior, fields = prior_draws(unconstrained.model, unconstrained.data, _PRIOR_SHOWN, seed)
    prior_theta = np.stack([prior[name][: len(theta)] for name in names], 1)
    before = _prior_field(data, prior_theta, jax.tree.map(lambda leaf: leaf[: len(theta)], fields), seed)
    return Predictions(
        prior,
        chosen,
        stars,
        field,
        predict(data, field, stars, seed),
        predict(data, before, stars, seed + 1),
        compared,
        pointwise(data, statistic, *at(compared), stars),
        log_prior(unconstrained.model, data, draws),
    )


def predict(data: Data, found: FieldDraws, stars: np.ndarray, seed: int) -> np.ndarray:
    """New abundances (S, n, E) [dex] of the stars at these indices, scatter and errors included, at every draw."""
    rng = np.random.default_rng([seed, 0x70726564])
    vectors, delta = data.stars[stars], data.delta[stars]
    linear = None if data.linear is None else data.linear[stars]

    @jax.jit
    def mean_at(x: jax.Array, change: Any, coefficients: jax.Array) -> jax.Array:
        return design(data.basis, data.labels(x, change), linear) @ coefficients

    def at(s: int) -> np.ndarray:
        x = inputs_at(found.theta[s], vectors, delta, data.model, data.block)
        return np.asarray(mean_at(x, None if found.change is None else found.change[s], found.coefficients[s]))

    mean = np.stack([at(s) for s in range(len(found.theta))])
    noise = np.einsum("sef,snf->sne", found.field.scatter_cholesky, rng.standard_normal(mean.shape))
    if data.tails is not None:
        noise /= np.sqrt(rng.gamma(data.tails / 2, 2 / data.tails, mean.shape[:2]))[..., None]
    own = np.sqrt(np.where(np.isfinite(data.variance[stars]), data.variance[stars], 0.0))
    noise += own * rng.standard_normal(mean.shape)
    return data.centre + data.scale * (mean + noise)
