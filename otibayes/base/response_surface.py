"""The response surface: a function of theta as Chebyshev polynomials of bounded total degree over a trust region.

Both statistics are smooth in theta, so a few dozen evaluations over the stars replace all that follow. Evaluations are
independent tasks, and only values are needed. A surface gives NaN, never an extrapolation, outside its region.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

__all__ = [
    "Evaluations",
    "Region",
    "Surface",
    "chebyshev",
    "contains",
    "design",
    "distance",
    "draw",
    "evaluate",
    "exponents",
    "fit",
    "predict",
    "reader",
]

_RANK, _LEAN_DEGREE = 32, 5  # a lean surface has a multiple of so many combinations, of all products to this degree
_UNKNOWN = 1e-9  # weight of no information, relative to one point's, in a design


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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Surface:
    """Chebyshev coefficients, of the function's shape with a leading (terms,), as `chebyshev` orders the products.

    With `combine` (terms, K), they are coefficients of K combinations of the products. A pytree, to be passed into
    compiled functions.
    """

    region: Region
    coefficients: Any
    degree: int = field(metadata={"static": True})
    combine: Any = None

    def lean(self, negligible: float = 1e-8) -> "Surface":
        """The same, quick to `evaluate` for functions of many numbers, on the ball: bounds and `allowed` are left out.

        Many numbers vary along far fewer directions than there are products. A singular value decomposition combines
        the products into those whose singular value is not `negligible` beside the largest. Zeros fill it up to sizes
        that many surfaces have, so that they share compiled programs; so its `degree` can be higher than it was.
        """
        leaves, tree = jax.tree.flatten(self.coefficients)
        flat = [np.reshape(leaf, (len(leaf), -1)) for leaf in leaves]
        scale = [max(float(np.linalg.norm(leaf)), 1e-300) for leaf in flat]
        U, s, Vt = scipy.linalg.svd(
            np.concatenate([f / c for f, c in zip(flat, scale, strict=True)], 1), full_matrices=False
        )
        rank = max(1, int((s > negligible * s[0]).sum()))
        lack = -rank % _RANK
        right = np.pad(s[:rank, None] * Vt[:rank], ((0, lack), (0, 0)))
        parts = np.split(right, np.cumsum([f.shape[1] for f in flat])[:-1], axis=1)
        combined = [c * r.reshape(rank + lack, *x.shape[1:]) for c, r, x in zip(scale, parts, leaves, strict=True)]
        anywhere = np.full(len(self.region.centre), np.inf)
        ball = replace(self.region, low=-anywhere, high=anywhere, allowed=None)
        degree = max(self.degree, _LEAN_DEGREE)
        own, all_ = (exponents(len(anywhere), d).tolist() for d in (self.degree, degree))
        combine = np.zeros((len(all_), rank + lack))
        combine[[all_.index(e) for e in own], :rank] = U[:, :rank]
        region, coefficients, combine = jax.tree.map(jnp.asarray, (ball, jax.tree.unflatten(tree, combined), combine))
        return Surface(region, coefficients, degree, combine)


@dataclass
class Evaluations:
    """Points theta (n, d) at which a function is known, and its `values`, a pytree with a leading (n,).

    `function` takes a list of points (d,) and returns the list of values: arrays, or pytrees of them. Surfaces over
    any region and of any degree share what is known.
    """

    function: Callable[[list[np.ndarray]], list[Any]]
    theta: Any = None
    values: Any = None

    def add(self, points: np.ndarray) -> Any:
        """Evaluate at `points` (m, d); their values, which are known from then on."""
        new = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *self.function(list(points)))
        if self.theta is None:
            self.theta, self.values = points, new
        else:
            self.theta = np.concatenate([self.theta, points])
            self.values = jax.tree.map(lambda *leaves: np.concatenate(leaves), self.values, new)
        return new

    def cover(self, region: Region, degree: int, oversampling: float = 1.6, seed: int = 0) -> None:
        """Evaluate where a surface over this region, of this degree, still needs it: `design`."""
        known = None if self.theta is None else self.theta[distance(region, self.theta) <= 1]
        points = design(region, degree, oversampling, seed, known)
        if len(points):
            self.add(points)

    def surface(self, region: Region, degree: int) -> Surface:
        """The surface that fits what is known in the region."""
        near = distance(region, self.theta) <= 1
        values = jax.tree.map(lambda leaf: leaf[near], self.values)
        return Surface(region, fit(region, degree, self.theta[near], values), degree)


@functools.cache
def exponents(d: int, degree: int) -> np.ndarray:
    """Degrees (terms, d) in each coordinate of all products of total degree <= degree."""
    return np.array([e for e in itertools.product(range(degree + 1), repeat=d) if sum(e) <= degree])


def chebyshev(x: Any, degree: int) -> Any:
    """Chebyshev products of total degree <= `degree` of one point x (d,), |x_i| <= 1: (C(d + degree, d),)."""
    T = [jnp.ones_like(x), x]  # the recurrence, whose derivatives stay finite at +-1, unlike those of cos(n acos x)
    for _ in range(2, degree + 1):
        T.append(2 * x * T[-1] - T[-2])
    table = jnp.stack(T[: degree + 1])
    powers = exponents(x.shape[0], degree)
    return functools.reduce(operator.mul, (table[powers[:, i], i] for i in range(x.shape[0])))


def _unit(region: Region, theta: Any) -> Any:
    return (theta - region.centre) @ region.whitening.T / region.size


def distance(region: Region, theta: Any) -> Any:
    """Distance (...) of theta (..., d) from the centre, in units of the region's size; traceable."""
    return (_unit(region, theta) ** 2).sum(-1) ** 0.5


