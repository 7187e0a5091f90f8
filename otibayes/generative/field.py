"""The field that the likelihood integrates out: draws of its coefficients, and of abundances that follow from them.

Given theta and hyperparameters the coefficients B (M, E) of the `design` are Gaussian: a row of the wide terms' has
the prior covariance Sigma, those of the process are matrix-normal, and stars add Phi^T Phi x (Sigma + errors)^-1 to the
precision, class by class of stars that lack the same elements and have the same errors.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from ..base.parallel import threaded
from ..dynamics.trend import wide_terms
from .basis import Basis, prior_covariance, size
from .data import Data
from .likelihood import Call, Likelihood, Recorder
from .statistic import Statistic, design
from .sums import inputs_at

__all__ = [
    "Call",
    "Drawn",
    "Field",
    "Sums",
    "calls_of",
    "draw_all",
    "field_draws",
    "posterior_coefficients",
    "predict",
    "prior_draws",
    "prior_field",
    "sums",
]

PRIOR_DRAWS = 1000
SHOWN_DRAWS, SHOWN_STARS = 100, 300  # of the posterior and of the stars: what ArviZ shows, and predictions stay small


class Sums(NamedTuple):
    """Over the stars of each of C classes: `gram` (C, M, M) = Phi^T Phi, `projection` (C, M, E) = Phi^T Y."""

    gram: Any
    projection: Any


class Field(NamedTuple):
    """At S draws: theta (S, P), the call, and coefficients of the design (S, M, E), in units of `Data.scale`."""

    theta: np.ndarray
    kernel: str
    call: Call
    coefficients: np.ndarray


def prior_draws(model: Callable[[Likelihood], None], data: Data, number: int, seed: int) -> dict[str, np.ndarray]:
    """Draws (number, ...) of every site from the model's prior; its factors (limits of parameters) by rejection."""

    def one(key: Any) -> tuple[dict[str, Any], Any]:
        recorder = Recorder(data, "none")
        sites = handlers.trace(handlers.seed(model, key)).get_trace(recorder).values()
        sampled = [site for site in sites if site["type"] == "sample"]
        factors = [jnp.sum(site["fn"].log_prob(site["value"])) for site in sampled if site["is_observed"]]
        shown = [site for site in sampled if not site["is_observed"]]
        shown += [site for site in sites if site["type"] == "deterministic"]
        return {site["name"]: site["value"] for site in shown}, sum(factors, jnp.zeros(()))

    key, chance = jax.random.split(jax.random.PRNGKey(seed))
    values, weight = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(key, 4 * number)))
    likely = np.exp(weight - weight.max()) > np.asarray(jax.random.uniform(chance, weight.shape))
    return {name: value[likely][:number] for name, value in values.items()}


def calls_of(
    model: Callable[[Likelihood], None], data: Data, draws: Mapping[str, np.ndarray]
) -> tuple[str, Call] | None:
    """Kernel and call at draws (S, ...) of every site; None for a model that does not call its likelihood once."""
    kernels: list[str] = []

    def one(draw: Any) -> list[Call]:
        recorder = Recorder(data, "none")
        handlers.substitute(handlers.seed(model, 0), data=draw)(recorder)
        kernels[:] = [kernel for kernel, _ in recorder.called]
        return [call for _, call in recorder.called]

    calls = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(dict(draws)))
    return (kernels[0], calls[0]) if len(calls) == 1 else None


def sums(found: Statistic) -> Sums:
    """From a likelihood's statistic, with a class axis."""

    def one(found: Statistic) -> Sums:
        return Sums(found.factor @ found.factor.T - jnp.eye(len(found.factor)), found.factor @ found.projection)

    return jax.vmap(one)(found) if found.factor.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], one(found))


def posterior_coefficients(
    basis: Basis, kernel: str, call: Call, found: Sums, observed: Any, variance: Any, key: Any
) -> jax.Array:
    """One draw (M, E) of the coefficients given one call, the sums over the stars, and what each class of stars has
    `observed` (C, E) and with what error `variance` (C, E) beyond Sigma."""
    L, elements = call.scatter_cholesky, call.amplitude.shape[0]
    M = found.gram.shape[-1]
    seen = observed[:, :, None] * observed[:, None, :]
    blind = (1.0 - observed)[:, :, None] * jnp.eye(elements)[None]
    precision = seen * jnp.linalg.inv(seen * ((L @ L.T)[None] + variance[:, :, None] * jnp.eye(elements)[None]) + blind)
    root, mix, kind = _prior(basis, kernel, call, M)
    gram = jnp.einsum("ka,ckl,lb->cab", root, found.gram, root)
    mixed = jnp.einsum("uie,cij,vjf->cuvef", mix, precision, mix)
    P = jnp.einsum("cab,cabef->aebf", gram, mixed[:, kind][:, :, kind]).reshape(M * elements, -1)
    b = jnp.einsum("ka,cki,cij,aje->ae", root, found.projection, precision, mix[kind]).reshape(-1)
    factor = jnp.linalg.cholesky(P + jnp.eye(len(b)))
    z = jax.scipy.linalg.cho_solve((factor, True), b)
    z = z + jax.scipy.linalg.solve_triangular(factor, jax.random.normal(key, b.shape), lower=True, trans=1)
    return root @ jnp.einsum("aie,ae->ai", mix[kind], z.reshape(M, elements))


