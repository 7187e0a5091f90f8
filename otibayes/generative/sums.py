"""Passes over the stars at one theta, block by block, with derivatives: inputs, their relabelling, and sums of them."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base.parallel import BLOCK, in_blocks
from ..dynamics import MassModel, galactocentric, star_actions
from ..dynamics.trend import inputs
from .relabelling import fit_relabelling, relabelled, relabelling_sums
from .statistic import Moments, moments

if TYPE_CHECKING:
    from .data import Data

__all__ = ["all_inputs", "all_moments", "inputs_at", "moments_at"]


def _of_star(theta: jax.Array, star: jax.Array, delta: Any, model: MassModel) -> jax.Array:
    """The inputs (3,) of one star: of its actions at theta (d,), from its heliocentric vector (6,)."""
    parameters = model.Parameters(*theta)
    return inputs(star_actions(galactocentric(star, parameters), delta, parameters, model))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _inputs(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> jax.Array:
    """Inputs (n, 3) of n stars, with a reverse-mode derivative by theta alone."""
    return jax.vmap(lambda star, delta: _of_star(theta, star, delta, model))(stars, delta)


def _inputs_forward(theta: jax.Array, stars: jax.Array, delta: jax.Array, model: MassModel) -> tuple[Any, Any]:
    # Few parameters, many stars: forward mode needs no memory of the solver's steps.
    def one(star: Any, delta: Any) -> tuple[Any, Any]:
        def f(theta: Any) -> tuple[Any, Any]:
            x = _of_star(theta, star, delta, model)
            return x, x

        return jax.jacfwd(f, has_aux=True)(theta)

    slopes, x = jax.vmap(one)(stars, delta)
    return x, slopes


def _inputs_backward(_: MassModel, slopes: jax.Array, cotangent: jax.Array) -> tuple:
    return jnp.einsum("nj,njp->p", cotangent, slopes), None, None


_inputs.defvjp(_inputs_forward, _inputs_backward)
_jitted_inputs = jax.jit(_inputs, static_argnums=3)


def _box_and_degrees(data: "Data", degrees: Any = None) -> tuple[tuple[Any, Any], tuple[int, ...]]:
    """What the sums are of, besides stars: the box of the cosines, and their degrees, by default the basis'."""
    degrees = data.basis.degrees.max(0) if degrees is None else degrees
    return (np.asarray(data.basis.low, float), np.asarray(data.basis.high, float)), tuple(map(int, degrees))


class _Stars(NamedTuple):
    """Columns of the stars of one block, all of one class: heliocentric vectors, focal lengths, inputs in the reference
    model, data, and weights."""

    stars: Any
    delta: Any
    reference: Any
    Z: Any
    weight: Any


def _blocks(data: "Data") -> Iterator[tuple[int, _Stars]]:
    """The class and the stars of each block, which is filled with copies that weigh nothing; one by one, because all
    of them take as much memory as the stars."""
    reference = np.broadcast_to(0.0, (len(data), 3)) if data.reference is None else data.reference.x
    stars, delta, Z = (np.asarray(column) for column in (data.stars, data.delta, data.columns))
    size = data.block
    for label, members in enumerate(data.members):
        for start in range(0, len(members), size):
            chosen = members[start : start + size]
            lack = size - len(chosen)
            rows = np.pad(chosen, (0, lack), mode="edge")
            weight = np.pad(data.weight[chosen], (0, lack))
            yield label, _Stars(stars[rows], delta[rows], reference[rows], Z[rows], weight)


# ---- the two steps of a pass: inputs, of which the relabelling follows, then sums of the relabelled inputs


@jax.jit
def _equations(x: Any, block: _Stars, terms: Any) -> Any:
    """A block's part of the normal equations of the relabelling, of its inputs; None where they keep their labels."""
    return None if terms is None else relabelling_sums(x, block.reference, block.weight, terms)


@partial(jax.jit, static_argnames="degrees")
def _second(change: Any, x: Any, box: tuple[Any, Any], degrees: tuple[int, ...], block: _Stars, terms: Any) -> Moments:
    """A block's sums. Backwards, its tables of cosines are made again, which is cheaper than to keep those of all
    blocks."""

    @jax.checkpoint
    def of(change: Any, x: Any) -> Moments:
        return moments(box, degrees, relabelled(x, change, terms), block.Z, block.weight)

    return of(change, x)


