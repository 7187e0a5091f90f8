"""The likelihood's statistic as a response surface over theta: made, read, and compared with the plain likelihood."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats

from ..base import surface as response
from ..base.errors import InputError
from ..base.nodes import Nodes
from ..base.parallel import Map, threaded
from ..dynamics import MassModel
from .data import Data, from_unbounded, to_unbounded
from .statistic import Statistic, condensed
from .sums import moments_and_pullback, moments_at

__all__ = [
    "Exact",
    "SurfaceReport",
    "expand_statistic",
    "expand_well",
    "from_surface",
    "leaned",
    "passes",
    "region_about",
    "report",
]

_WITHIN = 0.9999  # of the rim
_ERROR_MOST = 0.05  # in ln L, rms over draws: no posterior shows it
_KHAT_MOST = 0.7  # beyond, importance weights cannot tell (Vehtari et al. 2024)
_SHIFT_MOST = 0.1  # of a posterior mean, in sigma
_CHECKED = 100  # posterior draws at which the surface is compared with the plain likelihood
_RANK = 8  # ranks of a lean surface are multiples of it, so that surfaces share compiled programs


class SurfaceReport(NamedTuple):
    """How far the response surface can be trusted, in ln L (differences from the plain likelihood).

    `degree` of the polynomials; `size` of the region and `farthest` draw's distance from its centre, in posterior
    sigmas; `attempts` at placing it; `held_out` and `radius` (H,): error at points that were not fitted and their
    distance from the centre; `posterior` (S,): error at posterior draws, less its mean; `khat`: Pareto k of the
    importance weights that would correct the draws. How far the mean of a mass model's parameter would move at most,
    in its sigma and to first order: `shift`, without the surface's error; `basis_shift`, with a basis of twice as many
    cosines as `basis_size` that drops a hundredth as much in its reduction to `combinations` (`basis_noise` is the
    error of that).
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
    basis_noise: float

    @property
    def trusted(self) -> bool:
        """Whether all draws are in the region and the surface's error moves nothing that matters."""
        # a tail index says nothing of weights that are all within a factor of e
        light = self.khat < _KHAT_MOST or np.abs(self.posterior).max() < 1
        return bool(self.farthest < self.size and light and self.shift < _SHIFT_MOST)

    @property
    def resolved(self) -> bool:
        """Whether a finer basis would not move a mean either."""
        return self.basis_shift < _SHIFT_MOST


def passes(map: Map | None, data: Data, degrees: tuple[int, ...]) -> Map:
    """`map` for `moments_at` of these stars on this box up to these degrees: nodes kept on disk must not be others'."""
    if isinstance(map, Nodes):
        return map.of(f"{len(data)} {data.basis.low.tolist()} {data.basis.high.tolist()} {degrees}")
    return map or threaded("stars", "pass")


