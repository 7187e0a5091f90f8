"""The Gaussian process over actions: the even kernel, and the cosine basis that converges to it.

A field that is smooth in the actions is even in the roots of J_R and J_z, which its inputs are, so the kernel is
k(x, x') summed over the signs of both roots of x' (`even_kernel`), and the basis is of cosines (`Basis`): Solin &
Sarkka 2020 with reflecting boundaries.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from tinygp import kernels

from ..base.errors import InputError

__all__ = [
    "KERNELS",
    "Basis",
    "cosines",
    "even_kernel",
    "features",
    "make_basis",
    "multiples",
    "prior_covariance",
    "products_of_pairs",
    "reduced",
    "spectrum",
]

_RADIUS = 7.0  # frequency times length, beyond which cosines are left out
_MOST = 1024  # cosines
_COSINES, _COMBINATIONS = 32, 8  # their numbers are multiples of these, so that bases share compiled programs
_SHORTEST = 0.02  # length, in units of the inputs' range: a shorter one would need more cosines than there may be
_LEAST_VARIANCE = 1e-20  # floor of the spectrum
_LEAST_SHARE = 1e-9  # of the envelope, in every combination: keeps prior_covariance positive definite
_ROOTS = np.array([True, False, True])  # inputs in which the field is even

KERNELS = ("expsquared", "matern32", "matern52")


def even_kernel(kernel: str, lengths: Any) -> Callable[[Any, Any], Any]:
    """k(x, x') summed over the signs of both roots, of two points (3,); unit variance far from the axes.

    Lengths (3,) in units of the inputs. Distances are Euclidean for every kernel (tinygp's own Matern ones are L1).
    """
    stationary = {
        "expsquared": lambda: kernels.ExpSquared(distance=kernels.distance.L2Distance()),
        "matern32": lambda: kernels.Matern32(distance=kernels.distance.L2Distance()),
        "matern52": lambda: kernels.Matern52(distance=kernels.distance.L2Distance()),
    }[_known(kernel)]()
    signs = jnp.asarray([[a, 1.0, b] for a in (1, -1) for b in (1, -1)])

    def k(x: Any, y: Any) -> Any:
        return sum(stationary.evaluate(x / lengths, sign * y / lengths) for sign in signs)

    return k


def _known(kernel: str) -> str:
    if kernel not in KERNELS:
        raise InputError(f"kernel {kernel!r} has no spectral density here; choose one of {', '.join(KERNELS)}")
    return kernel


class Basis(NamedTuple):
    """Products of cosines on the box `low` to `high` (3,) of the inputs; `degrees` (M, 3) counts half waves.

    `lengths` (3,) for which they were chosen. A `reduced` basis has K combinations of them: products in units of the
    root of `envelope` (M,), combined by the orthonormal `vectors` (M, K), those that tell most first; the e-th
    principal axis of the elements needs the first `ranks` (E,) of them.
    """

    low: np.ndarray
    high: np.ndarray
    degrees: np.ndarray
    lengths: np.ndarray
    envelope: Any = None
    vectors: Any = None
    ranks: Any = None

    @property
    def size(self) -> int:
        """Number of `features`."""
        return len(self.degrees) if self.vectors is None else self.vectors.shape[1]

    @property
    def combinations(self) -> Any:
        """How the products combine: (M, K), the identity for a basis that is not reduced."""
        if self.vectors is None:
            return np.eye(len(self.degrees))
        return jnp.sqrt(self.envelope)[:, None] * self.vectors

    @property
    def traceable(self) -> "Basis":
        """The same as an argument of compiled programs, which serve other catalogues too: without `ranks`, on which the
        shapes in a program depend."""
        return self._replace(ranks=None)


def make_basis(x: np.ndarray, lengths: Any, size: int | None = None, margin: float = 1.0) -> Basis:
    """The cosine products of largest prior variance for a kernel of these `lengths` (3,), around inputs x (N, 3).

    The box exceeds the inputs by `margin` lengths on the sides that are not an axis of symmetry: the field's slope is
    zero at its faces. `size` None: all products within 7 of zero in frequency times length, beyond which a squared
    exponential's spectrum is below 3e-11 of its peak, but no more than 1,024.
    """
    lengths = np.maximum(np.asarray(lengths, float), _SHORTEST * (x.max(0) - x.min(0)))
    low = np.where(_ROOTS, 0.0, x.min(0) - margin * lengths)
    high = x.max(0) + margin * lengths
    wave = np.pi * lengths / (high - low)
    reach = _RADIUS if size is None else (10 * size * np.prod(wave)) ** (1 / 3) + 2 * wave.max()
    axes = [np.arange(int(reach / w) + 2) for w in wave]
    degrees = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    frequency = np.linalg.norm(wave * degrees, axis=1)
    number = min(_up_to(int((frequency <= _RADIUS).sum()), _COSINES), _MOST) if size is None else size
    return Basis(low, high, degrees[np.argsort(frequency, kind="stable")[:number]], lengths)


def reduced(basis: Basis, gram: np.ndarray, envelope: np.ndarray, dropped: float, share: np.ndarray) -> Basis:
    """The combinations of the basis that stars can tell from noise: principal components of the field at the stars.

    `gram` (M, M) of the products at the stars; `envelope` (M,), a mean of the prior variance of their coefficients, in
    units of the noise's, and `share` (E,) of it that an axis of the elements has. The field's variance that is left
    out, summed over the stars, is at most `dropped` for each axis: ln L changes by less than half of that in
    expectation.
    """
    root = np.sqrt(envelope)
    values, vectors = scipy.linalg.eigh(root[:, None] * gram * root[None, :])
    left_out = np.cumsum(np.maximum(values, 0))
    ranks = len(values) - np.minimum(np.searchsorted(left_out, dropped / share), len(values) - 1)
    size = min(_up_to(ranks.max(), _COMBINATIONS), len(values))
    return basis._replace(envelope=envelope, vectors=vectors[:, : -1 - size : -1], ranks=ranks)


def _up_to(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


def cosines(box: tuple[Any, Any], x: jax.Array, axis: int, most: int) -> jax.Array:
    """cos(k pi (x - low) / (high - low)) (most + 1, ...) for all k up to `most`, of one input; NaN outside the box."""
    low, high = box[0][axis], box[1][axis]
    inside = (x >= low) & (x <= high)
    return multiples(jnp.cos(jnp.pi * (jnp.where(inside, x, jnp.nan) - low) / (high - low)), most)


def multiples(first: jax.Array, most: int) -> jax.Array:
    """Chebyshev polynomials of `first` of degrees 0 to `most` (most + 1, ...): of the cosine of an angle, the cosines
    of its multiples."""

    def step(pair: tuple[Any, Any], _: Any) -> tuple[tuple[Any, Any], Any]:
        return (pair[1], 2 * first * pair[1] - pair[0]), pair[0]

    # by recurrence: a cosine costs ten times as much; in a loop that is not unrolled, or every user would run it anew
    return jax.lax.scan(step, (jnp.ones_like(first), first), length=most + 1)[1]


def products_of_pairs(sums: Any, degrees: Any) -> Any:
    """Gram matrix (M, M) of products of three `multiples`, of `degrees` (M, 3), from the `sums` (2a+1, 2b+1, 2c+1) over
    stars of such products of up to twice the degrees: a product of two multiples is half the sum of two."""
    either = (abs(degrees[:, None] - degrees[None]), degrees[:, None] + degrees[None])
    _, width, depth = sums.shape
    gram = 0.0
    for signs in np.ndindex(2, 2, 2):
        a, b, c = (either[sign][..., i] for i, sign in enumerate(signs))
        # one flat index: where degrees are constants, XLA folds three at compile time, which takes seconds
        gram = gram + sums.reshape(-1)[(a * width + b) * depth + c]
    return gram / 8


def features(basis: Basis, x: jax.Array) -> jax.Array:
    """Basis values (M,), or (K,) of a reduced one, at one input x (3,); NaN outside the box."""
    tables = [cosines((basis.low, basis.high), x[i], i, max(1, int(basis.degrees[:, i].max()))) for i in range(3)]
    inside = jnp.where(jnp.isfinite(sum(table[1] for table in tables)), 1.0, jnp.nan)  # the constant does not tell
    product = tables[0][basis.degrees[:, 0]] * tables[1][basis.degrees[:, 1]] * tables[2][basis.degrees[:, 2]]
    return inside * (product if basis.vectors is None else product @ basis.combinations)


def spectrum(basis: Basis, kernel: str, lengths: Any) -> jax.Array:
    """Prior variances (M,) of the products' coefficients for the even kernel of unit variance and lengths (3,).

    The kernel's spectral density at the basis' frequencies (Rasmussen & Williams 2006, section 4.2) times the weight
    of a cosine series.
    """
    width = jnp.asarray(basis.high - basis.low)[None]
    q = jnp.sum((np.pi * jnp.asarray(basis.degrees, float) / width * jnp.asarray(lengths)[None]) ** 2, -1)
    nu = {"matern32": 1.5, "matern52": 2.5}.get(_known(kernel))
    if nu is None:
        density = (2 * jnp.pi) ** 1.5 * jnp.exp(-0.5 * q)
    else:
        constant = {1.5: 32 * np.pi * 3**1.5, 2.5: 64 * np.pi * 5**2.5}[nu]
        density = constant / (2 * nu + q) ** (nu + 1.5)
    weight = jnp.prod(jnp.where(basis.degrees == 0, 1.0, 2.0) / width, -1)
    # the floor keeps products of what a long length scale leaves of the spectrum out of slow denormal arithmetic
    return jnp.prod(jnp.asarray(lengths)) * density * weight + _LEAST_VARIANCE


def prior_covariance(basis: Basis, kernel: str, lengths: Any) -> jax.Array:
    """Prior covariance (K, K) of the coefficients of `features`, for unit variance and lengths (3,)."""
    variance = spectrum(basis, kernel, lengths)
    if basis.vectors is None:
        return jnp.diag(variance)
    scaled = jnp.asarray(basis.vectors) * (variance / basis.envelope)[:, None]
    return scaled.T @ basis.vectors + _LEAST_SHARE * np.eye(basis.size)