_fit_relabelling = jax.jit(fit_relabelling)


def _of_classes(data: "Data", change: Any, parts: Iterable[tuple[int, Moments]]) -> Moments:
    """Sums over the blocks of each class, in their order, with the relabelling's coefficients."""
    totals: dict[int, Moments] = {}
    for label, part in parts:
        totals[label] = jax.tree.map(np.add, totals[label], part) if label in totals else part
    totals = {label: sums._replace(change=change) for label, sums in totals.items()}
    if data.classes.common:
        return totals[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(totals[label] for label in sorted(totals)))


def moments_at(data: "Data", theta: Any, degrees: Any = None) -> Moments:
    """One pass: sums over the stars (of each class, where there are several) at one theta (d,), of cosines up to
    `degrees`, by default the basis'. On one core, in an order that is always the same; not to be traced."""
    box, degrees = _box_and_degrees(data, degrees)
    theta, terms = jnp.asarray(theta, float), data.terms

    inputs, equations = [], None
    for _, block in _blocks(data):
        inputs.append(_jitted_inputs(theta, block.stars, block.delta, data.model))
        part = jax.tree.map(np.asarray, _equations(inputs[-1], block, terms))
        equations = part if equations is None else jax.tree.map(np.add, equations, part)
    change = None if terms is None else _fit_relabelling(equations, terms)

    def sums(x: Any, block: _Stars) -> Moments:
        return jax.tree.map(np.asarray, _second(change, x, box, degrees, block, terms))

    parts = ((label, sums(x, block)) for (label, block), x in zip(_blocks(data), inputs, strict=True))
    return _of_classes(data, None if change is None else np.asarray(change), parts)


def all_moments(data: "Data", theta: Any) -> Moments:
    """`moments_at` as a function to be traced and differentiated, of theta (d,)."""
    (box, degrees), blocks, terms = _box_and_degrees(data), list(_blocks(data)), data.terms
    labels = np.array([label for label, _ in blocks])
    columns = jax.tree.map(lambda *leaves: np.stack(leaves), *(block for _, block in blocks))

    def first(block: _Stars) -> tuple[Any, Any]:
        x = _inputs(theta, block.stars, block.delta, data.model)
        return x, _equations(x, block, terms)

    x, equations = jax.lax.map(first, columns)
    change = None if terms is None else fit_relabelling([part.sum(0) for part in equations], terms)
    shapes = jax.eval_shape(partial(_second, degrees=degrees), change, x[0], box, block=blocks[0][1], terms=terms)

    def step(total: Moments, one: tuple) -> tuple[Moments, None]:
        label, x, block = one
        part = _second(change, x, box, degrees, block, terms)
        return jax.tree.map(lambda sums, new: sums.at[label].add(new), total, part), None

    zero = jax.tree.map(lambda shape: jnp.zeros((len(data.members), *shape.shape)), shapes)
    total = jax.lax.scan(step, zero, (labels, x, columns))[0]
    if change is not None:
        total = total._replace(change=jnp.broadcast_to(change, (len(data.members), *change.shape)))
    return jax.tree.map(lambda leaf: leaf[0], total) if data.classes.common else total


def all_inputs(data: "Data", theta: Any) -> jax.Array:
    """Relabelled inputs (N, 3) of all stars as a function to be traced and differentiated, of theta (d,)."""
    x = _inputs(theta, data.stars, data.delta, data.model)
    if data.reference is None:
        return x
    terms = data.reference.terms
    change = fit_relabelling(relabelling_sums(x, jnp.asarray(data.reference.x), jnp.asarray(data.weight), terms), terms)
    return relabelled(x, change, terms)


def inputs_at(theta: Any, stars: Any, delta: Any, model: MassModel, size: int = BLOCK) -> np.ndarray:
    """Inputs (N, 3), as they are, of stars (N, 6) at one theta (d,), in blocks of a `size`; not to be traced."""
    theta = jnp.asarray(theta, float)
    return in_blocks(lambda *block: _jitted_inputs(theta, *block, model), stars, delta, size=size)
