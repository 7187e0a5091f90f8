"""The response surface: a function of theta as Chebyshev polynomials of bounded total degree over a trust region.

Both statistics are smooth in theta, so that a few dozen evaluations over the stars replace all that follow. Evaluations
are independent tasks; only values are needed. Every surface carries its error at points held out of the fit, and gives
NaN, never an extrapolation, outside the region.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from .parallel import Map, serial

__all__ = [
    "HeldOut",
    "Region",
    "Surface",
    "chebyshev",
    "contains",
    "draw",
    "evaluate",
    "expand",
    "fit",
    "nodes",
    "predict",
    "radius",
    "reader",
]

_NEGLIGIBLE = 1e-8  # singular value of a surface, relative to the largest
_UNKNOWN = 1e-9  # weight of nothing at all against one point's, in a design


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Region:
    """Where a surface is to be trusted: a ball, cut by bounds and by `allowed`.

    |whitening @ (theta - centre)| <= size, low <= theta <= high, and `allowed(theta)`, a function of the vector theta
    that works on traced values; e.g. theta whitened by a covariance, size its sigmas. `centre`, `low`, `high` (d,),
    `whitening` (d, d).
    """

    centre: Any
    whitening: Any
    size: Any
    low: Any
    high: Any
    allowed: Callable[[Any], Any] | None = field(default=None, metadata={"static": True})


class HeldOut(NamedTuple):
    """Errors of a surface (its value less the function's) at points that it was not fitted to.

    `theta` (H, d), `radius` (H,) in units of the region's size, `error` of the function's shape with a leading (H,).
    """

    theta: np.ndarray
    radius: np.ndarray
    error: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Surface:
    """Chebyshev coefficients, of the function's shape with a leading (terms,), as `chebyshev` orders the products.

    `held_out` is a `HeldOut`; `evaluated` the points (n, d) and values known, `nodes` how many were computed for it. A
    `lean` surface has None for the first two, and coefficients of combinations of the products, `combine` (terms, K).
    """

    region: Region
    coefficients: Any
    held_out: Any
    evaluated: Any
    degree: int = field(metadata={"static": True})
    nodes: int = field(metadata={"static": True})
    combine: Any = None

    def lean(self) -> "Surface":
        """What `evaluate` needs, on the device: to be passed into compiled functions.

        Values of many numbers vary along far fewer directions than there are polynomials: the polynomials are combined
        into those that matter, by a singular value decomposition.
        """
        leaves, tree = jax.tree.flatten(self.coefficients)
        flat = [np.reshape(leaf, (len(leaf), -1)) for leaf in leaves]
        scale = [max(float(np.linalg.norm(leaf)), 1e-300) for leaf in flat]
        U, s, Vt = scipy.linalg.svd(
            np.concatenate([f / c for f, c in zip(flat, scale, strict=True)], 1), full_matrices=False
        )
        rank = max(1, int((s > _NEGLIGIBLE * s[0]).sum()))
        right = np.split(s[:rank, None] * Vt[:rank], np.cumsum([f.shape[1] for f in flat])[:-1], axis=1)
        kept = [c * r.reshape(rank, *x.shape[1:]) for c, r, x in zip(scale, right, leaves, strict=True)]
        region, coefficients, combine = jax.tree.map(
            jnp.asarray, (self.region, jax.tree.unflatten(tree, kept), U[:, :rank])
        )
        return replace(self, region=region, coefficients=coefficients, combine=combine, held_out=None, evaluated=None)


@functools.cache
def _exponents(d: int, degree: int) -> np.ndarray:
    """Degrees (terms, d) in each coordinate of all products of total degree <= degree."""
    return np.array([e for e in itertools.product(range(degree + 1), repeat=d) if sum(e) <= degree])


def chebyshev(x: Any, degree: int) -> Any:
    """Chebyshev products of total degree <= `degree` of one point x (d,), |x_i| <= 1: (C(d + degree, d),)."""
    T = [jnp.ones_like(x), x]  # the recurrence, whose derivatives stay finite at +-1, unlike those of cos(n acos x)
    for _ in range(2, degree + 1):
        T.append(2 * x * T[-1] - T[-2])
    table = jnp.stack(T[: degree + 1])
    exponents = _exponents(x.shape[0], degree)
    return functools.reduce(operator.mul, (table[exponents[:, i], i] for i in range(x.shape[0])))


def _unit(region: Region, theta: Any) -> Any:
    return jnp.asarray(region.whitening) @ (jnp.asarray(theta) - region.centre) / region.size


def radius(region: Region, theta: Any) -> Any:
    """Distance of one theta (d,) from the centre, in units of the region's size."""
    return jnp.sqrt(jnp.sum(_unit(region, theta) ** 2))


def contains(region: Region, theta: Any) -> Any:
    """Whether one theta (d,) is in the region; traceable."""
    theta = jnp.asarray(theta)
    inside = (jnp.sum(_unit(region, theta) ** 2) <= 1) & jnp.all((theta >= region.low) & (theta <= region.high))
    return inside if region.allowed is None else inside & region.allowed(theta)


def draw(region: Region, number: int, seed: int, even_radius: bool = False) -> np.ndarray:
    """Points (number, d) of the region, uniform in volume, or, with `even_radius`, in radius too.

    Raises `ValueError` where next to nothing of the ball is within the bounds and allowed.
    """
    rng = np.random.default_rng([seed, 0x73757266])  # a stream of its own, unlike that of a catalogue of the same seed
    d = len(region.centre)
    inside = jax.jit(jax.vmap(functools.partial(contains, region)))
    found = np.empty((0, d))
    for _ in range(200):
        direction = rng.normal(size=(4096, d))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = rng.random((4096, 1)) ** (1.0 if even_radius else 1 / d)
        # a hair inside, so that rounding puts no point of the rim outside
        points = 0.999999 * region.size * direction * length @ np.linalg.inv(region.whitening).T + region.centre
        found = np.concatenate([found, points[np.asarray(inside(points))]])
        if len(found) >= number:
            return found[:number]
    raise ValueError(
        f"only {len(found)} of 819,200 points of the ball are within bounds and allowed; move or shrink it"
    )


def nodes(
    region: Region, degree: int, oversampling: float = 1.6, seed: int = 0, known: np.ndarray | None = None
) -> np.ndarray:
    """Where to evaluate: points (n, d) of the region that determine the polynomials well, with the `known` (k, d).

    A greedy D-optimal design: each is the one of many random points at which the polynomials are known worst from those
    before it, until the variance of what they predict, averaged over the region, is that of a value over
    `oversampling`: as from so many times as many points as there are terms, spread as well as can be. Where what is
    known will do, none.
    """
    known = np.empty((0, len(region.centre))) if known is None else known
    candidates = draw(region, math.ceil(10 * oversampling * math.comb(len(region.centre) + degree, degree)), seed)
    # orthonormal over the region itself, whatever its cuts
    basis, R = np.linalg.qr(_basis(region, degree, candidates))
    before = scipy.linalg.solve_triangular(R, _basis(region, degree, known).T, trans=1).T
    covariance = np.linalg.inv(before.T @ before + _UNKNOWN * np.eye(len(R)))
    variance = np.einsum("ct,tu,cu->c", basis, covariance, basis)
    chosen: list[int] = []
    while variance.mean() * oversampling > 1:
        chosen.append(int(np.argmax(variance)))
        change = covariance @ basis[chosen[-1]] / np.sqrt(1 + variance[chosen[-1]])
        covariance -= np.outer(change, change)
        variance = variance - (basis @ change) ** 2
    return candidates[chosen]


def _basis(region: Region, degree: int, theta: np.ndarray) -> np.ndarray:
    """Chebyshev products (n, terms) at n points theta (n, d)."""
    x = (theta - np.asarray(region.centre)[None]) @ np.asarray(region.whitening).T / region.size
    return np.asarray(_products(x, degree))


@functools.partial(jax.jit, static_argnames="degree")
def _products(x: Any, degree: int) -> Any:
    return jax.vmap(lambda point: chebyshev(point, degree))(x)


def expand(
    function: Callable[[np.ndarray], Any],
    region: Region,
    degree: int = 4,
    oversampling: float = 1.6,
    held_out: int = 12,
    seed: int = 0,
    map: Map = serial,
    reuse: Surface | None = None,
) -> Surface:
    """Fit the surface of `function`, which takes theta (d,) and returns an array or a pytree of arrays.

    It is evaluated at some oversampling * C(d + degree, d) `nodes` and at `held_out` more points, spread evenly in
    radius, which measure its error. `map(function, points)` returns the list of values, in order: `serial` here, or a
    cluster's. What `reuse`, a surface of the same function, evaluated in this region takes the place of nodes.
    """
    known, known_values = _within(region, reuse)
    wanted = nodes(region, degree, oversampling, seed, known)
    held = draw(region, held_out, seed + 1, even_radius=True)
    fresh = np.concatenate([wanted, held])
    values = map(function, list(fresh))
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *values)
    everything = stacked if known_values is None else jax.tree.map(lambda *v: np.concatenate(v), stacked, known_values)
    fitted = np.r_[: len(wanted), len(fresh) : len(fresh) + len(known)]
    theta = np.concatenate([fresh, known])
    coefficients = fit(region, degree, theta[fitted], jax.tree.map(lambda value: value[fitted], everything))
    error = jax.tree.map(
        lambda found, value: found - value[len(wanted) : len(fresh)],
        predict(region, degree, held, coefficients),
        everything,
    )
    radii = np.asarray(jax.vmap(functools.partial(radius, region))(held))
    return Surface(region, coefficients, HeldOut(held, radii, error), (theta, everything), degree, len(fresh))


