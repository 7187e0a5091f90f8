"""Sampling a model: find the maximum, expand the response surface about it, sample, check, and go on if need be."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from arviz_stats.base import array_stats

from ..base.errors import InputError
from ..base.parallel import cores
from ..base.progress import Stages
from ..base.store import Store
from ..dynamics import prior_grid
from .data import Data
from .density import dense_log_likelihood
from .expansion import FEW, WIDER, Expansion, Run
from .model import GaussianField, Model
from .nuts import Chains, sample_nuts
from .pull import own_slope
from .settings import SampleSettings
from .statistic import Statistic, condensed
from .sums import all_inputs, all_moments
from .surface import StarPotential, SurfaceReport, given
from .unconstrained import Gaussian, Unconstrained, no_likelihood

__all__ = ["FAR", "Posterior", "convergence", "gaussian_about_maximum", "sample_posterior"]

_FEW_COSINES = 256  # with which the maximum of few stars is found
_GRID = 8  # mass models over the prior, by which the basis of few stars is made
FAR, _NEAR = 4, 3  # degrees of the surfaces on the way from the prior to a maximum, and from that of few stars
_ROUNDS = 10  # at a maximum, at most
_SETTLED = 0.3  # sigma in theta: where the maximum moves by less, the labels in use are near enough to its own
_AS_WIDE = 1.5  # times its sigmas, at most: the Gaussian over which the last surface is good
_NARROWS = 4  # times, at most, from one surface's region to the next
_ATTEMPTS = 3  # at sampling
_PILOT = 100  # draws of each chain
_GUIDE = 1000  # draws of the Gaussian about the maximum, in place of those of a run
_DENSE_MOST, _DENSE_VALUES = 2000, 4000  # stars, and abundances that do not separate: beyond, N^3 is hopeless
_R_HAT_MOST, _ESS_LEAST = 1.01, 400
_LONG = 2 * _ESS_LEAST  # draws of all chains: a run of fewer is never lengthened
_LIKE = (Gaussian._make([0] * 2), 0, Statistic._make([0] * 5))  # the structure of what `_laplace` returns


class Posterior(NamedTuple):
    """Draws (chain, draw, ...) of every site; the mode; sampler statistics (chain, draw); whether all draws asked for
    are there; how well the chains agree; the surface's report; the slope (d,) of `pull.own_slope`, None for an
    interrupted run; the data with the basis that was used; and the statistic of "hilbert" as a function of theta (d,),
    from the surface where there is one."""

    draws: dict[str, np.ndarray]
    mode: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    complete: bool
    convergence: dict[str, Any]
    report: SurfaceReport | None
    slope: np.ndarray | None
    data: Data
    unconstrained: Unconstrained
    statistic: Callable[[np.ndarray], Statistic]


def sample_posterior(
    data: Data,
    model: Model,
    settings: SampleSettings = SampleSettings(),
    seed: int = 0,
    store: Store = Store(),
    passes: Store = Store(threads=cores()),
    stage: Stages | None = None,
) -> Posterior:
    """Sample `model` given `data` with NUTS; see docs/generative.md, The surface and the sampler.

    What the `store` has is not computed again; `passes` does passes over the stars; `stage` learns how long each stage
    takes. Interrupted (Ctrl-C) once there are draws to keep, it returns those, incomplete and without a report; before,
    it raises `KeyboardInterrupt`. Raises `InputError` where a surface or a basis is not good enough after three runs.
    """
    stage = stage or Stages()
    with stage("model"):
        unconstrained = Unconstrained.of(model, data)
    run = Run(unconstrained, settings, seed, store, passes, stage)
    rng = np.random.default_rng([seed, 0x6472617773])
    if not settings.surface and settings.likelihood == "dense":
        _check_dense(data)
    peak, density = _maximum(run, data)
    expansion = Expansion(run, density)
    guide = peak.draws(rng, _GUIDE)
    if settings.surface:
        sampled = _on_surface(run, expansion, _pilot(run, expansion, guide, peak), peak)
        statistic = expansion.statistic
    else:
        sampled = _from_stars(run, expansion.data, guide, peak)
        statistic = expansion.plain.statistic
    data, slope = expansion.data, None
    if sampled.complete:
        with run.stage("pull"):
            slope = own_slope(unconstrained, data, statistic, sampled.flat)
    constrain, prior = unconstrained.constrain, unconstrained.potential(no_likelihood)
    with stage("draws"):
        sampled.statistics["log_likelihood"] = sampled.statistics["lp"] + np.asarray(
            jax.jit(_each(prior))(sampled.flat)
        )
        # with the mode, as one more draw: one program serves
        flat = np.concatenate([sampled.flat.reshape(-1, peak.mean.size), peak.mean[None]])
        sites = jax.tree.map(np.asarray, jax.jit(jax.vmap(constrain))(flat))
    shape = sampled.flat.shape[:2]
    draws = {name: values[:-1].reshape(*shape, *values.shape[1:]) for name, values in sites.items()}
    mode = {name: values[-1] for name, values in sites.items()}
    return Posterior(draws, mode, *sampled[1:], slope, data, unconstrained, statistic)


def _each(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Of every chain and draw."""
    return jax.vmap(jax.vmap(function))


