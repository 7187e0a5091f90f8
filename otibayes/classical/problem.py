"""The plain statistic of a sample and its resamples, as callables that can go to a worker."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dynamics.potential import MassModel
from .minimum import Minimum, nelder_mead
from .neighbours import Candidates, candidates
from .objective import Actions, AtTheta, Coefficients, Settings, at_theta, coefficients, objective

__all__ = ["PlainMinimum", "Problem", "Single", "minimum_of", "resamples"]

LISTED = 3  # candidates for every neighbour


def resamples(stars: int, bootstraps: int, seed: int) -> np.ndarray:
    """How often each star was drawn, (bootstraps, stars) integers: draws of as many stars, with replacement."""
    # A stream of its own: from default_rng(seed) itself, resamples of a catalogue simulated with the same seed would
    # repeat its random numbers, and follow the stars' properties.
    rng = np.random.default_rng([seed, 0x626F6F74])
    return np.stack([np.bincount(rng.integers(stars, size=stars), minlength=stars) for _ in range(bootstraps)])


@dataclass(frozen=True)
class Problem:
    """The plain statistic and what it is computed from: a callable of theta (d,) that can go to a worker."""

    stars: Any
    labels: np.ndarray
    sigma: np.ndarray | None
    counts: np.ndarray
    actions: Actions
    settings: Settings
    model: MassModel

    def __call__(self, theta: np.ndarray, candidates: Candidates | None = None) -> Coefficients:
        return coefficients(self.model.Parameters(*theta), *self._given, candidates)

    def at(self, theta: np.ndarray) -> AtTheta:
        """What theta makes of the stars."""
        return at_theta(self.model.Parameters(*theta), *self._given)

    def candidates(self, theta: np.ndarray) -> Candidates:
        """For evaluations near theta."""
        return candidates(self.at(theta).J, LISTED * self.settings.neighbours)

    @property
    def _given(self) -> tuple[Any, Any, Any, Any, Actions, Settings]:
        return self.stars, self.labels, self.sigma, self.counts, self.actions, self.settings

    def one(self, label: int, replicate: int, bins: bool = False) -> "Problem":
        """Of one label and resample, with or without bins."""
        sigma = None if self.sigma is None else self.sigma[:, [label]]
        return replace(
            self,
            labels=self.labels[:, [label]],
            sigma=sigma,
            counts=self.counts[[replicate]],
            settings=self.settings if bins else self.settings._replace(bins=()),
        )

    def series(self, theta: np.ndarray) -> np.ndarray:
        """c0, a1, b1, a2, b2 of the first label and resample; NaN where the mass model is not allowed."""
        if not self.model.allowed(self.model.Parameters(*theta)):
            return np.full(5, np.nan)
        return self(theta).series[0, 0]

    def digest(self) -> str:
        found = hashlib.sha256(repr(self.settings).encode())
        for array in (self.labels, self.sigma, self.counts):
            found.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Single:
    """Plain coefficients of one (label, replicate, theta), with or without bins: a task of its own."""

    problem: Problem
    bins: bool = False
    candidates: Candidates | None = None

    def __call__(self, task: tuple[int, int, np.ndarray]) -> Coefficients:
        label, replicate, theta = task
        return self.problem.one(label, replicate, self.bins)(theta, self.candidates)


@dataclass(frozen=True)
class PlainMinimum:
    """One plain Nelder-Mead of a (label, replicate, start): a task of its own. `fatol` (E,) in the objective."""

    problem: Problem
    fatol: np.ndarray

    def __call__(self, task: tuple[int, int, np.ndarray]) -> Minimum:
        label, replicate, start = task
        return minimum_of(self.problem.one(label, replicate).series, start, self.problem, self.fatol[label])


def minimum_of(
    series: Callable[[np.ndarray], np.ndarray], start: np.ndarray, problem: Problem, fatol: float, step: float = 0.5
) -> Minimum:
    """Nelder-Mead of equation 8; infinite where the coefficients are not known."""

    def function(theta: np.ndarray) -> float:
        value = float(objective(series(theta), problem.settings.every))
        return value if np.isfinite(value) else np.inf

    return nelder_mead(function, start, problem.model.parameters, fatol, step)
