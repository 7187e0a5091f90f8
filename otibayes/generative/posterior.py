"""Sampling a model: find the maximum, expand the response surface about it, sample, check, and go on if need be."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from arviz_stats.base import array_stats

from ..base import surface as response
from ..base.errors import InputError
from ..base.parallel import cores
from ..base.progress import Stages
from ..base.store import Store
from ..dynamics import prior_grid
from .basis import Basis
from .data import Data
from .density import dense_log_likelihood
from .model import GaussianField, Model
from .nuts import Chains, sample_nuts
from .settings import SampleSettings
from .statistic import Statistic, condensed
from .sums import all_inputs, all_moments
from .surface import (
    SHIFT_MOST,
    StarPotential,
    SurfaceReport,
    from_surface,
    given,
    light,
    passes,
    region_about,
    report,
    shift,
    surface_error,
)
from .unconstrained import Gaussian, Traced, Unconstrained, laplace

__all__ = ["Posterior", "convergence", "sample_posterior"]

_SIGMAS = 6.0  # radius of the surface's region
_ROOM = 1.25  # and at least so many times the distance of the outermost draw that is known
_DEGREES = (4, 5, 6)
_ERROR_MOST = 0.05  # of a surface, in ln L, rms over draws: no posterior shows it
_GUIDED = 32  # draws of the run before, at which a surface is checked before it is used
_PRIOR_DRAWS = 200  # of the model's hyperparameters, for which a basis is made
_BASIS_THETAS = 8  # at which stars show which combinations of a basis matter
_FEW = 4000  # stars by which the maximum is first found, ...
_FEW_COSINES = 256  # ... with so many cosines
_WIDER = 1.5  # than the curvature at the maximum says, hyperparameters may be
_ATTEMPTS = 3  # at sampling
_PILOT = 100  # draws of each chain
_DENSE_MOST, _DENSE_VALUES = 2000, 4000  # stars, and abundances that do not separate: beyond, N^3 is hopeless
R_HAT_MOST, ESS_LEAST = 1.01, 400
_LONG = 2 * ESS_LEAST  # draws: a run that was to be shorter is not made longer


class Posterior(NamedTuple):
    """Draws (chain, draw, ...) of every site; the mode; sampler statistics (chain, draw); whether all draws asked for
    are there; how well the chains agree; the surface's report; the data with the basis that was used; and the statistic
    of "hilbert" as a function of theta (d,), from the surface where there is one."""

    draws: dict[str, np.ndarray]
    mode: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    complete: bool
    convergence: dict[str, Any]
    report: SurfaceReport | None
    data: Data
    unconstrained: Unconstrained
    statistic: Callable[[np.ndarray], Statistic]


class _Sampled(NamedTuple):
    """What one run of NUTS gave: flat vectors (chain, draw, P), and as in `Posterior`."""

    flat: np.ndarray
    statistics: dict[str, np.ndarray]
    complete: bool
    convergence: dict[str, Any]
    report: SurfaceReport | None = None

    @property
    def agrees(self) -> bool:
        """Whether there is no reason to sample longer; a run that was to be short is as long as it was to be."""
        about, (chains, draws, _) = self.convergence, self.flat.shape
        enough = not about["max_r_hat"] > R_HAT_MOST and about["min_ess_bulk"] >= ESS_LEAST
        return enough or chains * draws < _LONG


def convergence(draws: np.ndarray, statistics: dict[str, np.ndarray]) -> dict[str, Any]:
    """The worst R-hat and effective sample sizes over all coordinates of draws (chain, draw, P), and divergences; NaN
    where a number cannot be computed, as for one chain, or for chains that stood still."""
    varies = np.ptp(draws, axis=(0, 1)) > 0
    columns = [draws[..., i] for i in range(draws.shape[-1])]

    def worst(of: Callable[[np.ndarray], Any], pick: Callable[[Any], Any]) -> float:
        if not varies.all():
            return np.nan
        return float(pick([of(column) for column in columns]))

    values = {
        "max_r_hat": worst(array_stats.rhat, np.max) if len(draws) > 1 else np.nan,
        "min_ess_bulk": worst(partial(array_stats.ess, method="bulk"), np.min),
        "min_ess_tail": worst(partial(array_stats.ess, method="tail", prob=(0.05, 0.95)), np.min),
    }
    divergences = int(statistics["diverging"].sum())
    good = values["max_r_hat"] <= R_HAT_MOST and values["min_ess_bulk"] >= ESS_LEAST and not divergences
    return values | {"divergences": divergences, "converged": int(good)}


class _Run(NamedTuple):
    """What is the same all along a run."""

    unconstrained: Unconstrained
    settings: SampleSettings
    seed: int
    store: Store
    passes: Store
    stage: Stages

    def resolving(self, data: Data, draws: np.ndarray, thetas: Any, size: int | None, name: str) -> Data:
        """With bases of `size` cosines (None: as many as it takes) for the fields of `draws` (S, P), by passes at
        `thetas` (T, d).

        Kept in the store under a name: another number of cores could turn a basis' vectors about.
        """
        fields = self.unconstrained.fields(draws)
        data = data.on_box(fields, size)

        def bases() -> tuple[Basis, Basis]:
            resolved = data.resolving(fields, passes(self.passes, data, list(thetas)))
            return resolved.basis, resolved.finer

        like = Basis._make([0] * len(Basis._fields))
        with self.stage("basis"):
            basis, finer = self.store.keep(f"basis-{name}", bases, (like, like))
        return replace(data, basis=basis, finer=finer)

    def maximum(self, density: Any, start: Gaussian, name: str) -> Gaussian:
        """The Gaussian about the maximum, kept in the store."""
        with self.stage(f"maximum, {name}"):
            found = self.store.keep(f"maximum-{name.replace(' ', '-')}", partial(laplace, density, start), (0, 0))
        return Gaussian(*found)

    def chains(self, guide: np.ndarray, covariance: np.ndarray, draws: int, adapt: bool = False) -> Chains:
        """From some of the draws (S, P) that are known."""
        rng = np.random.default_rng([self.seed, 0x6E757473])
        starts = guide[rng.choice(len(guide), self.settings.chains)]
        return Chains(starts, covariance, self.settings.warmup, draws, self.seed, adapt)

    def sample(self, potential: Callable[[Any, Any], Any], context: Any, chains: Chains, attempt: int) -> _Sampled:
        """A run of NUTS, kept in the store."""
        name = f"NUTS, attempt {attempt}" if attempt > 1 else "NUTS"
        with self.stage(name):
            flat, statistics = sample_nuts(potential, context, chains, name, self.store)
        return _Sampled(flat, statistics, flat.shape[1] == chains.draws, convergence(flat, statistics))


@dataclass
class _Expansion:
    """The density of all stars on one basis, the statistic known so far, and the surface in use over its `region`."""

    run: _Run
    data: Data
    plain: Any = None
    known: Any = None
    region: Any = None
    surface: Any = None

    def on_basis(self, draws: np.ndarray, size: int | None, name: str) -> None:
        """A basis for these draws (S, P), and nothing known on it."""
        thetas = np.asarray(jax.jit(jax.vmap(self.run.unconstrained.theta))(draws[:_BASIS_THETAS]))
        self.data = self.run.resolving(self.data, draws, thetas, size, name)
        self.plain = StarPotential(self.run.unconstrained, self.data, self.run.passes)
        self.known, self.surface = self.plain.evaluations(), None

    def place(self, theta: np.ndarray, degree: int = _DEGREES[0]) -> None:
        """A surface over six sigmas of draws theta (S, d), or as far as they go."""
        region = region_about(theta.mean(0), np.cov(theta.T), 1.0, self.data.model)
        reach = _ROOM * float(response.distance(region, theta).max())
        self.region = replace(region, size=max(_SIGMAS, reach))
        self.fit(degree)

    def fit(self, degree: int) -> None:
        self.known.cover(self.region, degree, seed=self.run.seed)
        self.surface = self.known.surface(self.region, degree).lean()

    def suit(self, guide: np.ndarray, name: str) -> None:
        """Basis and surface that are good enough at draws (S, P) of the run before; those in use, if they are."""
        rng = np.random.default_rng([self.run.seed, 0x6775696465])
        chosen = rng.choice(guide, min(_GUIDED, len(guide)), replace=False)
        exact, finer = self.plain.potentials(chosen)
        if self.run.settings.basis_size is None and shift(self.plain.theta(chosen), exact - finer) > SHIFT_MOST:
            self.refine(guide, name)
            exact = self.plain.potentials(chosen)[0]
        theta = self.plain.theta(guide)

        def good() -> bool:
            error = surface_error(self.plain, self.surface, chosen, exact)
            return bool(np.isfinite(error).all() and error.std() < _ERROR_MOST)

        if self.surface is not None and _ROOM * response.distance(self.region, theta).max() < 1 and good():
            return
        self.place(theta)
        for degree in _DEGREES[1:]:
            if good():
                break
            self.fit(degree)

    def statistic(self, theta: np.ndarray) -> Statistic:
        """Of the stars, from the surface."""
        return _read(self.surface, theta)

    def refine(self, guide: np.ndarray, name: str) -> None:
        """A basis of twice as many cosines, for the draws' own hyperparameters."""
        rng = np.random.default_rng([self.run.seed, 0x666577])
        chosen = rng.choice(guide, min(_PRIOR_DRAWS, len(guide)), replace=False)
        centre = guide.mean(0)
        self.on_basis(centre + _WIDER * (chosen - centre), 2 * len(self.data.basis.degrees), name)

    def holds(self, draws: np.ndarray, lp: np.ndarray) -> bool:
        """Whether draws (S, P) of exp(lp) (S,) can stand for those of the surface in use."""
        change = np.asarray(_all_on_surface(self.plain.on_surface, draws, self.surface)) + lp
        return light(-change) and shift(self.plain.theta(draws), change) < SHIFT_MOST


