"""The likelihood by passes over the stars, and its statistic as a response surface over theta, with its errors."""

import copy
import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from arviz_stats.base import array_stats
from threadpoolctl import threadpool_limits

from ..base import response_surface as response
from ..base.errors import InputError
from ..base.parallel import threaded
from ..base.store import Store
from ..dynamics import MassModel
from .basis import Basis
from .data import Data
from .density import hilbert_log_likelihood
from .model import GaussianField
from .statistic import Moments, Statistic, condensed
from .sums import moments_at
from .unconstrained import Gaussian, Unconstrained, laplace, slope_of, to_unbounded
from .weights import Classes

__all__ = [
    "NEGLIGIBLE",
    "SHIFT_MOST",
    "StarPotential",
    "SurfaceReport",
    "from_surface",
    "given",
    "light",
    "packed",
    "pareto_k",
    "passes",
    "region_about",
    "shift",
]

_INSIDE = 0.9999  # of the region's size
_LEAST_WIDTH = 1e-6  # of a region's sigmas, in units of the parameters' ranges
_KHAT_MOST = 0.7  # beyond, importance weights cannot tell (Vehtari et al. 2024)
SHIFT_MOST = 0.1  # of a posterior mean, in sigma
NEGLIGIBLE = 0.05  # in ln L, which is a sum over the stars: what a surface may leave out
_SHAPE = 1000  # draws that tell the shape of a Gaussian in theta
_REACH = 3.0  # sigmas of a surface that shows the maximum


def given(field: GaussianField, found: Statistic, basis: Basis, classes: Classes | None) -> Any:
    """ln L of a field by "hilbert"; -inf where a star's inputs leave the box, or a matrix is not positive definite."""
    value = hilbert_log_likelihood(field, found, basis, classes)
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)


_condensed = jax.jit(condensed, static_argnames="elements")


class _Programs(NamedTuple):
    """Minus the log posterior at one flat vector (P,), compiled once for all bases and surfaces of like sizes.

    `potential(flat, setting, found)`, with the statistic; `on_surface(flat, (setting, surface))`, with that of a lean
    surface, to be traced. The setting is the basis and the classes of stars.
    """

    potential: Callable[..., Any]
    on_surface: Callable[..., Any]


def _ranks(basis: Basis, data: Data) -> tuple[int, ...]:
    """The basis' ranks where they tell what a program does: where stars do not weigh alike."""
    return () if data.unlike is None or basis.ranks is None else tuple(map(int, basis.ranks))


@functools.lru_cache(maxsize=2)  # a basis and a finer one; more would keep catalogues in memory
def _programs(unconstrained: Unconstrained, ranks: tuple[int, ...]) -> _Programs:

    def potential(flat: Any, setting: Any, found: Statistic, beyond: Any = 0.0) -> Any:
        basis, classes = setting
        basis = basis._replace(ranks=np.array(ranks)) if ranks else basis
        return unconstrained.potential(lambda _, field: given(field, found, basis, classes) + beyond)(flat)

    def on_surface(flat: Any, context: tuple[Any, response.Surface]) -> Any:
        setting, surface = context
        return potential(flat, setting, *from_surface(surface, unconstrained.theta(flat)))

    return _Programs(jax.jit(potential), on_surface)


def passes(store: Store, data: Data, thetas: Any, finer: bool = False) -> list[Moments]:
    """Sums over the stars at points theta (d,), for the basis, or for the finer one too."""
    bases = (data.basis, data.finer) if finer else (data.basis,)
    degrees = tuple(int(d) for d in np.max([basis.degrees.max(0) for basis in bases], 0))
    reference = None if data.reference is None else data.reference.theta.tolist()
    kind = f"{len(data)} {data.basis.low.tolist()} {data.basis.high.tolist()} {degrees} {reference}"
    like = Moments(0, 0, 0, 0, None if reference is None else 0)
    return store.of(kind).map(partial(moments_at, data, degrees=degrees), thetas, like)