class Exact:
    """The plain statistic and potential at single points: a few small programs, whatever the number of points.

    `potential(flat, found)` is minus the log posterior with the given statistic, and `finer` that on the finer basis;
    `places` those of the mass model's parameters in the flat vector. `map` does passes over the stars.
    """

    def __init__(
        self,
        data: Data,
        potential: Callable[[Any, Statistic], Any],
        finer: Callable[[Any, Statistic], Any],
        places: np.ndarray,
        map: Map | None = None,
    ) -> None:
        self.data, self.places = data, places
        degrees = tuple(int(d) for d in np.maximum(data.basis.degrees.max(0), data.finer.degrees.max(0)))
        self.map = passes(map, data, degrees)
        self._pass = partial(moments_at, data, degrees=degrees)
        elements = len(data.elements)
        self._statistics = [jax.jit(lambda m, b=b: condensed(b, m, elements)) for b in (data.basis, data.finer)]
        self._potentials = [jax.jit(potential), jax.jit(finer)]
        one = lambda flat: jnp.stack([*from_unbounded(flat[places], data.model)])  # noqa: E731
        self._theta = jax.jit(jnp.vectorize(one, signature="(p)->(d)"))
        self._pull = jax.jit(lambda flat, bar: jax.vjp(one, flat)[1](bar)[0])
        self._slope = jax.jit(
            jax.value_and_grad(lambda flat, sums: potential(flat, condensed(data.basis, sums, elements)), (0, 1))
        )

    def theta(self, flat: np.ndarray) -> np.ndarray:
        """Parameters (..., d) in flat vectors (..., P)."""
        return np.asarray(self._theta(flat))

    def statistics(self, thetas: Any) -> list[Statistic]:
        """Of the stars, at points theta (d,)."""
        return [jax.tree.map(np.asarray, self._statistics[0](sums)) for sums in self.map(self._pass, thetas)]

    def potential(self, flat: np.ndarray, found: Statistic) -> float:
        """At a flat vector, from a given statistic."""
        return float(self._potentials[0](flat, found))

    def slope(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """The potential and its gradient from the stars, at a flat vector, on all cores."""
        sums, pullback = moments_and_pullback(self.data, self.theta(flat))
        value, (straight, bar) = self._slope(flat, sums)
        return float(value), np.asarray(straight + self._pull(flat, pullback(bar)))

    def potentials(self, draws: np.ndarray, both: bool = True) -> np.ndarray:
        """From the stars at flat vectors (S, P): with the basis, and with `both` with the finer one too, (2, S)."""
        sums = self.map(self._pass, list(self.theta(draws)))
        ways = list(zip(self._potentials, self._statistics, strict=True))[: 1 + both]

        def each(one: tuple[np.ndarray, Any]) -> list[float]:
            flat, found = one
            return [float(potential(flat, condense(found))) for potential, condense in ways]

        return np.array(threaded("check", "draw")(each, zip(draws, sums, strict=True))).T

    def with_theta(self, flat: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The flat vector with its theta replaced."""
        flat = flat.copy()
        flat[self.places] = to_unbounded(self.data.model.Parameters(*theta), self.data.model)
        return flat


def region_about(centre: np.ndarray, covariance: np.ndarray, size: float, model: MassModel) -> response.Region:
    """A ball of `size` posterior sigmas about theta (d,), cut by the bounds of the prior."""
    low, high = np.array([[p.low, p.high] for p in model.parameters]).T
    return response.Region(
        centre=centre,
        whitening=np.linalg.inv(np.linalg.cholesky(covariance)),
        size=size,
        low=low,
        high=high,
        allowed=lambda theta: model.allowed(model.Parameters(*theta)),
    )


def expand_statistic(
    exact: Exact,
    region: response.Region,
    degree: int,
    seed: int,
    reuse: response.Surface | None = None,
) -> response.Surface:
    """The surface of the statistic over a region; `reuse` is another one of the same basis.

    Raises `InputError` where the statistic is not finite.
    """

    def statistics(_: Any, points: Iterable[np.ndarray]) -> list[Statistic]:
        thetas = list(points)
        found = exact.statistics(thetas)
        finite = [all(np.isfinite(leaf).all() for leaf in one) for one in found]
        bad = [theta for theta, fine in zip(thetas, finite, strict=True) if not fine]
        if bad:
            raise InputError(
                f"the likelihood is not finite at {len(bad)} of {len(thetas)} points of the response surface, such as"
                f" theta = {np.round(bad[0], 4).tolist()}: a star's actions are undefined there, or the Gram matrix is"
                " singular to rounding; leave such stars out, or do without the surface (--no-surface)"
            )
        return [_packed(one) for one in found]

    return response.expand(lambda theta: None, region, degree=degree, seed=seed, map=statistics, reuse=reuse)


def expand_well(
    exact: Exact,
    region: response.Region,
    draws: np.ndarray,
    degrees: tuple[int, ...],
    seed: int,
    reuse: response.Surface | None = None,
) -> tuple[response.Surface, np.ndarray]:
    """The surface of the least of `degrees` that is good enough at `draws`, and its error in ln L at held-out points.

    `draws` (S, P), flat vectors from an earlier run, say what hyperparameters the statistic will be used with, and
    where: its errors matter more to a short length scale. The spread of the error over them decides.
    """
    (true,) = exact.potentials(draws, both=False)
    read = jax.jit(from_surface)
    surface: Any = reuse
    for degree in degrees:
        surface = expand_statistic(exact, region, degree, seed, surface)
        lean = leaned(surface)

        def approximate(flat: np.ndarray, lean: Any = lean) -> float:
            found, extra = read(lean, exact.theta(flat))
            return exact.potential(flat, found) - float(extra)

        error = np.array([approximate(flat) for flat in draws]) - true
        if np.isfinite(error).all() and error.std() < _ERROR_MOST:  # too low a degree may have no density at all
            break
    points = [exact.with_theta(draws.mean(0), theta) for theta in surface.held_out.theta]
    read_there = jax.vmap(partial(response.evaluate, surface))(surface.held_out.theta)
    held = jax.tree.map(lambda value, wrong: value - wrong, read_there, surface.held_out.error)
    there = [_unpacked(jax.tree.map(lambda leaf, i=i: leaf[i], held)) for i in range(len(points))]
    plain = [exact.potential(flat, found) for flat, found in zip(points, there, strict=True)]
    return surface, np.array(plain) - np.array([approximate(flat) for flat in points])


def report(
    exact: Exact,
    on_surface: Callable[[Any], Any],
    surface: response.Surface,
    held_out: np.ndarray,
    attempts: int,
    draws: np.ndarray,
    seed: int,
) -> SurfaceReport:
    """Potential `on_surface(flat)` against the plain one, and that against a finer basis, at some draws (S, P)."""
    rng = np.random.default_rng([seed, 0x636865636B])
    checked = rng.choice(draws, min(_CHECKED, len(draws)), replace=False)
    plain, refined = exact.potentials(checked)
    error = plain - np.array([float(on_surface(flat)) for flat in checked])
    error, change = error - error.mean(), plain - refined - np.mean(plain - refined)
    theta = exact.theta(checked)

    def shift(change: np.ndarray) -> float:
        return float(np.abs(np.mean((theta - theta.mean(0)) * change[:, None], 0) / theta.std(0)).max())

    size = float(surface.region.size)
    farthest = float(jax.vmap(partial(response.radius, surface.region))(exact.theta(draws)).max())
    return SurfaceReport(
        degree=surface.degree,
        size=size,
        farthest=farthest * size,
        attempts=attempts,
        radius=surface.held_out.radius * size,
        held_out=held_out,
        posterior=error,
        khat=float(array_stats.psislw(-error)[1]),
        shift=shift(error),
        basis_size=len(exact.data.basis.degrees),
        combinations=exact.data.basis.vectors.shape[1],
        basis_shift=shift(change),
        basis_noise=float(change.std() / np.sqrt(len(checked))),
    )


def leaned(surface: response.Surface) -> response.Surface:
    """A lean surface of a rank that others have too, and without a function that would tell it from them."""
    lean = replace(surface, region=replace(surface.region, allowed=None)).lean()
    lack = -lean.combine.shape[1] % _RANK

    def padded(coefficients: Any) -> Any:
        return jnp.pad(coefficients, ((0, lack), *[(0, 0)] * (coefficients.ndim - 1)))

    combine = jnp.pad(lean.combine, ((0, 0), (0, lack)))
    return replace(lean, coefficients=jax.tree.map(padded, lean.coefficients), combine=combine, nodes=0)


def _packed(found: Statistic) -> Statistic:
    """With the lower triangle of the factor only: a surface is read as fast as memory gives it."""
    factor = np.asarray(found.factor)
    lower = np.tril_indices(factor.shape[-1])
    return found._replace(factor=factor[..., lower[0], lower[1]])


def _unpacked(found: Any) -> Statistic:
    size = found.projection.shape[-2]
    place = np.full((size, size), found.factor.shape[-1])
    place[np.tril_indices(size)] = np.arange(found.factor.shape[-1])
    zero = jnp.zeros((*found.factor.shape[:-1], 1))
    return found._replace(factor=jnp.concatenate([found.factor, zero], -1)[..., place])


def from_surface(surface: response.Surface, theta: Any) -> tuple[Statistic, Any]:
    """The statistic of the surface at theta, and what to add to ln L.

    Beyond the rim, where no draw should be, the statistic is that of the rim's nearest point and ln L falls as it does
    for the Gaussian whose sigmas are the region's unit: chains come back, and the report says how far they were.
    """
    theta, region = jnp.stack([jnp.asarray(value, float) for value in theta]), surface.region
    r = response.radius(region, theta)
    inside = jnp.minimum(1.0, _WITHIN / jnp.maximum(r, 1e-9))
    extra = -0.5 * region.size**2 * (jnp.maximum(r, _WITHIN) ** 2 - _WITHIN**2)
    # the prior keeps to its bounds itself
    ball = replace(region, low=jnp.full_like(theta, -jnp.inf), high=jnp.full_like(theta, jnp.inf), allowed=None)
    found = response.evaluate(replace(surface, region=ball), region.centre + inside * (theta - region.centre))
    return _unpacked(found), extra