@jax.jit
def _read(surface: response.Surface, theta: np.ndarray) -> Statistic:
    return from_surface(surface, theta)[0]


@partial(jax.jit, static_argnums=0)
def _all_on_surface(potential: Callable[[Any, Any], Any], draws: np.ndarray, surface: response.Surface) -> Any:
    return jax.lax.map(lambda flat: potential(flat, surface), draws)


def _shrunk(draws: np.ndarray, laplace: np.ndarray) -> np.ndarray:
    """Sample covariance (P, P) of draws (S, P), shrunk towards the Laplace covariance (Ledoit & Wolf 2004)."""
    root = np.linalg.cholesky(laplace)
    number, size = draws.shape
    sample = np.cov(scipy.linalg.solve_triangular(root, (draws - draws.mean(0)).T, lower=True))
    return root @ (number * sample + 2 * size * np.eye(size)) @ root.T / (number + 2 * size)


def sample_posterior(
    data: Data,
    model: Model,
    settings: SampleSettings = SampleSettings(),  # noqa: B008
    seed: int = 0,
    store: Store = Store(),  # noqa: B008
    passes: Store = Store(threads=cores()),  # noqa: B008
    stage: Stages | None = None,
) -> Posterior:
    """Sample `model` given `data` with NUTS; see docs/generative.md, The surface and the sampler.

    What the `store` has is not computed again; `passes` does passes over the stars; `stage` learns how long each stage
    takes. Interrupted (Ctrl-C) once there are draws to keep, it returns those, incomplete and without a report; before,
    it raises `KeyboardInterrupt`. Raises `InputError` where a surface or a basis is not good enough after three runs.
    """
    run = _Run(Unconstrained.of(model, data), settings, seed, store, passes, stage or Stages())
    rng = np.random.default_rng([seed, 0x6472617773])
    if settings.surface:
        laplace = _maximum(run, data, rng)
        expansion = _Expansion(run, data)
        expansion.on_basis(laplace.draws(rng, _PRIOR_DRAWS, _WIDER), settings.basis_size, "laplace")
        with run.stage("surface"):
            expansion.place(expansion.plain.theta(laplace.draws(rng, 1000)))
        pilot = run.chains(laplace.draws(rng, 1000), laplace.covariance, _PILOT)
        with run.stage("pilot"):
            flat, _ = sample_nuts(expansion.plain.on_surface, expansion.surface, pilot, "NUTS, pilot", store)
        if flat.shape[1] < _PILOT:
            raise KeyboardInterrupt
        sampled = _on_surface(run, expansion, flat.reshape(-1, flat.shape[-1]), laplace)
        data, statistic = expansion.data, expansion.statistic
    else:
        data, laplace, sampled = _from_stars(run, data, rng)
        statistic = StarPotential(run.unconstrained, data).statistic
    constrain = jax.jit(run.unconstrained.constrain)
    sites = jax.tree.map(np.asarray, jax.jit(jax.vmap(jax.vmap(run.unconstrained.constrain)))(sampled.flat))
    mode = jax.tree.map(np.asarray, constrain(laplace.mean))
    return Posterior(sites, mode, *sampled[1:], data, run.unconstrained, statistic)


