"""Passes over the stars: actions, inputs and sums at one theta, block by block on the cores, or traced."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..dynamics import MassModel, galactocentric, star_actions
from ..parallel import BLOCK, cores, in_blocks
from .basis import Basis, inputs
from .moments import Moments, moments

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
_add = partial(jax.tree.map, np.add)


def boxed(basis: Basis, degrees: Any = None) -> tuple[tuple, tuple[int, ...]]:
    """A basis' box and degrees, or those given, as they are passed to compiled functions."""
    box = (tuple(map(float, basis.low)), tuple(map(float, basis.high)))
    return box, tuple(map(int, basis.degrees.max(0) if degrees is None else degrees))


def _blocks_of(data: Any, rows: np.ndarray) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Stars, Delta and columns of data of some stars, in blocks of one shape, each with weights (n,)."""
    columns = (np.asarray(data.stars), np.asarray(data.delta), np.asarray(data.columns), data.weight)
    if len(rows) < len(data):
        columns = tuple(column[rows] for column in columns)
    size = min(BLOCK, len(rows))
    for start in range(0, len(rows), size):
        block = [column[start : start + size] for column in columns]
        lack = size - len(block[0])
        if lack:
            block = [np.pad(c, ((0, lack), *[(0, 0)] * (c.ndim - 1)), mode="edge") for c in block]
        yield block[:3], block[3] * (np.arange(size) < size - lack)


def moments_at(data: Any, theta: Any, degrees: Any = None) -> Moments:
    """Sums over the stars (of each class, where there are several) at one theta (d,), of cosines up to `degrees`, by
    default the basis'.

    Not to be traced: block by block, on one core, in an order that is always the same.
    """
    theta, (box, degrees) = jnp.asarray(theta, float), boxed(data.basis, degrees)

    def of_class(rows: np.ndarray) -> Moments:
        parts = (
            jax.tree.map(np.asarray, _sums(box, degrees, _block(theta, stars, delta, data.model), Z, weight))
            for (stars, delta, Z), weight in _blocks_of(data, rows)
        )
        return functools.reduce(_add, parts)

    return data.stacked(list(map(of_class, data.members)), np)


@partial(jax.jit, static_argnames="model")
def _block_tangents(theta: Any, stars: Any, delta: Any, model: MassModel) -> Any:
    return _with_tangents(theta, stars, delta, model)


@partial(jax.jit, static_argnums=(0, 1))
def _pull(box: Any, degrees: Any, J: Any, tangents: Any, Z: Any, weight: Any, cotangent: Moments) -> Any:
    """Derivative (d,) by theta of a block's sums against a cotangent."""
    (slope,) = jax.vjp(lambda J: moments(box, degrees, inputs(J), Z, weight), J)[1](cotangent)
    return jnp.einsum("nj,njp->p", slope, tangents)


@partial(jax.jit, static_argnums=(0, 1))
def _sums_of_actions(box: Any, degrees: Any, J: Any, Z: Any, weight: Any) -> Moments:
    return moments(box, degrees, inputs(J), Z, weight)


def moments_and_pullback(data: Any, theta: Any) -> tuple[Moments, Callable[[Moments], np.ndarray]]:
    """`moments_at`, and the function that takes a cotangent of the sums to one of theta (d,): by hand, on all cores."""
    theta, (box, degrees) = jnp.asarray(theta, float), boxed(data.basis)

    def forward(block: tuple) -> tuple[Moments, tuple]:
        (stars, delta, Z), weight = block
        J, tangents = _block_tangents(theta, stars, delta, data.model)
        return jax.tree.map(np.asarray, _sums_of_actions(box, degrees, J, Z, weight)), (J, tangents, Z, weight)

    with ThreadPoolExecutor(cores()) as pool:
        every = [list(pool.map(forward, _blocks_of(data, rows))) for rows in data.members]
    found = data.stacked([functools.reduce(_add, (sums for sums, _ in blocks)) for blocks in every], np)

    def pullback(cotangent: Moments) -> np.ndarray:
        tasks = []
        for c, blocks in enumerate(every):
            part = cotangent if data.classes.common else jax.tree.map(lambda leaf, c=c: leaf[c], cotangent)
            tasks += [(saved, part) for _, saved in blocks]
        with ThreadPoolExecutor(cores()) as pool:
            return np.sum(list(pool.map(lambda task: np.asarray(_pull(box, degrees, *task[0], task[1])), tasks)), 0)

    return found, pullback