class StarPotential:
    """Minus the log posterior of flat vectors (P,), by passes over the stars: a few small programs for all points.

    `known` is what is known of the statistic so far, for surfaces of it; each value packed, with the lower triangle of
    the factor. It raises `InputError` where it is asked for a point at which the statistic is not finite.
    """

    def __init__(self, unconstrained: Unconstrained, data: Data, store: Store = Store()) -> None:
        self.unconstrained, self.data, self.store = unconstrained, data, store
        both = (data.basis, data.finer)
        self._settings = [(basis.traceable, data.unlike) for basis in both]
        self._programs = [_programs(unconstrained, _ranks(basis, data)) for basis in both]
        self.known = response.Evaluations(self._packed)

    def relabelled(self, theta: np.ndarray) -> "StarPotential":
        """The same basis and programs, for inputs that keep their labels at theta (d,)."""
        other = copy.copy(self)
        other.data, other.known = self.data.relabelled(theta), response.Evaluations(other._packed)
        return other

    def theta(self, flat: np.ndarray) -> np.ndarray:
        """Parameters (..., d) in flat vectors (..., P)."""
        return self.unconstrained.thetas(flat)

    def statistic(self, theta: np.ndarray) -> Statistic:
        """Of the stars, at theta (d,), on the basis."""
        return jax.tree.map(np.asarray, self._condensed(moments_at(self.data, theta)))

    def _condensed(self, sums: Moments, finer: bool = False) -> Statistic:
        return _condensed(self._settings[finer][0], sums, elements=len(self.data.elements))

    def potentials(self, draws: np.ndarray, finer: bool = False) -> np.ndarray:
        """At flat vectors (S, P), on the basis: (1, S); with `finer`, on the finer one too: (2, S)."""
        sums = passes(self.store, self.data, list(self.theta(draws)), finer)

        def each(one: tuple[np.ndarray, Moments]) -> list[float]:
            flat, found = one
            both = list(enumerate(zip(self._programs, self._settings, strict=True)))[: 1 + finer]
            return [float(on.potential(flat, setting, self._condensed(found, bool(i)))) for i, (on, setting) in both]

        return np.array(threaded("check", "draw")(each, zip(draws, sums, strict=True))).T

    def basis_shift(self, draws: np.ndarray) -> float:
        """How far the finer basis would move the mean of a parameter at most, in its sigma, for draws (S, P) of the
        posterior; NaN where they do not vary.

        The mean moves by cov(theta, change of ln L). With theta, and what goes with it, as `along` axes (d, P) of unit
        variance, that is an average of axis x change along each, by Gauss-Hermite's rule of two points.
        """
        places, mean, covariance = self.unconstrained.places, draws.mean(0), np.cov(draws.T)
        try:
            root = np.linalg.cholesky(covariance[np.ix_(places, places)])
        except np.linalg.LinAlgError:  # chains that stood still
            return np.nan
        along = scipy.linalg.solve_triangular(root, covariance[places], lower=True)
        change = np.subtract(*self.potentials(np.concatenate([mean + along, mean - along]), finer=True))
        moved = root @ (np.subtract(*np.split(change, 2)) / 2)
        return float(np.abs(moved / np.sqrt(np.diag(covariance)[places])).max())

    def region(self, draws: np.ndarray, sigmas: float) -> response.Region:
        """A ball of so many sigmas of the theta of draws (S, P): `region_about`."""
        theta = self.theta(draws)
        return region_about(theta.mean(0), np.cov(theta.T), sigmas, self.data.model)

    def laplace(self, start: Gaussian, degree: int, seed: int) -> Gaussian:
        """The Gaussian about the maximum, as a surface has it over a few sigmas of a Gaussian near it."""
        region = self.region(start.draws(np.random.default_rng([seed, 0x6D6178]), _SHAPE), _REACH)
        self.known.cover(region, degree, seed=seed)
        context = self.context(self.known.surface(region, degree).lean(NEGLIGIBLE / len(self.data)))
        found = laplace(lambda flat: slope_of(self.on_surface)(flat, context), start)
        inside = response.distance(region, self.theta(found.mean)) < _INSIDE
        return found if inside else found._replace(covariance=start.covariance)  # the surface has a kink at its edge

    def with_theta(self, flat: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The flat vector with its theta replaced."""
        flat = flat.copy()
        flat[self.unconstrained.places] = to_unbounded(self.data.model.Parameters(*theta), self.data.model)
        return flat

    def _packed(self, thetas: list[np.ndarray]) -> list[Statistic]:
        found = [self._condensed(sums) for sums in passes(self.store, self.data, thetas)]
        return packed(found, thetas)

    # The matrices are small: BLAS threads would spend many times the work in waiting for one another.
    @threadpool_limits.wrap(limits=1, user_api="blas")
    def potentials_on(self, surface: response.Surface, draws: np.ndarray) -> np.ndarray:
        """At flat vectors (S, P), with the statistic of a lean surface: (S,)."""

        def each(one: tuple[np.ndarray, np.ndarray]) -> float:
            flat, theta = one
            found, beyond = from_surface(surface, theta)
            return float(self._programs[0].potential(flat, self._settings[0], found, beyond))

        return np.array(threaded("surface", "draw")(each, zip(draws, self.theta(draws), strict=True)))

    @property
    def on_surface(self) -> Callable[[Any, Any], Any]:
        """At one flat vector, with the statistic of a lean surface in a `context`, to be traced."""
        return self._programs[0].on_surface

    def context(self, surface: response.Surface) -> tuple[Any, response.Surface]:
        """What `on_surface` needs besides a flat vector."""
        return self._settings[0], surface


def packed(found: list[Statistic], thetas: list[np.ndarray]) -> list[Statistic]:
    """With the lower triangle of the factor only: a surface is read as fast as memory gives it."""
    finite = [all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one)) for one in found]
    bad = [theta for theta, fine in zip(thetas, finite, strict=True) if not fine]
    if bad:
        raise InputError(
            f"the likelihood is not finite at {len(bad)} of {len(thetas)} points of the response surface, such as"
            f" theta = {np.round(bad[0], 4).tolist()}: a star's actions are undefined there, or the Gram matrix is"
            " singular to rounding; leave such stars out, or do without the surface (--no-surface)"
        )
    lower = np.tril_indices(found[0].factor.shape[-1])
    return [one._replace(factor=np.asarray(one.factor)[..., lower[0], lower[1]]) for one in found]


def _unpacked(found: Any) -> Statistic:
    size = found.projection.shape[-2]
    place = np.full((size, size), found.factor.shape[-1])
    place[np.tril_indices(size)] = np.arange(found.factor.shape[-1])
    zero = jnp.zeros((*found.factor.shape[:-1], 1))
    return found._replace(factor=jnp.concatenate([found.factor, zero], -1)[..., place])


@partial(jax.jit, inline=True)
def from_surface(surface: response.Surface, theta: Any) -> tuple[Statistic, Any]:
    """The statistic of a lean surface at theta, and what to add to ln L.

    Outside the region, where no draw should be, the statistic is that of the nearest point of its ball, and ln L falls
    as it does for the Gaussian whose sigmas are the region's unit: chains come back, and the report says how far they
    were.
    """
    theta, region = jnp.stack([jnp.asarray(value, float) for value in theta]), surface.region
    offset = theta - region.centre
    square = jnp.maximum(jnp.sum((region.whitening @ offset / region.size) ** 2), _INSIDE**2)
    found = response.evaluate(surface, region.centre + _INSIDE / jnp.sqrt(square) * offset)
    return _unpacked(found), -0.5 * region.size**2 * (square - _INSIDE**2)


def region_about(mean: np.ndarray, covariance: np.ndarray, sigmas: float, model: MassModel) -> response.Region:
    """A ball of so many sigmas about theta (d,), cut by the bounds of the prior and by what the model allows."""
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    room = np.diag((_LEAST_WIDTH * (high - low)) ** 2)  # chains that stood still have no covariance
    whitening = np.linalg.inv(np.linalg.cholesky(covariance + room))
    return response.Region(mean, whitening, sigmas, low, high, lambda theta: model.allowed(model.Parameters(*theta)))


# ---- how far a surface can be trusted


def pareto_k(log_weights: np.ndarray) -> float:
    """Pareto k of importance weights (S,) (Vehtari et al. 2024); NaN where it cannot be computed."""
    if not np.isfinite(log_weights).all() or len(log_weights) < 25:
        return np.nan
    try:
        return float(array_stats.psislw(log_weights)[1])
    except ValueError:  # the largest weights are all the same: chains that stood still
        return np.nan


def shift(theta: np.ndarray, change: np.ndarray) -> float:
    """How far the mean of a parameter moves at most, in its sigma and to first order, where ln L at draws theta (S, d)
    changes by `change` (S,); NaN where draws do not vary or a change is not finite."""
    sd = np.where(np.ptp(theta, 0) > 0, theta.std(0), np.nan)  # rounding gives draws that are all the same a spread
    with np.errstate(all="ignore"):
        moved = np.mean((theta - theta.mean(0)) * (change - change.mean())[:, None], 0) / sd
    return float(np.abs(moved).max())


def light(change: np.ndarray) -> bool:
    """Whether draws can stand for those of a density whose logarithm differs by `change` (S,)."""
    # Pareto k tells nothing of weights that are all within a factor of e
    return bool(np.abs(change - change.mean()).max() < 1 or pareto_k(change) < _KHAT_MOST)


class SurfaceReport(NamedTuple):
    """How far the response surface can be trusted, in ln L (differences from the plain likelihood).

    `degree` of the polynomials; `size` of the region and `farthest` draw's distance from its centre, in posterior
    sigmas; `attempts` at sampling; `held_out` and `radius` (H,): error at points that were not fitted and their
    distance from the centre; `posterior` (S,): error at posterior draws, less its mean; `khat`: Pareto k of the
    importance weights that would correct the draws. How far the mean of a mass model's parameter would move at most,
    in its sigma and to first order: `shift`, without the surface's error; `basis_shift`, with twice `basis_size`
    cosines and a reduction that drops a hundredth as much. `combinations`: size of the basis in use. NaN where a number
    cannot be computed, which is a reason not to trust the surface.
    """

    degree: int
    size: float
    farthest: float
    attempts: int
    radius: np.ndarray
    held_out: np.ndarray
    posterior: np.ndarray
    khat: float
    shift: float
    basis_size: int
    combinations: int
    basis_shift: float

    @property
    def trusted(self) -> bool:
        """Whether all draws are in the region and the surface's error moves nothing that matters."""
        return bool(self.farthest < self.size and light(-self.posterior) and self.shift < SHIFT_MOST)

    @property
    def resolved(self) -> bool:
        """Whether a finer basis would not move a mean either."""
        return self.basis_shift < SHIFT_MOST