def _maximum(run: _Run, data: Data, rng: np.random.Generator) -> Gaussian:
    """The Gaussian about the maximum of all stars, found from that of few."""
    prior = run.unconstrained.prior()
    found, draws, size = prior, prior.draws(rng, _PRIOR_DRAWS), run.settings.basis_size or _FEW_COSINES
    thetas = rng.permutation(np.array(prior_grid(data.model)))[:_BASIS_THETAS]
    for number in dict.fromkeys([min(_FEW, len(data)), len(data)]):
        name = f"{number} stars"
        stars = run.resolving(data.some(number, run.seed), draws, thetas, size, name)
        plain = StarPotential(run.unconstrained, stars, run.passes)
        found = run.maximum(plain, found, name)
        draws, size = found.draws(rng, _PRIOR_DRAWS, _WIDER), run.settings.basis_size
        thetas = plain.theta(draws[:_BASIS_THETAS])
    return found


def _on_surface(run: _Run, expansion: _Expansion, guide: np.ndarray, laplace: Gaussian) -> _Sampled:
    """Runs, each on a basis and a surface that are good at the draws before it, until one can be believed."""
    number, sampled = run.settings.draws, None
    for attempt in range(1, _ATTEMPTS + 1):
        with run.stage("surface"):
            expansion.suit(guide, f"attempt-{attempt}")
        if sampled is None or not (sampled.agrees and expansion.holds(guide, sampled.statistics["lp"].ravel())):
            chains = run.chains(guide, _shrunk(guide, laplace.covariance), number)
            sampled = run.sample(expansion.plain.on_surface, expansion.surface, chains, attempt)
            if not sampled.complete:
                return sampled
        guide = sampled.flat.reshape(-1, guide.shape[1])
        with run.stage("check"):
            about = report(
                expansion.plain,
                expansion.region,
                expansion.surface,
                guide,
                sampled.statistics["lp"].ravel(),
                attempt,
                run.seed,
            )
        sampled = sampled._replace(report=about)
        resolved = about.resolved or run.settings.basis_size is not None
        if about.trusted and resolved and sampled.agrees:
            return sampled
        if attempt < _ATTEMPTS:
            number *= 1 if sampled.agrees else 2
            if not resolved:
                expansion.refine(guide, f"attempt-{attempt}")
    if not about.trusted:
        raise InputError(
            f"the response surface cannot be trusted after {_ATTEMPTS} runs: draws go to {about.farthest:.1f} of"
            f" {about.size:.1f} sigma, Pareto k is {about.khat:.2f}, and its error would move a mean by"
            f" {about.shift:.2f} sigma (nan: chains that stood still); sample with surface=False (--no-surface)"
        )
    if not resolved:
        raise InputError(
            f"{about.basis_size} basis functions do not resolve the field after {_ATTEMPTS} runs: twice as many would"
            f" move a mean by {about.basis_shift:.2f} sigma; give more (--basis-size)"
        )
    return sampled


