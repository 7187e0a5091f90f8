"""Passes over the stars: actions, inputs and sums at one theta, block by block on the cores, or traced."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base.parallel import BLOCK, cores, in_blocks
from ..dynamics import MassModel, galactocentric, star_actions
from ..dynamics.trend import inputs
from .basis import Basis
from .cosine_sums import Moments, moments

__all__ = ["all_actions", "all_moments", "boxed", "inputs_at", "moments_and_pullback", "moments_at", "vector"]


def vector(theta: Any) -> jax.Array:
    """theta (d,) of a named tuple or of anything that can be gone through."""
    return jnp.stack([jnp.asarray(value, float) for value in theta])


def _star(theta: jax.Array, star: jax.Array, delta: Any, model: MassModel) -> jax.Array:
    parameters = model.Parameters(*theta)
    return star_actions(galactocentric(star, parameters), delta, parameters, model)


@partial(jax.jit, static_argnames="model")
def _block(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> jax.Array:
    return inputs(jax.vmap(lambda star, delta: _star(theta, star, delta, model))(stars, delta))


def inputs_at(theta: Any, stars: jax.Array, delta: jax.Array, model: MassModel) -> np.ndarray:
    """Inputs of the Gaussian process (N, 3) at one theta, by one small program run block by block: not to be traced."""
    point = vector(theta)
    return in_blocks(lambda *block: _block(point, *block, model), stars, delta)


_sums = jax.jit(moments, static_argnums=(0, 1))


def boxed(basis: Basis, degrees: Any = None) -> tuple[tuple, tuple[int, ...]]:
    """A basis' box and degrees, or those given, as they are passed to compiled functions."""
    box = (tuple(map(float, basis.low)), tuple(map(float, basis.high)))
    return box, tuple(map(int, basis.degrees.max(0) if degrees is None else degrees))


