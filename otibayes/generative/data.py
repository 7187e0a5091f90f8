"""The stars as the likelihood sees them: actions as a function of theta, and abundances in fixed units."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..dynamics import MassModel, PhaseSpace, focal_length, galactocentric, star_actions
from ..errors import InputError
from ..parallel import BLOCK, in_blocks, threaded
from ..parameters import Parameter
from .basis import features, inputs, make_basis, reduced, spectrum

__all__ = ["Calls", "Data", "corners", "from_unbounded", "inputs_at", "prepare", "to_unbounded"]

_LEAST_STARS = 30
_SHORT = 0.05  # quantile of the length scales that a basis must resolve
_DROPPED = 0.01  # of the field's variance over the noise's, summed over the stars
_GRAM_STARS = 20_000  # as many show which combinations of the basis matter


def to_unbounded(theta: Any, model: MassModel) -> jax.Array:
    """The logit of each parameter's place between its bounds (P,): where any prior has no edge."""

    def logit(p: Parameter) -> Any:
        low, high = model.range(p, theta)
        value = getattr(theta, p.name)
        return jnp.log(value - low) - jnp.log(high - value)

    return jnp.stack([logit(p) for p in model.parameters])


def from_unbounded(u: Any, model: MassModel) -> Any:
    """The inverse of `to_unbounded`."""
    theta = model.Parameters()
    for limited in (False, True):  # limits depend on the others
        for i, p in enumerate(model.parameters):
            if (p.name in model.limits) == limited:
                low, high = model.range(p, theta)
                theta = theta._replace(**{p.name: low + (high - low) * jax.nn.sigmoid(u[i])})
    return theta


def _star(theta: jax.Array, star: jax.Array, delta: Any, model: MassModel) -> jax.Array:
    parameters = model.Parameters(*theta)
    return star_actions(galactocentric(star, parameters), delta, parameters, model)


@partial(jax.jit, static_argnames="model")
def _block(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> jax.Array:
    return inputs(jax.vmap(lambda star, delta: _star(theta, star, delta, model))(stars, delta))


def inputs_at(theta: Any, stars: jax.Array, delta: jax.Array, model: MassModel) -> np.ndarray:
    """Inputs of the Gaussian process (N, 3) at one theta, by one small program run block by block: not to be traced."""
    vector = jnp.stack([jnp.asarray(value, float) for value in theta])
    return in_blocks(lambda *block: _block(vector, *block, model), stars, delta)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _all_actions(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> jax.Array:
    return _blocked(lambda star, delta: _star(theta, star, delta, model), stars, delta)


def _forward(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> tuple[jax.Array, tuple]:
    # Few parameters, many stars: forward mode needs no memory of the solver's steps
    def value_and_tangents(star: Any, delta: Any) -> tuple[Any, Any]:
        def f(theta: Any) -> tuple[Any, Any]:
            J = _star(theta, star, delta, model)
            return J, J

        tangents, J = jax.jacfwd(f, has_aux=True)(theta)
        return J, tangents

    J, tangents = _blocked(value_and_tangents, stars, delta)
    return J, (tangents, stars, delta)


def _backward(model: MassModel, saved: tuple, cotangent: jax.Array) -> tuple:
    tangents, stars, delta = saved
    return jnp.einsum("nj,njp->p", cotangent, tangents), jnp.zeros_like(stars), jnp.zeros_like(delta)


_all_actions.defvjp(_forward, _backward)


def _blocked(function: Any, stars: jax.Array, delta: jax.Array) -> Any:
    """vmap over stars, in blocks of one shape."""
    n = stars.shape[0]
    if n <= BLOCK:
        return jax.vmap(function)(stars, delta)
    padding = -n % BLOCK
    stars = jnp.pad(stars, ((0, padding), (0, 0)), mode="edge").reshape(-1, BLOCK, stars.shape[1])
    delta = jnp.pad(delta, (0, padding), mode="edge").reshape(-1, BLOCK)
    values = jax.lax.map(lambda block: jax.vmap(function)(*block), (stars, delta))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], values)


class Calls(NamedTuple):
    """With what a model calls its likelihood: C kernels, and S draws of `lengths` (S, C, 3) and of the field's largest
    variance, in units of the noise's (S, C)."""

    kernels: tuple[str, ...]
    lengths: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, eq=False)