# ---- the maximum and a pilot run


def _maximum(run: Run, data: Data) -> tuple[Gaussian, StarPotential]:
    """The Gaussian about the maximum of all stars, found from that of few; and the likelihood with orbits' labels of
    the maximum, on a basis for the field there."""
    few, prior = data.some(FEW, run.seed), run.unconstrained.prior()
    grid = np.random.default_rng(run.seed).permutation(np.array(prior_grid(data.model)))[:_GRID]
    density = run.on_basis(few, prior, run.settings.basis_size or _FEW_COSINES, "prior", grid)
    peak, _ = gaussian_about_maximum(run, density, prior, FAR)
    density = run.on_basis(data, peak.wider(WIDER), run.settings.basis_size, "maximum")
    return gaussian_about_maximum(run, density, peak, _NEAR)


def gaussian_about_maximum(
    run: Run, density: StarPotential, start: Gaussian, degree: int
) -> tuple[Gaussian, StarPotential]:
    """The Gaussian about the maximum, found by surfaces of a `degree`, each over the Gaussian before it, until two
    agree; and the likelihood with orbits' labels of the last but one."""
    places = run.unconstrained.places
    for number in range(_ROUNDS):
        with run.stage(f"maximum, {len(density.data)} stars"):
            # kept with the evaluations: surfaces of a run that is resumed must have the same points
            compute = partial(_laplace, density, start, degree, run.seed)
            found, *known = run.store.keep(f"maximum-{degree}-{number}", compute, _LIKE)
        density.known.theta, density.known.values = known
        before, after = (np.sqrt(np.diag(one.covariance))[places] for one in (start, found))
        if (np.abs(found.mean - start.mean)[places] / after).max() < _SETTLED and (before / after).max() < _AS_WIDE:
            break
        # a surface over too wide a region can have a narrow maximum of its own
        start = Gaussian(found.mean, found.covariance + start.covariance / _NARROWS**2)
        density = density.relabelled(density.theta(found.mean))
    return found, density


def _laplace(density: StarPotential, *arguments: Any) -> tuple[Gaussian, np.ndarray, Statistic]:
    """The Gaussian of `StarPotential.laplace`, and all that is known of the statistic then."""
    return density.laplace(*arguments), density.known.theta, density.known.values


def _pilot(run: Run, expansion: Expansion, guide: np.ndarray, peak: Gaussian) -> np.ndarray:
    """Draws (S, P) of a short run on a first surface, which is good at those of the Gaussian about the maximum."""
    with run.stage("surface"):
        expansion.begin(guide)
    chains = _chains(run, guide, peak.covariance, _PILOT)
    with run.stage("pilot"):
        flat, _ = sample_nuts(*expansion.density, chains, "NUTS, pilot", run.store)
    if flat.shape[1] < _PILOT:
        raise KeyboardInterrupt
    return flat.reshape(-1, flat.shape[-1])


# ---- runs, until one can be believed


class _Sampled(NamedTuple):
    """What one run of NUTS gave: flat vectors (chain, draw, P), and as in `Posterior`."""

    flat: np.ndarray
    statistics: dict[str, np.ndarray]
    complete: bool
    convergence: dict[str, Any]
    report: SurfaceReport | None = None

    @property
    def agrees(self) -> bool:
        """Whether there is no reason to sample longer."""
        about, (chains, draws, _) = self.convergence, self.flat.shape
        sizes = about["min_ess_bulk"], about["min_ess_tail"]
        enough = not about["max_r_hat"] > _R_HAT_MOST and min(sizes) >= _ESS_LEAST
        return enough or chains * draws < _LONG