def _blocks_of(data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stars (B, n) of each block, their weights (B, n), and the class (B,) that all stars of a block are of.

    One shape for all, so that one compiled program serves: a block is filled with copies that weigh nothing.
    """
    size = min(BLOCK, len(data))
    rows, weights, labels = [], [], []
    for label, members in enumerate(data.members):
        for start in range(0, len(members), size):
            block = members[start : start + size]
            lack = size - len(block)
            rows.append(np.pad(block, (0, lack), mode="edge"))
            weights.append(np.pad(data.weight[block], (0, lack)))
            labels.append(label)
    return np.array(rows), np.array(weights), np.array(labels)


def _of_classes(data: Any, parts: Iterable[tuple[int, Moments]]) -> Moments:
    """Sums over the blocks of each class, in their order."""
    totals: dict[int, Moments] = {}
    for label, part in parts:
        totals[label] = jax.tree.map(np.add, totals[label], part) if label in totals else part
    if data.classes.common:
        return totals[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(totals[label] for label in sorted(totals)))


def moments_at(data: Any, theta: Any, degrees: Any = None) -> Moments:
    """Sums over the stars (of each class, where there are several) at one theta (d,), of cosines up to `degrees`, by
    default the basis'.

    Not to be traced: block by block, on one core, in an order that is always the same.
    """
    theta, (box, degrees) = jnp.asarray(theta, float), boxed(data.basis, degrees)
    stars, delta, Z = (np.asarray(column) for column in (data.stars, data.delta, data.columns))

    def part(block: tuple) -> tuple[int, Moments]:
        rows, weight, label = block
        x = _block(theta, stars[rows], delta[rows], data.model)
        return int(label), jax.tree.map(np.asarray, _sums(box, degrees, x, Z[rows], weight))

    return _of_classes(data, map(part, zip(*_blocks_of(data), strict=True)))


@partial(jax.jit, static_argnames="model")
def _block_tangents(theta: Any, stars: Any, delta: Any, model: MassModel) -> Any:
    return _with_tangents(theta, stars, delta, model)


@partial(jax.jit, static_argnums=(0, 1))
def _sums_of_actions(box: Any, degrees: Any, J: Any, Z: Any, weight: Any) -> Moments:
    return moments(box, degrees, inputs(J), Z, weight)


@partial(jax.jit, static_argnums=(0, 1))
def _pull(box: Any, degrees: Any, J: Any, tangents: Any, Z: Any, weight: Any, cotangent: Moments) -> Any:
    """Derivative (d,) by theta of a block's sums against a cotangent."""
    (slope,) = jax.vjp(lambda J: moments(box, degrees, inputs(J), Z, weight), J)[1](cotangent)
    return jnp.einsum("nj,njp->p", slope, tangents)


def moments_and_pullback(data: Any, theta: Any) -> tuple[Moments, Callable[[Moments], np.ndarray]]:
    """`moments_at`, and the function that takes a cotangent of the sums to one of theta (d,): by hand, on all cores."""
    theta, (box, degrees) = jnp.asarray(theta, float), boxed(data.basis)
    stars, delta, Z = (np.asarray(column) for column in (data.stars, data.delta, data.columns))

    def forward(block: tuple) -> tuple[int, Moments, tuple]:
        rows, weight, label = block
        J, tangents = _block_tangents(theta, stars[rows], delta[rows], data.model)
        sums = jax.tree.map(np.asarray, _sums_of_actions(box, degrees, J, Z[rows], weight))
        return int(label), sums, (J, tangents, Z[rows], weight)

    with ThreadPoolExecutor(cores()) as pool:
        every = list(pool.map(forward, zip(*_blocks_of(data), strict=True)))

    def pullback(cotangent: Moments) -> np.ndarray:
        def backward(one: tuple[int, Moments, tuple]) -> np.ndarray:
            label, _, saved = one
            part = cotangent if data.classes.common else jax.tree.map(lambda leaf: leaf[label], cotangent)
            return np.asarray(_pull(box, degrees, *saved, part))

        with ThreadPoolExecutor(cores()) as pool:
            return np.sum(list(pool.map(backward, every)), 0)

    return _of_classes(data, (one[:2] for one in every)), pullback


# ---- the same as traced functions, with derivatives


def _with_tangents(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> tuple[Any, Any]:
    """Actions (n, 3) and their derivatives (n, 3, d)."""

    # Few parameters, many stars: forward mode needs no memory of the solver's steps
    def one(star: Any, delta: Any) -> tuple[Any, Any]:
        def f(theta: Any) -> tuple[Any, Any]:
            J = _star(theta, star, delta, model)
            return J, J

        tangents, J = jax.jacfwd(f, has_aux=True)(theta)
        return J, tangents

    return jax.vmap(one)(stars, delta)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def all_actions(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> jax.Array:
    """J_R, L_z, J_z [kpc km/s] (N, 3), with a reverse-mode derivative by forward mode; to be traced."""
    return _actions_forward(theta, stars, delta, model)[0]


def _actions_forward(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> tuple[jax.Array, tuple]:
    number = stars.shape[0]
    size = min(BLOCK, number)
    every = jnp.pad(stars, ((0, -number % size), (0, 0)), mode="edge"), jnp.pad(delta, (0, -number % size), mode="edge")
    blocks = tuple(column.reshape(-1, size, *column.shape[1:]) for column in every)
    found = jax.lax.map(lambda block: _with_tangents(theta, block[0], block[1], model), blocks)
    J, tangents = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:number], found)
    return J, (tangents, stars, delta)


def _actions_backward(model: MassModel, saved: tuple, cotangent: jax.Array) -> tuple:
    tangents, stars, delta = saved
    return jnp.einsum("nj,njp->p", cotangent, tangents), jnp.zeros_like(stars), jnp.zeros_like(delta)


all_actions.defvjp(_actions_forward, _actions_backward)


def all_moments(data: Any, theta: Any) -> Moments:
    """Sums over the stars (of each class, where there are several), with a reverse-mode derivative; to be traced."""
    rows, weight, label = _blocks_of(data)
    columns = tuple(jnp.asarray(column)[rows] for column in (data.stars, data.delta, data.columns))
    total = _blocked_moments(vector(theta), columns, weight, label, boxed(data.basis), data.model, len(data.members))
    return jax.tree.map(lambda leaf: leaf[0], total) if data.classes.common else total


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _blocked_moments(
    theta: Any, columns: tuple, weight: Any, label: Any, where: Any, model: MassModel, classes: int
) -> Moments:
    return _moments_forward(theta, columns, weight, label, where, model, classes)[0]


def _moments_forward(
    theta: Any, columns: tuple, weight: Any, label: Any, where: Any, model: MassModel, classes: int
) -> tuple[Moments, tuple]:
    def step(total: Any, block: Any) -> tuple[Any, Any]:
        (stars, delta, Z), weight, label = block
        J, tangents = _with_tangents(theta, stars, delta, model)
        part = moments(where[0], where[1], inputs(J), Z, weight)
        return jax.tree.map(lambda sums, one: sums.at[label].add(one), total, part), (J, tangents)

    Z = columns[2]
    shapes = jax.eval_shape(lambda: moments(where[0], where[1], jnp.zeros((1, 3)), Z[0, :1], jnp.ones(1)))
    zero = jax.tree.map(lambda s: jnp.zeros((classes, *s.shape)), shapes)
    total, saved = jax.lax.scan(step, zero, (columns, weight, label))
    return total, (*saved, columns, weight, label)


def _moments_backward(where: Any, model: MassModel, classes: int, saved: tuple, cotangent: Moments) -> tuple:
    # A block's tables of cosines are made again, which is cheaper than to keep those of all stars; of the stars the
    # forward pass keeps 15 numbers each.
    J, tangents, columns, weight, label = saved

    def step(total: Any, block: Any) -> tuple[Any, None]:
        J, tangents, Z, weight, label = block
        part = jax.tree.map(lambda leaf: leaf[label], cotangent)
        return total + _pull(where[0], where[1], J, tangents, Z, weight, part), None

    blocks = (J, tangents, columns[2], weight, label)
    theta_bar, _ = jax.lax.scan(step, jnp.zeros(tangents.shape[-1]), blocks)
    none = np.zeros(np.shape(label), jax.dtypes.float0)
    return theta_bar, jax.tree.map(jnp.zeros_like, columns), jnp.zeros_like(weight), none


_blocked_moments.defvjp(_moments_forward, _moments_backward)
