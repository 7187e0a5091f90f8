"""Leave-one-star-out predictive densities in closed form, and the prior's density: what ArviZ compares models by.

Given theta and hyperparameters the field at star n is Gaussian: of mean m and covariance V (E, E), given all stars.
Let S be the covariance of the star's own scatter and errors, as the likelihood has it, and r = y - m its residual. To
take the star's factor Normal(y; f, S) out again leaves a Gaussian (Vehtari et al. 2016, section 3.1), so that

    p(y_n | y_-n) = Normal(y; y - S (S - V)^-1 r, S (S - V)^-1 S).

In units of S^1/2 and along the eigenvectors of V, whose eigenvalues h are leverages, the residual is r / (1 - h) and
the variance 1 / (1 - h), of which h / (1 - h) is the field's. Where all stars weigh alike, these are the E regressions
of `density`, and one eigendecomposition serves all stars. Elsewhere V follows from the precision of the coefficients.

With Student weights the likelihood has S / w, so that w h is the leverage. The star is predicted by the t itself, not
by a normal distribution with a weight that its own abundances have set; its scale is S and the field's covariance,
which is exact to first order in the latter. Weights of the other stars stay as they are, and so does the relabelling, a
regression over all stars: one star of N hardly changes them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from numpyro import handlers
from numpyro.infer.util import compute_log_probs

from ..base.parallel import threaded
from .basis import Basis, prior_covariance
from .data import Data
from .density import coefficients, gram_axes, independent_axes, sums_of_classes
from .model import GaussianField, Model
from .statistic import Statistic, design
from .sums import inputs_at

__all__ = ["leave_one_out", "log_prior", "pointwise"]


def pointwise(
    data: Data, statistic: Callable[[np.ndarray], Statistic], theta: np.ndarray, field: GaussianField, stars: np.ndarray
) -> np.ndarray:
    """ln p(y_n | y_-n) (S, n) of the stars at these indices [ln dex^-E], at S draws of theta (S, d) and of what is
    assumed of the field, from the `statistic` at each theta."""
    vectors, delta = data.stars[stars], data.delta[stars]

    @jax.jit
    def one(x: jax.Array, field: GaussianField, found: Statistic) -> jax.Array:
        return leave_one_out(data, field, found, data.labels(x, found.relabelling), stars)

    def at(s: int) -> np.ndarray:
        x = inputs_at(theta[s], vectors, delta, data.model, data.block)
        return np.asarray(one(x, jax.tree.map(lambda leaf: leaf[s], field), statistic(theta[s])))

    return np.stack(threaded("leave-one-out", "draw")(at, range(len(theta))))


def leave_one_out(data: Data, field: GaussianField, found: Statistic, x: Any, stars: np.ndarray) -> jax.Array:
    """ln p(y_n | y_-n) (n,) of the stars at these indices, with labels x (n, 3), from the statistic of all stars."""
    linear = None if data.linear is None else data.linear[stars]
    phi, seen = design(data.basis, x, linear), np.isfinite(data.variance[stars])
    w, number = jnp.asarray(data.weight[stars]), seen.sum(1)
    if data.classes.common:
        r, h = _alike(field, found, data.basis, phi, data.Y[stars])
        log_noise = jnp.sum(jnp.log(jnp.diagonal(field.scatter_cholesky)))
    else:
        member = np.concatenate([np.full(len(rows), c) for c, rows in enumerate(data.members)])
        member = member[np.argsort(np.concatenate(data.members))][stars]
        r, h, log_noise = _by_class(data, field, found, phi, data.Y[stars], seen, member)
    left = 1 - w[:, None] * h
    spread = 1 + h / left
    square = jnp.sum((r / left) ** 2 / spread, 1)
    scale = log_noise + seen @ np.log(data.scale) + 0.5 * jnp.sum(jnp.log(spread), 1)
    if data.tails is None:
        return -0.5 * (square + number * jnp.log(2 * jnp.pi)) - scale
    nu = data.tails
    normalisation = gammaln((nu + number) / 2) - gammaln(nu / 2) - 0.5 * number * jnp.log(nu * jnp.pi)
    return normalisation - 0.5 * (nu + number) * jnp.log1p(square / nu) - scale


def _alike(field: GaussianField, found: Statistic, basis: Basis, phi: Any, Y: Any) -> tuple[Any, Any]:
    """Residuals and leverages (n, E) along the axes on which the elements are independent."""
    covariance = prior_covariance(basis, field.kernel, field.lengths)
    rotation, d = independent_axes(field)
    linear = len(found.factor) - len(covariance)
    trend, across = found.factor[:linear, :linear], found.factor[linear:, :linear]
    process = found.factor[linear:, linear:]
    b = found.projection @ rotation
    values, axes = gram_axes(covariance, process)
    variance = d[None, :] / (1 + values[:, None] * d[None, :])
    t = solve_triangular(trend, phi[:, :linear].T, lower=True)
    a = (phi[:, linear:] - (across @ t).T) @ axes
    mean = t.T @ b[:linear] + a @ (variance * (axes.T @ (process @ b[linear:])))
    return Y @ rotation - mean, jnp.sum(t**2, 0)[:, None] + a**2 @ variance


def _by_class(
    data: Data, field: GaussianField, found: Statistic, phi: Any, Y: Any, seen: np.ndarray, member: np.ndarray
) -> tuple[Any, Any, Any]:
    """Residuals and leverages (n, E) along each star's own axes, and the ln det (n,) of its noise's Cholesky factor."""
    c = coefficients(field, data.basis, *sums_of_classes(found, data.classes), data.classes)
    size, elements = c.scale.shape
    factor = jnp.linalg.cholesky(c.precision)
    inverse = solve_triangular(factor, jnp.eye(len(factor)), lower=True)
    inverse = jnp.zeros((len(factor), size * elements)).at[:, c.needed].set(inverse).reshape(-1, size, elements)
    half = jnp.einsum("qke,nk->nqe", inverse * c.scale[None], phi @ c.root) @ c.back.T
    noise = c.noise[member]
    # an element that is missing has neither a residual nor a leverage
    half = jnp.swapaxes(half * seen[:, None], 1, 2)
    r = seen * Y - half @ solve_triangular(factor, c.b, lower=True)
    half = solve_triangular(noise, half, lower=True)
    h, axes = jnp.linalg.eigh(half @ jnp.swapaxes(half, 1, 2))
    r = jnp.einsum("nef,ne->nf", axes, solve_triangular(noise, r[..., None], lower=True)[..., 0])
    return r, h, jnp.sum(jnp.log(jnp.diagonal(noise, axis1=1, axis2=2)), 1)


def log_prior(model: Model, data: Data, draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ln of the prior's density (chain, draw) of every site, in its own parameters, at draws (chain, draw, ...)."""

    def one(sites: dict[str, Any]) -> dict[str, Any]:
        return compute_log_probs(handlers.seed(model, 0), (data,), {}, sites)[0]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(jax.vmap(one)))(dict(draws)))
