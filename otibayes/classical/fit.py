"""The classical fit: Nelder-Mead of equation 8 for every element and bootstrap resample (PW21, section 6.2), and chi^2.

Bootstrapping is outside the whole procedure, and the same resamples serve all elements. The optimisations run on
response surfaces (`surfaces`), or with `surface=False` on the plain coefficients.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..base.response_surface import Region, draw
from ..base.store import Store
from ..dynamics import MILKY_WAY, MassModel
from ..results.provenance import digest, origins
from ..results.schema import as_tree, constant_data
from ..stars import Stars
from ..stars.preparation import prepare_stars
from .chi2 import Chi2Element
from .objective import Minimum, scales
from .result_groups import classical_groups
from .settings import ClassicalSettings
from .statistic import Statistic, make_statistic
from .surfaces import SurfaceFit, SurfaceReport, jacobian, optimise_on_surfaces, passes_of, pilot_ball

__all__ = ["ClassicalFit", "fit", "fit_classical"]

_STEP = 0.3  # radius of the ball in which the Jacobian of the plain coefficients is measured, in `scales`


class _Valley(NamedTuple):
    """The valley of equation 8: three squares of four parameters leave one direction along which it stays at zero.

    At each element's optimum on all stars, in units of `scales`: `jacobian` (E, 3, d) of (a1, b1, a2); `eigenvalues`
    (E, d), ascending, of the Gauss-Newton Hessian 2 J^T J; `condition` (E,), largest over smallest, at most 4.5e15;
    `flat` (E, d), the unit vector of the smallest. `starts` (S, d) and `ends` (E, S, d) of more optimisations, and the
    standard deviation of the ends, `spread` (E, d), in parameters.
    """

    jacobian: np.ndarray
    eigenvalues: np.ndarray
    condition: np.ndarray
    flat: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    spread: np.ndarray


class ClassicalFit(NamedTuple):
    """Equation 8 minimised for E elements, on all stars and on B resamples, over the d parameters of the mass model.

    `optimum` (E, d), `replicates` (E, B, d) and `reweighted` (E, d), the optimum on all stars with the other weights,
    in the parameters' units; `value`, `converged`, `at_bound`, `evaluations` (E, 1 + B), the first on all stars;
    `coefficients` (E, 5) at the optimum on all stars and their bootstrap standard deviation `coefficients_sd`;
    `valley`; `chi2` of each element, empty without the surface, without bins of J_z, or with too few bootstraps;
    `report`, None without the surface.
    """

    optimum: np.ndarray
    replicates: np.ndarray
    reweighted: np.ndarray
    value: np.ndarray
    converged: np.ndarray
    at_bound: np.ndarray
    evaluations: np.ndarray
    coefficients: np.ndarray
    coefficients_sd: np.ndarray
    valley: _Valley
    chi2: list[Chi2Element]
    report: SurfaceReport | None


def fit(
    statistic: Statistic,
    store: Store = Store(),
    starts: int = 4,
    checks: int = 16,
    seed: int = 0,
) -> ClassicalFit:
    """Minimise equation 8 of every element, on all stars and on each resample, and chi^2 where it is possible.

    `store` makes the passes over the stars, here or on a cluster, and may keep them. `starts` more optimisations on all
    stars begin at random places, to show the valley. The surfaces are compared with plain coefficients at `checks`
    optima or more. Fits that did not converge are marked, not dropped.
    """
    store = store.of("classical")
    found = (optimise_on_surfaces if statistic.settings.surface else _plain)(statistic, store, starts, checks, seed)
    table = statistic.model.parameters
    unit, (low, high) = scales(table), np.array([[p.low, p.high] for p in table]).T
    thetas = np.array([[minimum.theta for minimum in rows] for rows in found.minima])
    of_resamples = [rows[:-1] for rows in found.minima]
    jacobians, at_optimum = np.stack(found.jacobian), np.stack(found.coefficients)
    eigenvalues, vectors = np.linalg.eigh(2 * np.einsum("eci,ecj->eij", jacobians, jacobians))
    flat = vectors[:, :, 0] * np.where(vectors[:, :1, 0] < 0, -1, 1)
    # with more parameters than squares the smallest is zero but for rounding
    smallest = np.maximum(eigenvalues[:, 0], np.finfo(float).eps * eigenvalues[:, -1])
    condition = eigenvalues[:, -1] / smallest
    return ClassicalFit(
        optimum=thetas[:, 0],
        replicates=thetas[:, 1:-1],
        reweighted=thetas[:, -1],
        value=np.array([[m.value for m in rows] for rows in of_resamples]),
        converged=np.array([[m.converged for m in rows] for rows in of_resamples]),
        at_bound=((thetas - low < 1e-3 * unit) | (high - thetas < 1e-3 * unit)).any(-1)[:, :-1],
        evaluations=np.array([[m.evaluations for m in rows] for rows in of_resamples]),
        coefficients=at_optimum[:, 0],
        coefficients_sd=at_optimum[:, 1:].std(1, ddof=1),
        valley=_Valley(jacobians, eigenvalues, condition, flat, found.starts, found.ends, found.ends.std(1)),
        chi2=found.chi2,
        report=found.report,
    )


@dataclass(frozen=True)
class PlainMinimum:
    """Equation 8 minimised on plain coefficients: a task (element, resample, start) of its own.

    A resample of -1 is all stars with the other weights.
    """

    statistic: Statistic

    def __call__(self, task: tuple[int, int, np.ndarray]) -> Minimum:
        element, resample, start = task
        one, model = self.statistic.one(element, max(resample, 0)), self.statistic.model

        def series(theta: np.ndarray) -> np.ndarray:
            if not model.allowed(model.Parameters(*theta)):
                return np.full(5, np.nan)
            value = one(theta)
            return (value.reweighted if resample < 0 else value.series)[0, 0]

        return self.statistic.minimum(series, start, element)


def _plain(statistic: Statistic, store: Store, starts: int, checks: int, seed: int) -> SurfaceFit:
    """The same without surfaces: some 250 passes over the stars for each element and resample."""
    E, B = statistic.labels.shape[1], len(statistic.counts)
    table, ball = statistic.model.parameters, pilot_ball(statistic)
    begin = draw(ball, starts, seed)
    tasks = [(e, b, statistic.start) for e in range(E) for b in [*range(B), -1]]
    tasks += [(e, 0, start) for e in range(E) for start in begin]
    like: Any = Minimum(*[0] * len(Minimum._fields))  # type: ignore[arg-type]
    done = store.of("minimum").map(PlainMinimum(statistic), tasks, like, "plain", "fit")
    done = [Minimum(m.theta, float(m.value), bool(m.converged), int(m.evaluations)) for m in done]
    minima = [done[e * (B + 1) : (e + 1) * (B + 1)] for e in range(E)]
    ends = np.array([m.theta for m in done[E * (B + 1) :]]).reshape(E, starts, len(table))
    optima = np.stack([rows[0].theta for rows in minima])

    def slopes(e: int) -> np.ndarray:
        passes = passes_of(statistic.one(e, 0), store.of(f"element {e}"))
        near: Region = replace(ball, centre=optima[e], size=_STEP)
        passes.cover(near, 1, 2.0, seed)
        surface = passes.surface(near, 1)
        return jacobian(replace(surface, coefficients=surface.coefficients.series[:, 0, 0]), optima[e], table)

    values = store.map(statistic, list(optima), statistic.like)
    return SurfaceFit(
        minima=minima,
        coefficients=[value.series[:, e] for e, value in enumerate(values)],
        jacobian=[slopes(e) for e in range(E)],
        starts=begin,
        ends=ends,
        chi2=[],
        report=None,
    )


def fit_classical(
    stars: Stars,
    elements: Sequence[str] | None = None,
    *,
    seed: int = 0,
    model: MassModel = MILKY_WAY,
    settings: ClassicalSettings | None = None,
    store: str | os.PathLike[str] | None = None,
    client: Any = None,
    **keywords: Any,
) -> xr.DataTree:
    """The classical fit (PW21, section 6): Fourier coefficients in theta_z of abundance deviations, made to vanish.

    `elements` (default: all) that every star used must have. `settings`, a `ClassicalSettings`, or its fields as
    keywords, for example `bootstraps=128`. The focal length is held at its value in the fiducial `model`. `store`, a
    folder, keeps every finished pass over the stars, so that a run that was stopped goes on where it was; `client`, a
    `distributed.Client`, makes them on a cluster.

    Groups: `posterior` (chain = 1, draw = bootstrap, element), the replicates of equation 8, whose errors are across
    its valley only; `sample_stats`, `optimum` on all stars, `valley`, `weights`, `chi2`, `joint` (absent with too few
    bootstraps), `surface`, `constant_data`. Raises `InputError` for input that cannot be used.
    """
    settings = ClassicalSettings.given(settings, keywords)
    recorded = settings.record()
    identity = digest(json.dumps(origins(stars, elements, seed, recorded, model), sort_keys=True))
    prepared = prepare_stars(stars, elements, settings.delta, model, settings.method)
    statistic = make_statistic(
        prepared.stars,
        prepared.labels,
        prepared.errors,
        actions=prepared.actions,
        settings=settings,
        seed=seed,
        model=model,
    )
    found = fit(statistic, Store(None if store is None else Path(store), identity, client), seed=seed)
    groups = classical_groups(found, statistic, prepared.elements)
    groups["constant_data"] = constant_data(prepared.stars, prepared.elements, prepared.delta)
    return as_tree("classical", groups, prepared.stars, prepared.elements, seed, recorded, model, identity)
