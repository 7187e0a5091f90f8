"""The classical fit: Nelder-Mead of equation 8 for every element and bootstrap resample (PW21, section 6.2).

Bootstrapping is outside the whole procedure, and the same resamples serve all elements. By default the Fourier
coefficients are expanded once over theta (`otibayes.surface`) and the optimisations never touch a star again;
`surface=False` optimises the plain objective.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..dynamics.potential import MILKY_WAY, MassModel
from ..errors import InputError
from ..parallel import Map, serial
from ..parameters import Parameter
from ..surface import Region, Surface, contains, draw, evaluate, expand, radius
from .minimum import Minimum, nelder_mead, scales
from .objective import Actions, Settings, coefficients, objective

__all__ = ["ClassicalFit", "SurfaceReport", "Valley", "fit", "resamples"]

M_DISK_START = 1.1  # PW21's released code; the other parameters start at their fiducial values
PILOT = 3.0  # radius of the pilot's ball in `scales`: 0.42 in m_disk, 0.285 kpc, 60 pc, 4.5 km/s
EDGE = 0.97  # an optimum further out, in units of the region's size, is on its edge
ROUNDS = 6  # of growth, half of them the pilot's at most, before an optimum on the edge is accepted and reported


class Valley(NamedTuple):
    """The objective about each element's optimum on all stars, in units of `scales`, and the effect of the start.

    `jacobian` (E, 3, d) of (a1, b1, a2); `eigenvalues` (E, d), ascending, of the Gauss-Newton Hessian 2 J^T J;
    `condition` (E,), largest over smallest, at most 4.5e15; `flat` (E, d), the unit vector of the smallest; `starts`
    (S, d) and `ends` (E, S, d) of the multi-start, in parameters; `spread` (E, d), the standard deviation of the
    ends, in parameters.
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

    `held_out_radius` (H,), in units of the region's size, and `held_out_error` (H, E, 3), rms over resamples; `pairs`
    (P, 2), random (element, replicate); `pair_error` (P, 3), surface less plain at their optima; `worst`, its largest
    magnitude; `edge`, how many optima lie on the region's edge; `nodes`, evaluations over the stars in all; `rounds`;
    the `surface` itself.

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
    """Equation 8 minimised for E elements, on all stars and on B resamples, over the d parameters of the model's table.

    `optimum` (E, d), `replicates` (E, B, d) in the parameters' units; `value`, `converged`, `at_bound`, `evaluations`
    (E, 1 + B), the first on all stars; `coefficients` (E, 1 + 2 harmonics) at the optimum on all stars and their
    bootstrap standard deviation `coefficients_sd` there; `valley`; `report`, None without the surface.
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
    # A stream of its own: from default_rng(seed) itself, resamples of a catalogue simulated with the same seed would
    # repeat its random numbers, and follow the stars' properties.
    rng = np.random.default_rng([seed, 0x626F6F74])
    return np.stack([np.bincount(rng.integers(stars, size=stars), minlength=stars) for _ in range(bootstraps)])


@functools.partial(jax.jit, static_argnames="every")
def _on_surface(surface: Surface, theta: jax.Array, every: bool) -> jax.Array:
    """Objective of a surface of one element and resample; infinite outside its region."""
    return jnp.where(contains(surface.region, theta), objective(evaluate(surface, theta), every), jnp.inf)


def _one(surface: Surface, element: int, replicate: int) -> Surface:
    return dataclasses.replace(surface, coefficients=surface.coefficients[:, replicate, element]).lean()


@dataclasses.dataclass(frozen=True)
class _Problem:
    """The plain statistic and what it is computed from: a callable of theta (d,) that can go to a worker."""

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
        return dataclasses.replace(self, labels=self.labels[:, [element]], sigma=sigma, counts=self.counts[[replicate]])

    def objective(self, theta: np.ndarray, every: bool) -> float:
        """Of one element and resample; infinite where the mass model is not allowed."""
        if not self.model.allowed(self.model.Parameters(*theta)):
            return np.inf
        return float(objective(self(theta), every)[0, 0])


def _covering(points: np.ndarray, region: Region, unit: np.ndarray, margin: float) -> Region:
    """The ellipsoid that holds `points` (n, d) with a margin, and some room in every direction."""
    covariance = np.cov((points / unit).T) + 0.15**2 * np.eye(len(unit))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)) / unit
    centre = points.mean(0)
    distance = np.linalg.norm((points - centre) @ whitening.T, axis=1)
    return dataclasses.replace(region, centre=centre, whitening=whitening, size=max(margin * distance.max(), 3.0))


def _surface_minimum(one: Surface, start: np.ndarray, table: Sequence[Parameter], fatol: float, every: bool) -> Minimum:
    return nelder_mead(lambda theta: float(_on_surface(one, theta, every)), start, table, fatol)


def _minimise_all(
    surface: Surface, start: np.ndarray, problem: _Problem, fatol: Any, every: bool
) -> list[list[Minimum]]:
    """Per element and replicate, Nelder-Mead on the surface."""
    replicates, elements = surface.coefficients.shape[1:3]
    table = problem.model.parameters
    return [
        [_surface_minimum(_one(surface, e, b), start, table, fatol[e], every) for b in range(replicates)]
        for e in range(elements)
    ]


def _thetas(minima: list[list[Minimum]]) -> np.ndarray:
    return np.array([[minimum.theta for minimum in row] for row in minima])


def _on_edge(region: Region, thetas: np.ndarray) -> int:
    radii = jax.vmap(functools.partial(radius, region))(thetas.reshape(-1, thetas.shape[-1]))
    return int((np.asarray(radii) > EDGE).sum())


def _trusted(
    problem: _Problem, region: Region, fatol: np.ndarray, every: bool, degree: int, seed: int, map: Map
) -> tuple[Surface, list[list[Minimum]], int, int]:
    """Surface, minima, nodes and rounds: from a quadratic pilot about the start to where no optimum is on the edge."""
    start, unit = region.centre, scales(problem.model.parameters)
    surface = expand(problem, region, degree=min(2, degree), held_out=0, seed=seed, map=map)
    nodes = 0
    for rounds in range(1, ROUNDS + 1):
        nodes += surface.nodes
        minima = _minimise_all(surface, start, problem, fatol, every)
        edge = _on_edge(surface.region, _thetas(minima))
        if rounds == ROUNDS or (len(surface.held_out.radius) and not edge):
            break
        points = np.concatenate([_thetas(minima).reshape(-1, len(start)), start[None]])
        # the pilot grows while it is cheap; the full degree is worth its nodes once every optimum is inside
        growing = edge and surface.degree < degree and rounds < ROUNDS // 2
        next_degree, held_out = (surface.degree, 0) if growing else (degree, 12)
        covering = _covering(points, region, unit, 1.15 if surface.degree == degree else 1.3)  # a pilot is rough
        surface = expand(problem, covering, next_degree, held_out=held_out, seed=seed + rounds, map=map, reuse=surface)
    return surface, minima, nodes, rounds


def _valley(jacobian: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Valley:
    hessian = 2 * np.einsum("eci,ecj->eij", jacobian, jacobian)
    eigenvalues, vectors = np.linalg.eigh(hessian)
    # three squares and four parameters: the smallest is zero but for rounding
    smallest = np.maximum(eigenvalues[:, 0], np.finfo(float).eps * eigenvalues[:, -1])
    flat = vectors[:, :, 0]
    flat = flat * np.where(flat[:, :1] < 0, -1, 1)
    return Valley(jacobian, eigenvalues, eigenvalues[:, -1] / smallest, flat, starts, ends, ends.std(1))


def _jacobian(problem: _Problem, theta: np.ndarray, element: int) -> np.ndarray:
    """Of (a1, b1, a2) by parameters in their scales, (3, d), by central differences wide against roughness."""
    unit = scales(problem.model.parameters)
    one = problem.one(element, 0)
    low, high = np.array([[p.low, p.high] for p in problem.model.parameters]).T
    columns = []
    for step in np.diag(0.3 * unit):
        ends = np.clip([theta - step, theta + step], low, high)
        change = one(ends[1])[0, 0, 1:4] - one(ends[0])[0, 0, 1:4]
        columns.append(change / ((ends[1] - ends[0]) / unit).sum())
    return np.stack(columns, -1)


def fit(
    stars: Any,
    labels: Any,
    sigma: Any = None,
    *,
    actions: Actions,
    bootstraps: int = 128,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008
    every: bool = False,
    surface: bool = True,
    degree: int = 3,
    starts: int = 4,
    checks: int = 8,
    model: MassModel = MILKY_WAY,
    map: Map = serial,
) -> ClassicalFit:
    """Minimise equation 8 for every element, on all stars and on each bootstrap resample (PW21, section 6.2).

    `stars`, N of them; `labels` (N, E), finite, and their errors `sigma` (N, E) or None, in one unit; `actions(w,
    theta)` as for `coefficients`, which also describes `settings`. `every` adds c0 and b2 to the objective.
    `surface=False` optimises the plain objective, some 250 passes over the stars for each element and resample.
    `starts` more optimisations on all stars begin at random places of the trust region, to show the valley; `checks`
    (element, replicate) pairs are compared with the plain coefficients. `map(function, points)` does the passes over
    the stars: here or on a cluster.

    Raises `InputError` with fewer than two bootstraps or too few stars. Fits that did not converge are marked, not
    dropped.
    """
    labels = np.asarray(labels, float)
    sigma = None if sigma is None else np.asarray(sigma, float)
    if bootstraps < 2:
        raise InputError(f"errors need at least 2 bootstraps, got {bootstraps}")
    N, E = labels.shape
    counts = np.concatenate([np.ones((1, N), int), resamples(N, bootstraps, seed)])
    problem = _Problem(stars, labels, sigma, counts, actions, settings, model)
    table, unit = model.parameters, scales(model.parameters)
    low, high = np.array([[p.low, p.high] for p in table]).T
    start = np.array([M_DISK_START if p.name == "m_disk" else p.fiducial for p in table])
    fatol = 1e-3 * labels.var(0) / N  # coefficients have a variance of about 2 var / N
    region = Region(start, np.diag(1 / unit), PILOT, low, high, lambda theta: model.allowed(model.Parameters(*theta)))

    if surface:
        trusted, minima, nodes, rounds = _trusted(problem, region, fatol, every, degree, seed, map)
        value: Any = jax.jit(functools.partial(evaluate, trusted))
        begin = draw(trusted.region, starts, seed)
        ones = [_one(trusted, e, 0) for e in range(E)]
        ends = [[_surface_minimum(ones[e], s, table, fatol[e], every) for s in begin] for e in range(E)]
    else:
        begin = draw(region, starts, seed)
        tasks = [(e, b, start) for e in range(E) for b in range(bootstraps + 1)] + [
            (e, 0, s) for e in range(E) for s in begin
        ]
        found = map(functools.partial(_plain, problem, fatol, every), tasks)
        minima = [found[e * (bootstraps + 1) : (e + 1) * (bootstraps + 1)] for e in range(E)]
        rest = found[E * (bootstraps + 1) :]
        ends = [rest[e * starts : (e + 1) * starts] for e in range(E)]
        value = problem

    thetas = _thetas(minima)
    at_optimum = [np.asarray(value(thetas[e, 0]))[:, e] for e in range(E)]
    sd = np.stack([c[1:].std(0, ddof=1) for c in at_optimum])
    if surface:
        jacobian = np.stack([np.asarray(jax.jacfwd(value)(thetas[e, 0]))[0, e, 1:4] * unit for e in range(E)])
        report = _report(problem, trusted, thetas, sd, checks, seed, nodes, rounds)
    else:
        jacobian, report = np.stack([_jacobian(problem, thetas[e, 0], e) for e in range(E)]), None
    return ClassicalFit(
        optimum=thetas[:, 0],
        replicates=thetas[:, 1:],
        value=np.array([[m.value for m in row] for row in minima]),
        converged=np.array([[m.converged for m in row] for row in minima]),
        at_bound=((thetas - low < 1e-3 * unit) | (high - thetas < 1e-3 * unit)).any(-1),
        evaluations=np.array([[m.evaluations for m in row] for row in minima]),
        coefficients=np.stack([c[0] for c in at_optimum]),
        coefficients_sd=sd,
        valley=_valley(jacobian, begin, _thetas(ends).reshape(E, starts, len(table))),
        report=report,
    )


def _plain(problem: _Problem, fatol: np.ndarray, every: bool, task: tuple[int, int, np.ndarray]) -> Minimum:
    """One plain Nelder-Mead: a task of its own."""
    element, replicate, start = task
    one = problem.one(element, replicate)
    return nelder_mead(lambda theta: one.objective(theta, every), start, problem.model.parameters, fatol[element])


def _report(
    problem: _Problem,
    surface: Surface,
    thetas: np.ndarray,
    sd: np.ndarray,
    checks: int,
    seed: int,
    nodes: int,
    rounds: int,
) -> SurfaceReport:
    """Surface against plain: at the held-out points, and at random (element, replicate) optima."""
    elements, replicates = thetas.shape[:2]
    chosen = np.random.default_rng([seed, 0x70616972]).permutation(elements * replicates)[:checks]
    pairs = np.stack(np.divmod(chosen, replicates), -1)
    error = np.empty((len(pairs), 3))
    for row, (e, b) in zip(error, pairs, strict=True):
        theta = thetas[e, b]
        row[:] = (np.asarray(evaluate(surface, theta))[b, e] - problem.one(e, b)(theta)[0, 0])[1:4] / sd[e, 1:4]
    held_out = np.sqrt((surface.held_out.error[..., 1:4] ** 2).mean(1)) / sd[:, 1:4]
    worst = float(np.abs(error).max())
    edge = _on_edge(surface.region, thetas)
    return SurfaceReport(surface.held_out.radius, held_out, pairs, error, worst, edge, nodes, rounds, surface)
