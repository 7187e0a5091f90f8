"""What the stars that hardly oscillate in the angle contribute to the coefficients, with their angles exact.

A star close to the plane goes through all of theta_z when the Sun's height and velocity move by its own excursion.
These few make most of what no polynomial over theta can follow in the coefficients. Their deviations change little
with theta, so that their part follows from their angles alone, for a few percent of a plain evaluation.
"""

import functools
import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dynamics.frame import PhaseSpace, galactocentric
from .fourier import design, normal_equations
from .objective import Actions, deviations, of_stars
from .problem import Problem

__all__ = ["NearPlane", "near_plane"]

SHARE = 0.1  # of the stars, those of least action: of twice as many the surfaces gain little more


@dataclass(frozen=True)
class NearPlane:
    """The part of n stars in c0, a1, b1, a2, b2, with their deviations as at one theta and their angles as at another.

    `heliocentric` (n, 6); `weighted` (B, E, n), deviations times counts over variances; `inverse` (B, E, 5, 5) of the
    normal equations of all stars at that one theta. Not the coefficients' exact part: what it lacks is smooth.
    """

    heliocentric: Any
    actions: Actions
    problem: Problem
    weighted: np.ndarray
    inverse: np.ndarray

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """(B, E, 5) at theta (d,)."""
        projection = self.weighted @ self._design(theta).astype(self.weighted.dtype)
        return (self.inverse @ projection[..., None])[..., 0]

    def of(self, label: int, replicate: int, theta: np.ndarray) -> np.ndarray:
        """(5,) of one of them."""
        weighted = self.weighted[replicate, label]
        drawn = np.flatnonzero(weighted)
        return self.inverse[replicate, label] @ (weighted[drawn] @ self._design(theta, drawn))

    def _design(self, theta: np.ndarray, chosen: Any = slice(None)) -> np.ndarray:
        parameters = self.problem.model.Parameters(*theta)
        w = PhaseSpace(*(np.asarray(x)[chosen] for x in galactocentric(self.heliocentric, parameters)))
        return design(getattr(of_stars(self.actions, chosen)(w, parameters), self.problem.settings.angle))


def near_plane(problem: Problem, theta: np.ndarray) -> NearPlane:
    """Of the stars that have least of the angle's action at theta (d,), with their deviations there."""
    problem = replace(problem, settings=problem.settings._replace(bins=()))
    settings, sample = problem.settings, problem.at(theta)
    action = sample.J[:, {"theta_R": 0, "theta_z": 2}[settings.angle]]
    chosen = np.sort(np.argsort(action, kind="stable")[: int(SHARE * len(action))])
    place = np.full(len(action), -1)
    place[chosen] = np.arange(len(chosen))
    B, E = len(problem.counts), problem.labels.shape[1]
    weighted = np.zeros((B, E, len(chosen)), np.float32)

    M = design(sample.angle)

    def normal(stars: np.ndarray, found: np.ndarray) -> np.ndarray:
        here = place[stars] >= 0
        times = sample.counts[:, None, stars[here]] * sample.inverse[stars[here]].T
        weighted[:, :, place[stars[here]]] = found[here].transpose(2, 1, 0) * times
        return normal_equations(M[stars], found, sample.inverse[stars], sample.counts[:, stars])[0][0]

    inverse = np.linalg.inv(functools.reduce(operator.add, deviations(normal, sample, settings)))
    inverse = np.broadcast_to(inverse, (B, E, *inverse.shape[-2:]))
    heliocentric = np.asarray(problem.stars.heliocentric)[chosen]
    return NearPlane(heliocentric, of_stars(problem.actions, chosen), problem, weighted, inverse)