def _on_surface(run: Run, expansion: Expansion, guide: np.ndarray, peak: Gaussian) -> _Sampled:
    """Runs, each on a basis and a surface that are good at the draws (S, P) before it."""
    number: int = run.settings.draws
    sampled: Any = None
    for attempt in range(1, _ATTEMPTS + 1):
        with run.stage("surface"):
            expansion.suit(guide, f"attempt-{attempt}")
            kept = sampled is not None and sampled.agrees and expansion.holds(guide, sampled.statistics["lp"].ravel())
        if sampled is None or not kept:
            chains = _chains(run, guide, _shrunk(guide, peak.covariance), number)
            sampled = _nuts(run, *expansion.density, chains, attempt)
            if not sampled.complete:
                return sampled
        guide, lp = sampled.flat.reshape(-1, guide.shape[1]), sampled.statistics["lp"].ravel()
        with run.stage("check"):
            about = expansion.against_likelihood(guide, lp, attempt)
        sampled = sampled._replace(report=about)
        resolved = about.resolved or run.settings.basis_size is not None
        if about.trusted and resolved and sampled.agrees:
            break
        if not resolved and attempt < _ATTEMPTS:
            expansion.refine(guide, f"attempt-{attempt}")
        number *= 1 if sampled.agrees else 2
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


def _from_stars(run: Run, data: Data, guide: np.ndarray, peak: Gaussian) -> _Sampled:
    """Runs without a surface, each in the metric of the draws before it; the first starts from `guide` (S, P)."""
    potential = run.unconstrained.potential(_log_likelihood(data, run.settings.likelihood == "hilbert"))
    covariance, number = peak.covariance, run.settings.draws

    def of_context(flat: Any, _: None) -> Any:
        return potential(flat)

    for attempt in range(1, _ATTEMPTS + 1):
        sampled = _nuts(run, of_context, None, _chains(run, guide, covariance, number, adapt=True), attempt)
        if sampled.agrees or not sampled.complete:
            break
        guide = sampled.flat.reshape(-1, guide.shape[1])
        covariance, number = _shrunk(guide, peak.covariance), 2 * number
    return sampled


def _log_likelihood(data: Data, hilbert: bool) -> Callable[[Any, GaussianField], Any]:
    """By "hilbert" or "dense" from the stars, to be traced."""
    own = None if data.classes.common else data.variance

    def log_likelihood(theta: Any, field: GaussianField) -> Any:
        theta = jnp.stack([jnp.asarray(value, float) for value in theta])
        if hilbert:
            found = condensed(data.basis, all_moments(data, theta), len(data.elements))
            return given(field, found, data.basis, data.unlike)
        value = dense_log_likelihood(field, all_inputs(data, theta), data.Y, data.linear, own)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    return log_likelihood


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


def _chains(run: Run, guide: np.ndarray, covariance: np.ndarray, draws: int, adapt: bool = False) -> Chains:
    """Chains that start at random ones of the draws `guide` (S, P)."""
    rng = np.random.default_rng([run.seed, 0x6E757473])
    starts = guide[rng.choice(len(guide), run.settings.chains)]
    return Chains(starts, covariance, run.settings.warmup, draws, run.seed, adapt)


def _nuts(run: Run, potential: Callable[[Any, Any], Any], context: Any, chains: Chains, attempt: int) -> _Sampled:
    """A run of NUTS, kept in the store."""
    name = f"NUTS, attempt {attempt}" if attempt > 1 else "NUTS"
    with run.stage(name):
        flat, statistics = sample_nuts(potential, context, chains, name, run.store)
    return _Sampled(flat, statistics, flat.shape[1] == chains.draws, convergence(flat, statistics))


def _shrunk(draws: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Sample covariance (P, P) of draws (S, P), shrunk towards the Laplace covariance."""
    root = np.linalg.cholesky(covariance)
    number, size = draws.shape
    sample = np.cov(scipy.linalg.solve_triangular(root, (draws - draws.mean(0)).T, lower=True))
    return root @ (number * sample + 2 * size * np.eye(size)) @ root.T / (number + 2 * size)


def convergence(draws: np.ndarray, statistics: dict[str, np.ndarray]) -> dict[str, Any]:
    """The worst R-hat and effective sample sizes over all coordinates of draws (chain, draw, P), and divergences; NaN
    where a number cannot be computed, as for one chain, or for chains that stood still."""
    varies = (np.ptp(draws, axis=1) > 0).any(0).all()  # in every coordinate, at least one chain moves

    def worst(of: Callable[[np.ndarray], Any], pick: Callable[[Any], Any]) -> float:
        return float(pick([of(draws[..., i]) for i in range(draws.shape[-1])])) if varies else np.nan

    values = {
        "max_r_hat": worst(array_stats.rhat, np.max) if len(draws) > 1 else np.nan,
        "min_ess_bulk": worst(partial(array_stats.ess, method="bulk"), np.min),
        "min_ess_tail": worst(partial(array_stats.ess, method="tail", prob=(0.05, 0.95)), np.min),
    }
    divergences = int(statistics["diverging"].sum())
    sizes = values["min_ess_bulk"], values["min_ess_tail"]
    good = values["max_r_hat"] <= _R_HAT_MOST and min(sizes) >= _ESS_LEAST and not divergences
    return values | {"divergences": divergences, "converged": int(good)}
