"""Passes over the stars: the field's inputs and the sums over stars at one theta, block by block, with derivatives."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base.parallel import BLOCK, cores, in_blocks
from ..dynamics import MassModel, galactocentric, star_actions
from ..dynamics.trend import inputs
from .statistic import Moments, moments

if TYPE_CHECKING:
    from .data import Data

__all__ = ["all_inputs", "all_moments", "field_inputs", "inputs_at", "moments_and_pullback", "moments_at"]


def field_inputs(theta: jax.Array, star: jax.Array, delta: Any, model: MassModel) -> jax.Array:
    """The field's inputs (3,) of one star: of its actions at theta (d,), from its heliocentric vector (6,)."""
    parameters = model.Parameters(*theta)
    return inputs(star_actions(galactocentric(star, parameters), delta, parameters, model))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _inputs(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> jax.Array:
    """`field_inputs` (n, 3) of n stars, with a reverse-mode derivative by theta alone."""
    return jax.vmap(lambda star, delta: field_inputs(theta, star, delta, model))(stars, delta)


def _inputs_forward(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> tuple[Any, Any]:
    # Few parameters, many stars: forward mode needs no memory of the solver's steps.
    def one(star: Any, delta: Any) -> tuple[Any, Any]:
        def f(theta: Any) -> tuple[Any, Any]:
            x = field_inputs(theta, star, delta, model)
            return x, x

        return jax.jacfwd(f, has_aux=True)(theta)

    slopes, x = jax.vmap(one)(stars, delta)
    return x, slopes


def _inputs_backward(_: MassModel, slopes: jax.Array, cotangent: jax.Array) -> tuple:
    return jnp.einsum("nj,njp->p", cotangent, slopes), None, None


_inputs.defvjp(_inputs_forward, _inputs_backward)
_jitted_inputs = jax.jit(_inputs, static_argnums=3)


class _Where(NamedTuple):
    """What sums are of, besides stars: the box of the cosines, their degrees, and the mass model."""

    box: tuple[tuple[float, ...], tuple[float, ...]]
    degrees: tuple[int, ...]
    model: MassModel


def _where(data: "Data", degrees: Any = None) -> _Where:
    low, high = (tuple(map(float, edge)) for edge in (data.basis.low, data.basis.high))
    return _Where((low, high), tuple(map(int, data.basis.degrees.max(0) if degrees is None else degrees)), data.model)


@partial(jax.jit, static_argnums=0)
def _block_sums(where: _Where, theta: Any, stars: Any, delta: Any, Z: Any, weight: Any) -> Moments:
    """The sums over one block of stars. Backwards, its tables of cosines are made again, which is cheaper than to keep
    those of all blocks."""
    of = jax.checkpoint(lambda x: moments(where.box, where.degrees, x, Z, weight))
    return of(_inputs(theta, stars, delta, where.model))


@partial(jax.jit, static_argnums=0)
def _linearised(where: _Where, theta: Any, *block: Any) -> Any:
    """The same, and its pullback to theta, a pytree."""
    return jax.vjp(lambda theta: _block_sums(where, theta, *block), theta)


@jax.jit
def _pulled(pullback: Any, cotangent: Moments) -> Any:
    return pullback(cotangent)[0]


def _blocks(data: "Data") -> list[tuple[int, tuple]]:
    """The class and the columns (stars, delta, Z, weight) of each block, whose stars are all of one class.

    One shape for all, so that one compiled program serves: a block is filled with copies that weigh nothing.
    """
    columns = [np.asarray(column) for column in (data.stars, data.delta, data.columns)]
    size = min(BLOCK, len(data))
    blocks = []
    for label, members in enumerate(data.members):
        for start in range(0, len(members), size):
            chosen = members[start : start + size]
            lack = size - len(chosen)
            rows = np.pad(chosen, (0, lack), mode="edge")
            blocks.append((label, (*(column[rows] for column in columns), np.pad(data.weight[chosen], (0, lack)))))
    return blocks


def _of_classes(data: "Data", parts: Iterable[tuple[int, Moments]]) -> Moments:
    """Sums over the blocks of each class, in their order."""
    totals: dict[int, Moments] = {}
    for label, part in parts:
        totals[label] = jax.tree.map(np.add, totals[label], part) if label in totals else part
    if data.classes.common:
        return totals[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(totals[label] for label in sorted(totals)))


def moments_at(data: "Data", theta: Any, degrees: Any = None) -> Moments:
    """One pass: sums over the stars (of each class, where there are several) at one theta (d,), of cosines up to
    `degrees`, by default the basis'. On one core, in an order that is always the same; not to be traced."""
    where, theta = _where(data, degrees), jnp.asarray(theta, float)

    def part(block: tuple) -> Moments:
        return jax.tree.map(np.asarray, _block_sums(where, theta, *block))

    return _of_classes(data, ((label, part(block)) for label, block in _blocks(data)))


def moments_and_pullback(data: "Data", theta: Any) -> tuple[Moments, Callable[[Moments], np.ndarray]]:
    """`moments_at` on all cores, and the function that takes a cotangent of the sums to one of theta (d,)."""
    where, theta, blocks = _where(data), jnp.asarray(theta, float), _blocks(data)

    def forward(block: tuple[int, tuple]) -> tuple[Moments, Any]:
        sums, pullback = _linearised(where, theta, *block[1])
        return jax.tree.map(np.asarray, sums), pullback

    with ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(forward, blocks))

    def pullback(cotangent: Moments) -> np.ndarray:
        def backward(label: int, pull: Any) -> np.ndarray:
            of_class = cotangent if data.classes.common else jax.tree.map(lambda leaf: leaf[label], cotangent)
            return np.asarray(_pulled(pull, of_class))

        with ThreadPoolExecutor(cores()) as pool:
            return np.sum(list(pool.map(backward, [label for label, _ in blocks], [pull for _, pull in parts])), 0)

    return _of_classes(data, ((label, sums) for (label, _), (sums, _) in zip(blocks, parts, strict=True))), pullback


def all_moments(data: "Data", theta: Any) -> Moments:
    """`moments_at` as a function to be traced and differentiated, of theta (d,)."""
    where, blocks = _where(data), _blocks(data)
    labels = np.array([label for label, _ in blocks])
    columns = tuple(np.stack(column) for column in zip(*(block for _, block in blocks), strict=True))
    shapes = jax.eval_shape(partial(_block_sums, where), theta, *blocks[0][1])

    def step(total: Moments, one: tuple) -> tuple[Moments, None]:
        label, block = one
        part = _block_sums(where, theta, *block)
        return jax.tree.map(lambda sums, new: sums.at[label].add(new), total, part), None

    zero = jax.tree.map(lambda shape: jnp.zeros((len(data.members), *shape.shape)), shapes)
    total = jax.lax.scan(step, zero, (labels, columns))[0]
    return jax.tree.map(lambda leaf: leaf[0], total) if data.classes.common else total


def all_inputs(data: "Data", theta: Any) -> jax.Array:
    """`field_inputs` (N, 3) of all stars as a function to be traced and differentiated, of theta (d,)."""
    return _inputs(theta, data.stars, data.delta, data.model)


def inputs_at(theta: Any, stars: Any, delta: Any, model: MassModel) -> np.ndarray:
    """`field_inputs` (N, 3) of stars (N, 6) at one theta (d,), block by block; not to be traced."""
    theta = jnp.asarray(theta, float)
    return in_blocks(lambda *block: _jitted_inputs(theta, *block, model), stars, delta)