# ---- the same as traced functions, with derivatives


def _blocks(*columns: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Columns (N, ...) in blocks (B, n, ...), the last one filled with copies of a star, and weights (B, n)."""
    number = columns[0].shape[0]
    size = min(BLOCK, number)
    padding = -number % size
    padded = [jnp.pad(c, ((0, padding), *[(0, 0)] * (c.ndim - 1)), mode="edge") for c in columns]
    weight = (np.arange(number + padding) < number).astype(float)
    return tuple(c.reshape(-1, size, *c.shape[1:]) for c in padded), jnp.asarray(weight.reshape(-1, size))


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
    blocks, _ = _blocks(stars, delta)
    found = jax.lax.map(lambda block: _with_tangents(theta, block[0], block[1], model), blocks)
    J, tangents = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: stars.shape[0]], found)
    return J, (tangents, stars, delta)


def _actions_backward(model: MassModel, saved: tuple, cotangent: jax.Array) -> tuple:
    tangents, stars, delta = saved
    return jnp.einsum("nj,njp->p", cotangent, tangents), jnp.zeros_like(stars), jnp.zeros_like(delta)


all_actions.defvjp(_actions_forward, _actions_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def all_moments(
    theta: Any, stars: Any, delta: Any, Z: Any, weight: Any, box: Any, degrees: Any, model: MassModel
) -> Moments:
    """Sums over stars, with a reverse-mode derivative that keeps 15 numbers a star; to be traced."""
    return _moments_forward(theta, stars, delta, Z, weight, box, degrees, model)[0]


def _moments_forward(
    theta: Any, stars: Any, delta: Any, Z: Any, weight: Any, box: Any, degrees: Any, model: MassModel
) -> tuple[Moments, tuple]:
    columns, real = _blocks(stars, delta, Z, weight)
    columns, each = columns[:3], columns[3] * real

    def step(total: Any, block: Any) -> tuple[Any, Any]:
        (stars, delta, Z), weight = block
        J, tangents = _with_tangents(theta, stars, delta, model)
        return jax.tree.map(jnp.add, total, moments(box, degrees, inputs(J), Z, weight)), (J, tangents)

    shapes = jax.eval_shape(lambda: moments(box, degrees, jnp.zeros((1, 3)), Z[:1], jnp.ones(1)))
    total, saved = jax.lax.scan(step, jax.tree.map(lambda s: jnp.zeros(s.shape), shapes), (columns, each))
    return total, (*saved, columns, each, stars, delta, Z)


def _moments_backward(box: Any, degrees: Any, model: MassModel, saved: tuple, cotangent: Moments) -> tuple:
    # A block's tables of cosines are made again, which is cheaper than to keep those of all stars; of the stars the
    # forward pass keeps 15 numbers each.
    J, tangents, columns, each, stars, delta, Z = saved

    def step(total: Any, block: Any) -> tuple[Any, None]:
        J, tangents, Z, weight = block
        return total + _pull(box, degrees, J, tangents, Z, weight, cotangent), None

    theta_bar, _ = jax.lax.scan(step, jnp.zeros(tangents.shape[-1]), (J, tangents, columns[2], each))
    return theta_bar, jnp.zeros_like(stars), jnp.zeros_like(delta), jnp.zeros_like(Z), jnp.zeros(stars.shape[0])


all_moments.defvjp(_moments_forward, _moments_backward)