def prior_field(data: Data, theta: np.ndarray, kernel: str, call: Call, seed: int) -> Field:
    """The field at S draws of theta (S, P) and calls, from its prior."""
    number = wide_terms(jnp.zeros(3)).size + size(data.basis) + (0 if data.linear is None else data.linear.shape[1])

    def one(call: Call, key: Any) -> jax.Array:
        root, mix, kind = _prior(data.basis, kernel, call, number)
        z = jax.random.normal(key, (number, len(data.elements)))
        return root @ jnp.einsum("aie,ae->ai", mix[kind], z)

    keys = jax.random.split(jax.random.PRNGKey(seed), len(theta))
    return Field(theta, kernel, call, np.asarray(jax.jit(jax.vmap(one))(call, keys)))


def _prior(basis: Basis, kernel: str, call: Call, number: int) -> tuple[Any, Any, np.ndarray]:
    """Roots of the prior: over columns (M, M); over elements (2, E, E), of wide terms and of the process; which
    of the two each column has."""
    linear = number - size(basis)
    root = jax.scipy.linalg.block_diag(
        jnp.eye(linear), jnp.linalg.cholesky(prior_covariance(basis, kernel, call.lengths))
    )
    return root, jnp.stack([call.scatter_cholesky, jnp.diag(call.amplitude)]), (np.arange(number) >= linear).astype(int)


def field_draws(
    data: Data,
    statistic: Callable[[np.ndarray], Statistic],
    theta: np.ndarray,
    kernel: str,
    call: Call,
    seed: int,
) -> Field:
    """The field at S draws of theta (S, P) and calls, from the `statistic` at each theta."""
    one = jax.jit(partial(_one_draw, data.basis, kernel))
    keys = jax.random.split(jax.random.PRNGKey(seed), len(theta))
    observed, variance = jnp.asarray(data.classes.observed, float), jnp.asarray(data.classes.variance)

    def at(s: int) -> np.ndarray:
        call_s = jax.tree.map(lambda leaf: jnp.asarray(leaf[s]), call)
        return np.asarray(one(call_s, statistic(theta[s]), observed, variance, keys[s]))

    return Field(theta, kernel, call, np.stack(threaded("field", "draw")(at, range(len(theta)))))


def _one_draw(basis: Basis, kernel: str, call: Call, found: Statistic, observed: Any, variance: Any, key: Any) -> Any:
    return posterior_coefficients(basis, kernel, call, sums(found), observed, variance, key)


class Drawn(NamedTuple):
    """What a result shows besides the posterior's draws: draws from the `prior` (S, ...) of every site; of the `chosen`
    draws of each chain (thinned), the field and abundances (S, n, E) [dex] of the `stars` (indices) that it predicts;
    the same from the prior. The last four are None where the model has no one field."""

    prior: dict[str, np.ndarray]
    chosen: np.ndarray
    stars: np.ndarray
    field: Field | None
    predicted: np.ndarray | None
    prior_predicted: np.ndarray | None


def draw_all(
    model: Callable[[Likelihood], None],
    data: Data,
    draws: Mapping[str, np.ndarray],
    statistic: Callable[[np.ndarray], Statistic],
    seed: int,
) -> Drawn:
    """Prior draws, and field and predictions at a thinned set of the posterior's `draws` (chain, draw, ...)."""
    chains, length = draws["z_sun"].shape[:2]
    chosen = np.unique(np.linspace(0, length - 1, min(length, -(-SHOWN_DRAWS // chains))).astype(int))
    whole = np.isfinite(data.variance).all(1)  # some stars with every element, if any
    usable = np.flatnonzero(whole) if whole.any() else np.arange(len(data))
    stars = np.sort(np.random.default_rng([seed, 0x73746172]).permutation(usable)[:SHOWN_STARS])
    prior = prior_draws(model, data, PRIOR_DRAWS, seed)
    names = data.model.Parameters._fields
    fields: list[Field] = []
    few = {name: value[:, chosen].reshape(-1, *value.shape[2:]) for name, value in draws.items()}
    for values in (few, {name: value[: len(few["z_sun"])] for name, value in prior.items()}):
        called = calls_of(model, data, values)
        if called is None:
            return Drawn(prior, chosen, stars, None, None, None)
        theta = np.stack([values[name] for name in names], 1)
        make = partial(prior_field, data) if fields else partial(field_draws, data, statistic)
        fields.append(make(theta, *called, seed))
    predicted = [predict(data, found, stars, seed + i) for i, found in enumerate(fields)]
    return Drawn(prior, chosen, stars, fields[0], *predicted)


def predict(data: Data, found: Field, stars: np.ndarray, seed: int) -> np.ndarray:
    """New abundances (S, n, E) [dex] of some stars (indices), scatter and errors in them, at every draw of a field."""
    rng = np.random.default_rng([seed, 0x70726564])
    some = (data.stars[stars], data.delta[stars])
    linear = None if data.linear is None else data.linear[stars]
    phi = jax.jit(lambda x: design(data.basis, x, linear))

    def at(s: int) -> np.ndarray:
        return np.asarray(phi(inputs_at(found.theta[s], *some, data.model)) @ found.coefficients[s])

    mean = np.stack([at(s) for s in range(len(found.theta))])
    noise = np.einsum("sef,snf->sne", found.call.scatter_cholesky, rng.standard_normal(mean.shape))
    if data.tails is not None:
        noise /= np.sqrt(rng.gamma(data.tails / 2, 2 / data.tails, mean.shape[:2]))[..., None]
    own = np.sqrt(np.where(np.isfinite(data.variance[stars]), data.variance[stars], 0.0))
    noise += own * rng.standard_normal(mean.shape)
    return data.centre + data.scale * (mean + noise)