def contains(region: Region, theta: Any) -> Any:
    """Whether one theta (d,) is in the region; traceable."""
    theta = jnp.asarray(theta)
    inside = (distance(region, theta) <= 1) & jnp.all((theta >= region.low) & (theta <= region.high))
    return inside if region.allowed is None else inside & region.allowed(theta)


def draw(region: Region, number: int, seed: int, even_radius: bool = False) -> np.ndarray:
    """Points (number, d) of the region, uniform in volume, or, with `even_radius`, in radius too.

    Raises `ValueError` where next to nothing of the ball is within the bounds and allowed.
    """
    rng = np.random.default_rng([seed, 0x73757266])  # a stream of its own, unlike that of a catalogue of the same seed
    d = len(region.centre)
    inside = jax.jit(jax.vmap(functools.partial(contains, region)))
    drawn = np.empty((0, d))
    for _ in range(200):
        direction = rng.normal(size=(4096, d))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = rng.random((4096, 1)) ** (1.0 if even_radius else 1 / d)
        # slightly inside, so that rounding puts no point outside
        points = 0.999999 * region.size * direction * length @ np.linalg.inv(region.whitening).T + region.centre
        drawn = np.concatenate([drawn, points[np.asarray(inside(points))]])
        if len(drawn) >= number:
            return drawn[:number]
    raise ValueError(
        f"only {len(drawn)} of 819,200 points of the ball are within bounds and allowed; move or shrink it"
    )


def design(
    region: Region, degree: int, oversampling: float = 1.6, seed: int = 0, known: np.ndarray | None = None
) -> np.ndarray:
    """Where to evaluate: points (n, d) that, with the `known` (k, d), determine a surface over the region well.

    A greedy D-optimal design. Each step adds the candidate with the largest predictive variance, until the variance
    averaged over the region is 1 / `oversampling` of that of one value: as from that many times as many points as there
    are polynomials, spread as well as can be. None where the known points suffice.
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
    return np.asarray(_products(_unit(region, theta), degree))


@functools.partial(jax.jit, static_argnames="degree")
def _products(x: Any, degree: int) -> Any:
    return jax.vmap(lambda point: chebyshev(point, degree))(x)


def fit(region: Region, degree: int, theta: np.ndarray, values: Any) -> Any:
    """Chebyshev coefficients, by least squares, of values (n, ...), an array or a pytree of them, at theta (n, d)."""
    basis = _basis(region, degree, theta)

    def one(value: np.ndarray) -> np.ndarray:
        solution = scipy.linalg.lstsq(basis, value.reshape(len(basis), -1))[0]
        return solution.reshape(-1, *value.shape[1:])

    return jax.tree.map(one, values)


def predict(region: Region, degree: int, theta: np.ndarray, coefficients: Any) -> Any:
    """Values (n, ...) of coefficients from `fit`, an array or a pytree of them, at any points theta (n, d)."""
    basis = _basis(region, degree, theta)
    return jax.tree.map(lambda one: np.tensordot(basis, one, 1), coefficients)


def reader(
    region: Region, degree: int, coefficients: np.ndarray, nearest: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """The surface of one array, coefficients (terms, V), as a quick NumPy function of one theta (d,): (V,).

    NaN outside the region. With `nearest`, the value at the nearest point of the ball, for optimisers that need finite
    numbers; the caller keeps to the bounds.
    """
    powers, columns = exponents(len(region.centre), degree), np.arange(len(region.centre))
    whitening, centre = np.asarray(region.whitening) / region.size, np.asarray(region.centre)
    low, high = np.asarray(region.low), np.asarray(region.high)
    allowed = None if region.allowed is None else jax.jit(region.allowed)
    table = np.ones((degree + 1, len(centre)))

    def read(theta: np.ndarray) -> np.ndarray:
        x = whitening @ (theta - centre)
        square = x @ x
        if nearest:
            x = x / max(1.0, math.sqrt(square))
        elif square > 1 or (theta < low).any() or (theta > high).any() or not (allowed is None or allowed(theta)):
            return np.full(coefficients.shape[1], np.nan)
        table[1:2] = x
        for n in range(2, degree + 1):
            table[n] = 2 * x * table[n - 1] - table[n - 2]
        return table[powers, columns].prod(1) @ coefficients

    return read


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
    theta = jnp.asarray(theta)
    x, inside = _unit(surface.region, theta), contains(surface.region, theta)

    def leaf(coefficients: Any) -> Any:
        coefficients, combine = jax.lax.stop_gradient((jnp.asarray(coefficients), surface.combine))
        value = _polynomials(x, combine, coefficients.reshape(len(coefficients), -1), surface.degree)
        return jnp.where(inside, value.reshape(coefficients.shape[1:]), jnp.nan)

    return jax.tree.map(leaf, surface.coefficients)