class Data:
    """N stars with E elements, in fixed units.

    `stars` (N, 6) heliocentric vectors; `delta` (N,) [kpc]; `Y` (N, E) abundances less `centre` (E,), over `scale` (E,)
    [dex]; `extent` (2, 3), least and largest inputs over the prior; `kept` (N,) indices into the given stars; `linear`
    (N, K), columns besides the actions that abundances may depend on linearly, or None. A `Basis`, which "hilbert"
    needs, comes by `resolving`.
    """

    stars: jax.Array
    delta: jax.Array
    Y: jax.Array
    elements: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    extent: np.ndarray
    kept: np.ndarray
    model: MassModel
    linear: jax.Array | None = None
    basis: Any = None

    def __len__(self) -> int:
        return self.Y.shape[0]

    def resolving(self, calls: Calls, thetas: np.ndarray, size: int | None = None, dropped: float = _DROPPED) -> "Data":
        """With a basis for these calls: cosines (`size` of them, or as many as their short lengths ask for), reduced to
        what the stars at `thetas` (T, d) can tell."""
        basis = make_basis(self.extent, np.quantile(calls.lengths, _SHORT, axis=(0, 1)), size)
        stride = -(-len(self) // _GRAM_STARS)
        stars, delta = self.stars[::stride], self.delta[::stride]

        @jax.jit
        def gram(x: Any) -> Any:
            phi = jax.vmap(partial(features, basis))(x)
            return phi.T @ phi * (len(self) / len(x))

        def at(theta: Any) -> np.ndarray:
            return np.asarray(gram(inputs_at(theta, stars, delta, self.model)))

        @jax.jit
        def variances(lengths: Any, variance: Any) -> Any:
            every = [variance[i] * spectrum(basis, kernel, lengths[i]) for i, kernel in enumerate(calls.kernels)]
            return jnp.stack(every).max(0)

        envelope = np.asarray(jax.vmap(variances)(calls.lengths, calls.variance)).max(0)
        mean = np.mean(threaded("basis", "theta")(at, thetas), 0)
        return replace(self, basis=reduced(basis, mean, envelope, dropped))

    def finer(self, calls: Calls, thetas: np.ndarray) -> "Data":
        """With a basis of twice as many cosines, and a hundredth of what this one dropped."""
        return self.resolving(calls, thetas, 2 * len(self.basis.degrees), _DROPPED / 100)

    def actions(self, theta: Any) -> jax.Array:
        """J_R, L_z, J_z [kpc km/s] (N, 3) at theta, with a reverse-mode derivative by forward mode."""
        return _all_actions(
            jnp.stack([jnp.asarray(value, float) for value in theta]), self.stars, self.delta, self.model
        )


def corners(model: MassModel) -> list[Any]:
    """Allowed corners of the prior, the middles of its edges and its centre; Gaussian priors to 3 sigma."""
    axes = []
    for p in model.parameters:
        sd = p.prior_sd or np.inf
        low, high = max(p.low, p.fiducial - 3 * sd), min(p.high, p.fiducial + 3 * sd)
        axes.append((low, p.fiducial, high) if p.prior_sd is None else (low, high))
    points = [model.Parameters(*map(float, point)) for point in itertools.product(*axes)]
    return [theta for theta in points if bool(model.allowed(theta))]


def prepare(
    stars: Any, elements: Sequence[str], model: MassModel, delta: Any = "orbit", extra: Sequence[str] = ()
) -> Data:
    """What the likelihood needs of `stars` (`otibayes.Stars`), all of which have all `elements` and all `extra`.

    Stars unbound or unsolved at any allowed point of a coarse grid over the prior are left out, for every theta alike.
    Raises `InputError` for fewer than 30 stars, or an element or extra column that does not vary.
    """
    vectors = jnp.asarray(stars.heliocentric)
    fiducial = model.Parameters()
    if isinstance(delta, str):
        delta = focal_length(PhaseSpace(*map(np.asarray, galactocentric(vectors, fiducial))), fiducial, delta, model)
    delta = jnp.broadcast_to(jnp.asarray(delta, float), vectors.shape[:1])

    x = np.stack(threaded("prior", "point")(lambda theta: inputs_at(theta, vectors, delta, model), corners(model)))
    kept = np.flatnonzero(np.isfinite(x).all((0, 2)))
    if len(kept) < _LEAST_STARS:
        raise InputError(f"only {len(kept)} stars can be used, of {len(x[0])}; the model needs {_LEAST_STARS} or more")

    standard, centre, scale = _standard({e: stars.abundances[e] for e in elements}, kept)
    extent = np.stack([x[:, kept].min((0, 1)), x[:, kept].max((0, 1))])
    linear = _standard({name: stars.extra[name] for name in extra}, kept)[0] if extra else None
    return Data(vectors[kept], delta[kept], standard, tuple(elements), centre, scale, extent, kept, model, linear)


def _standard(columns: Mapping[str, Any], kept: np.ndarray) -> tuple[jax.Array, np.ndarray, np.ndarray]:
    """The stars `kept` of columns (N,), less their mean and over their standard deviation, and these two."""
    values = np.stack([np.asarray(column, float)[kept] for column in columns.values()], 1)
    centre, scale = values.mean(0), values.std(0)
    for name, sd in zip(columns, scale, strict=True):
        if not sd > 1e-9:
            raise InputError(f"{name} is the same for all {len(kept)} stars, which can tell nothing; leave it out")
    return jnp.asarray((values - centre) / scale), centre, scale
