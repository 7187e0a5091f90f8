"""The classical fit: Nelder-Mead of equation 8 for every element and bootstrap resample (PW21, section 6.2).

Bootstrapping is outside the whole procedure, and the same resamples serve all elements. By default the Fourier
coefficients are expanded once over theta (`otibayes.surface`) and the optimisations never touch a star again;
`surface=False` optimises the plain objective.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from ..dynamics.potential import MILKY_WAY, MassModel
from ..parameters import Parameter
from ..surface import Map, Region, Surface, contains, draw, evaluate, expand, radius, serial
from .objective import Actions, Settings, coefficients, objective

__all__ = [
    "ClassicalFit",
    "Minimum",
    "SurfaceReport",
    "Valley",
    "fit",
    "joint_gls",
    "joint_product",
    "nelder_mead",
    "resamples",
    "scales",
]

M_DISK_START = 1.1  # PW21's released code; the other parameters start at their fiducial values
PILOT = 3.0  # radius of the pilot's ball in `scales`: 0.42 in m_disk, 0.285 kpc, 60 pc, 4.5 km/s
EDGE = 0.97  # an optimum further out, in units of the region's size, is on its edge
ROUNDS = 6  # of growth before the edge is accepted and reported


class Minimum(NamedTuple):
    """Where Nelder-Mead stopped: theta (d,), the objective there, whether it met its tolerances, evaluations it took."""

    theta: np.ndarray
    value: float
    converged: bool
    evaluations: int


class Valley(NamedTuple):
    """The shape of the objective at each element's optimum on all stars, in units of `scales`, and the effect of the start.

    `jacobian` (E, 3, d) of (a1, b1, a2); `eigenvalues` (E, d), ascending, of the Gauss-Newton Hessian 2 J^T J; `condition`
    (E,), largest over smallest; `flat` (E, d), the unit vector of the smallest; `starts` (S, d) and `ends` (E, S, d) of the
    multi-start, in parameters; `spread` (E, d), the standard deviation of the ends, in parameters.
    """

    jacobian: np.ndarray
    eigenvalues: np.ndarray
    condition: np.ndarray
    flat: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    spread: np.ndarray


class SurfaceReport(NamedTuple):
    """How well the surface stands for the plain coefficients (a1, b1, a2), all errors in units of their bootstrap sd.

    `held_out_radius` (H,), in units of the region's size, and `held_out_error` (H, E, 3), rms over resamples; `pairs` (P, 2), random
    (element, replicate); `pair_error` (P, 3), surface less plain at their optima; `worst`, its largest magnitude; `edge`, how many
    optima lie on the region's edge; `nodes`, evaluations over the stars in all; `rounds`; the `surface` itself.

    In small samples the errors have a floor, the roughness of the plain coefficients: a neighbour that comes or goes
    makes them jump (about 0.1 sd for 3,000 stars, 0.02 sd for 56,000).
    """

    held_out_radius: np.ndarray
    held_out_error: np.ndarray
    pairs: np.ndarray
    pair_error: np.ndarray
    worst: float
    edge: int
    nodes: int
    rounds: int
    surface: Surface


class ClassicalFit(NamedTuple):
    """Equation 8 minimised for E elements on all stars and on B resamples; d parameters, ordered as the mass model's table.

    `optimum` (E, d), `replicates` (E, B, d) in the parameters' units; `value`, `converged`, `at_bound`, `evaluations`
    (E, 1 + B), the first on all stars; `coefficients` (E, 1 + 2 harmonics) at the optimum on all stars and their bootstrap
    standard deviation `coefficients_sd` there; `valley`; `report`, None without the surface.
    """

    optimum: np.ndarray
    replicates: np.ndarray
    value: np.ndarray
    converged: np.ndarray
    at_bound: np.ndarray
    evaluations: np.ndarray
    coefficients: np.ndarray
    coefficients_sd: np.ndarray
    valley: Valley
    report: SurfaceReport | None


def resamples(stars: int, bootstraps: int, seed: int) -> np.ndarray:
    """How often each star was drawn, (bootstraps, stars) integers: draws of as many stars, with replacement."""
    # A stream of its own: drawn from default_rng(seed), resamples of a catalogue simulated from default_rng(seed) repeat
    # its random numbers, and follow the stars' properties.
    rng = np.random.default_rng([seed, 0x626F6F74])
    return np.array([np.bincount(rng.integers(stars, size=stars), minlength=stars) for _ in range(bootstraps)]).reshape(-1, stars)


def scales(table: Sequence[Parameter]) -> np.ndarray:
    """The unit in which each parameter varies, (d,): a tenth of the width between its bounds."""
    return np.array([(p.high - p.low) / 10 for p in table])


def nelder_mead(function: Callable[[np.ndarray], float], start: np.ndarray, table: Sequence[Parameter], fatol: float) -> Minimum:
    """Minimise `function` of theta (d,) by SciPy's Nelder-Mead within the table's bounds, each parameter in its scale.

    The initial simplex is `start` and one step of half a scale along each parameter; it stops at 1e-3 of the scales and
    `fatol` in the objective.
    """
    unit = scales(table)
    low, high = np.array([[p.low, p.high] for p in table]).T
    step = np.where(start + 0.5 * unit > high, -0.5, 0.5)
    found = minimize(
        lambda x: function(np.clip(x * unit, low, high)),
        start / unit,
        method="Nelder-Mead",
        bounds=list(zip(low / unit, high / unit, strict=True)),
        options={
            "initial_simplex": start / unit + np.concatenate([np.zeros((1, len(start))), np.diag(step)]),
            "xatol": 1e-3,
            "fatol": fatol,
            "maxfev": 4000,
            "maxiter": 4000,
        },
    )
    return Minimum(np.clip(found.x * unit, low, high), float(found.fun), bool(found.success), int(found.nfev))


@functools.partial(jax.jit, static_argnames="every")
def _on_surface(surface: Surface, theta: jax.Array, every: bool) -> jax.Array:
    """Objective of a surface of one element and resample; infinite outside its region."""
    return jnp.where(contains(surface.region, theta), objective(evaluate(surface, theta), every), jnp.inf)


def _one(surface: Surface, element: int, replicate: int) -> Surface:
    leaf = jnp.asarray(surface.coefficients[:, replicate, element])
    region = jax.tree.map(jnp.asarray, surface.region)
    return dataclasses.replace(surface, region=region, coefficients=leaf, held_out=None)


class _Problem(NamedTuple):
    """The plain statistic and what it is computed from; a plain callable of theta (d,), so that it can go to a worker."""

    stars: Any
    labels: np.ndarray
    sigma: np.ndarray | None
    counts: np.ndarray
    actions: Actions
    settings: Settings
    model: MassModel

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        return coefficients(
            self.model.Parameters(*theta), self.stars, self.labels, self.sigma, self.counts, self.actions, self.settings
        )

    def one(self, element: int, replicate: int) -> "_Problem":
        sigma = None if self.sigma is None else self.sigma[:, [element]]
        return self._replace(labels=self.labels[:, [element]], sigma=sigma, counts=self.counts[[replicate]])

    def objective(self, theta: np.ndarray, every: bool) -> float:
        """Of one element and resample; infinite where the mass model is not allowed."""
        if not self.model.allowed(self.model.Parameters(*theta)):
            return np.inf
        return float(objective(self(theta), every)[0, 0])


def _covering(points: np.ndarray, region: Region, unit: np.ndarray) -> Region:
    """The ellipsoid that holds `points` (n, d) with a margin, and room for half a scale in every direction."""
    covariance = np.cov((points / unit).T) + 0.15**2 * np.eye(len(unit))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)) / unit
    centre = points.mean(0)
    distance = np.linalg.norm((points - centre) @ whitening.T, axis=1)
    return dataclasses.replace(region, centre=centre, whitening=whitening, size=max(1.25 * distance.max(), 3.0))


def _minimise_all(surface: Surface, start: np.ndarray, table: Sequence[Parameter], fatol: np.ndarray, every: bool) -> list[list[Minimum]]:
    """Per element and replicate, Nelder-Mead on the surface."""

    def minimum(element: int, replicate: int) -> Minimum:
        one = _one(surface, element, replicate)
        return nelder_mead(lambda theta: float(_on_surface(one, theta, every)), start, table, fatol[element])

    replicates, elements = surface.coefficients.shape[1:3]
    return [[minimum(e, b) for b in range(replicates)] for e in range(elements)]