def _from_stars(run: _Run, data: Data, rng: np.random.Generator) -> tuple[Data, Gaussian, _Sampled]:
    """Runs without a surface, each in the metric of the draws before it, until the chains agree."""
    prior, hilbert = run.unconstrained.prior(), run.settings.likelihood == "hilbert"
    if not hilbert:
        _check_dense(data)
    thetas = rng.permutation(np.array(prior_grid(data.model)))[:_BASIS_THETAS]
    data = run.resolving(data, prior.draws(rng, _PRIOR_DRAWS), thetas, run.settings.basis_size, "prior")
    own = None if data.classes.common else data.variance

    def log_likelihood(theta: Any, field: GaussianField) -> Any:
        theta = jnp.stack([jnp.asarray(value, float) for value in theta])
        if hilbert:
            found = condensed(data.basis, all_moments(data, theta), len(data.elements))
            return given(field, found, data.basis, data)
        value = dense_log_likelihood(field, all_inputs(data, theta), data.Y, data.linear, own)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    potential = run.unconstrained.potential(log_likelihood)
    density = StarPotential(run.unconstrained, data, run.passes) if hilbert else Traced(potential)
    laplace = run.maximum(density, prior, "all stars")
    guide, covariance, number = laplace.draws(rng, 1000), laplace.covariance, run.settings.draws
    for attempt in range(1, _ATTEMPTS + 1):
        chains = run.chains(guide, covariance, number, adapt=True)
        sampled = run.sample(lambda flat, _: potential(flat), None, chains, attempt)
        if sampled.agrees or not sampled.complete:
            break
        guide = sampled.flat.reshape(-1, guide.shape[1])
        covariance, number = _shrunk(guide, laplace.covariance), 2 * number
    return data, laplace, sampled


def _check_dense(data: Data) -> None:
    if len(data) > _DENSE_MOST:
        raise InputError(
            f"likelihood 'dense' is for at most {_DENSE_MOST} stars; got {len(data)}; use likelihood='hilbert'"
        )
    values = int(np.isfinite(data.variance).sum())
    if not data.classes.common and values > _DENSE_VALUES:
        raise InputError(
            f"likelihood 'dense' with missing abundances or errors by star is for at most {_DENSE_VALUES} abundances;"
            f" got {values}; use likelihood='hilbert'"
        )