def fit(region: Region, degree: int, theta: np.ndarray, values: Any) -> Any:
    """Chebyshev coefficients, by least squares, of values (n, ...), an array or a pytree of them, at theta (n, d)."""
    basis = _basis(region, degree, theta)

    def one(value: np.ndarray) -> np.ndarray:
        solution = scipy.linalg.lstsq(basis, value.reshape(len(basis), -1))[0]
        return solution.reshape(-1, *value.shape[1:])

    return jax.tree.map(one, values)


def predict(region: Region, degree: int, theta: np.ndarray, coefficients: Any) -> Any:
    """Values (n, ...) of what `fit` gave, an array or a pytree of them, at points theta (n, d), the region's or not."""
    basis = _basis(region, degree, theta)
    return jax.tree.map(lambda one: np.tensordot(basis, one, 1), coefficients)


def reader(
    region: Region, degree: int, coefficients: np.ndarray, rim: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """The surface of one array, coefficients (terms, V), as a quick function of one theta (d,), in NumPy: (V,).

    NaN outside the region; with `rim`, outside the ball the value at its nearest point, which keeps an optimiser that
    needs finite numbers going, and bounds are the caller's. For optimisers in Python, which call it millions of times.
    """
    exponents, columns = _exponents(len(region.centre), degree), np.arange(len(region.centre))
    whitening, centre = np.asarray(region.whitening) / region.size, np.asarray(region.centre)
    low, high = np.asarray(region.low), np.asarray(region.high)
    allowed = None if region.allowed is None else jax.jit(region.allowed)
    table = np.ones((degree + 1, len(centre)))

    def read(theta: np.ndarray) -> np.ndarray:
        x = whitening @ (theta - centre)
        square = x @ x
        if rim:
            x = x / max(1.0, math.sqrt(square))
        elif square > 1 or (theta < low).any() or (theta > high).any() or not (allowed is None or allowed(theta)):
            return np.full(coefficients.shape[1], np.nan)
        table[1:2] = x
        for n in range(2, degree + 1):
            table[n] = 2 * x * table[n - 1] - table[n - 2]
        return table[exponents, columns].prod(1) @ coefficients

    return read


def _within(region: Region, surface: Surface | None) -> tuple[np.ndarray, Any]:
    """Points (n, d) and values of what a surface evaluated inside a region."""
    if surface is None:
        return np.empty((0, len(region.centre))), None
    theta, values = surface.evaluated
    inside = np.asarray(jax.vmap(functools.partial(contains, region))(theta))
    return theta[inside], jax.tree.map(lambda v: v[inside], values)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _polynomials(x: Any, combine: Any, coefficients: Any, degree: int) -> Any:
    """Combinations (terms, K) of polynomials of coefficients (K, V), all constants, at one point x (d,): (V,)."""
    return _combined(x, combine, degree) @ coefficients


def _combined(x: Any, combine: Any, degree: int) -> Any:
    return chebyshev(x, degree) if combine is None else chebyshev(x, degree) @ combine


@_polynomials.defjvp
def _(degree: int, primals: tuple, tangents: tuple) -> tuple:
    # With few inputs and many outputs the whole Jacobian, one more product of the same layout, is far cheaper than the
    # transposed product that reverse mode would make of it.
    (x, combine, coefficients), (dx, *_) = primals, tangents
    slopes = jax.jacfwd(lambda x: _combined(x, combine, degree))(x).T
    rows = jnp.concatenate([_combined(x, combine, degree)[None], slopes]) @ coefficients
    return rows[0], dx @ rows[1:]


def evaluate(surface: Surface, theta: Any) -> Any:
    """Value of the function at one theta (d,), of its shape; NaN outside the region. Jit, grad and vmap work."""
    x, inside = _unit(surface.region, theta), contains(surface.region, theta)

    def leaf(coefficients: Any) -> Any:
        coefficients, combine = jax.lax.stop_gradient((jnp.asarray(coefficients), surface.combine))
        value = _polynomials(x, combine, coefficients.reshape(len(coefficients), -1), surface.degree)
        return jnp.where(inside, value.reshape(coefficients.shape[1:]), jnp.nan)

    return jax.tree.map(leaf, surface.coefficients)
