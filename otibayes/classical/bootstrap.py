"""The classical fit: Nelder-Mead of equation 8 for every label and bootstrap resample (PW21, section 6.2).

Bootstrapping is outside the whole procedure, and the same resamples serve all labels. By default the Fourier
coefficients are expanded over theta (`surfaces`), the optimisations never touch a star again, and chi^2 of binned
coefficients (`chi2`), an objective of ours, comes with them. `surface=False` optimises the plain objective.
"""

from typing import Any, NamedTuple

import numpy as np

from ..base.errors import InputError
from ..base.store import Store
from ..base.surface import Region, draw
from ..dynamics.potential import MILKY_WAY, MassModel
from . import chi2
from .minimum import Minimum, scales
from .objective import Actions, Coefficients, Settings
from .problem import PlainMinimum, Problem, resamples
from .regions import LabelSurface
from .surfaces import GOOD, SurfaceReport, optimise_on_surfaces, polish_optima
from .valley import Valley, jacobian, valley

__all__ = ["ClassicalFit", "fit"]

M_DISK_START = 1.1  # PW21's released code; the other parameters start at their fiducial values
PILOT = 3.0  # radius of the pilot's ball in `scales`: 0.42 in m_disk, 0.285 kpc, 60 pc, 4.5 km/s


class ClassicalFit(NamedTuple):
    """Equation 8 minimised for E labels, on all stars and on B resamples, over the d parameters of the model's table.

    `optimum` (E, d), `replicates` (E, B, d) in the parameters' units; `value`, `converged`, `at_bound`, `evaluations`
    (E, 1 + B), the first on all stars; `coefficients` (E, 5) at the optimum on all stars and their bootstrap standard
    deviation `coefficients_sd` there; `valley`; `report` and `surfaces`, None without the surface; `chi2`, None without
    the surface, without bins of J_z, or with too few bootstraps.
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
    surfaces: tuple[LabelSurface, ...] | None
    chi2: chi2.Chi2Fit | None


def fit(
    stars: Any,
    labels: Any,
    sigma: Any = None,
    *,
    actions: Actions,
    bootstraps: int = 128,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008
    surface: bool = True,
    starts: int = 4,
    checks: int = 8,
    polish: bool | None = None,
    model: MassModel = MILKY_WAY,
    nodes: Store = Store(),  # noqa: B008
) -> ClassicalFit:
    """Minimise equation 8 for every label, on all stars and on each bootstrap resample (PW21, section 6.2).

    `stars`, N of them; `labels` (N, E), finite, and their errors `sigma` (N, E) or None, in one unit; `actions(w,
    theta)` as for `coefficients`, which also describes `settings`. `surface=False` optimises the plain objective, some
    250 passes over the stars for each label and resample. `starts` more optimisations on all stars begin at random
    places, to show the valley (on the wide pilot surface, if there is one); `checks` (label, replicate) pairs are
    compared with the plain coefficients. `polish` shifts every pair's surface to the plain coefficients at its optimum
    (None: where a check asks for it). `nodes` does the passes over the stars, here or on a cluster, and may keep them.

    Raises `InputError` with fewer than two bootstraps or too few stars. Fits that did not converge are marked, not
    dropped.
    """
    labels = np.asarray(labels, float)
    sigma = None if sigma is None else np.asarray(sigma, float)
    if bootstraps < 2:
        raise InputError(f"errors need at least 2 bootstraps, got {bootstraps}")
    N, E = labels.shape
    counts = np.concatenate([np.ones((1, N), int), resamples(N, bootstraps, seed)])
    problem = Problem(stars, labels, sigma, counts, actions, settings, model)
    nodes = nodes.of(f"classical {problem.digest()}")
    table, unit = model.parameters, scales(model.parameters)
    low, high = np.array([[p.low, p.high] for p in table]).T
    start = np.array([M_DISK_START if p.name == "m_disk" else p.fiducial for p in table])
    # coefficients have a variance of about 2 var / N
    fatol = 1e-3 * (labels.var(0) ** 2 * 2 if settings.moment == "scatter" else labels.var(0)) / N
    region = Region(start, np.diag(1 / unit), PILOT, low, high, lambda theta: model.allowed(model.Parameters(*theta)))

    surfaces = report = chi_squared = None
    if surface:
        pool, targets, report, begin, ends = optimise_on_surfaces(problem, nodes, region, fatol, starts, checks, seed)
        if polish or (polish is None and not report.worst < GOOD):
            report = polish_optima(problem, nodes, pool, targets[:E], report, seed)
        surfaces, minima = tuple(t.surface for t in targets[:E]), [t.found for t in targets[:E]]
        if len(targets) > E:
            chi_squared = chi2.together([t.found for t in targets[E:]], [t.surface for t in targets[E:]], table)
        thetas = np.array([[minimum.theta for minimum in row] for row in minima])
        at_optimum = [s.at(theta) for s, theta in zip(surfaces, thetas[:, 0], strict=True)]
        slopes = [
            jacobian(s.of_resample(0), theta, table, 1e-3, s.region.centre)
            for s, theta in zip(surfaces, thetas[:, 0], strict=True)
        ]
    else:
        begin = draw(region, starts, seed)
        tasks = [(e, b, start) for e in range(E) for b in range(bootstraps + 1)]
        more = [(e, 0, s) for e in range(E) for s in begin]
        structure: Any = Minimum(*[0] * len(Minimum._fields))  # type: ignore[arg-type]
        done = nodes.of("minimum").map(PlainMinimum(problem, fatol), tasks + more, structure, "plain", "fit")
        done = [Minimum(m.theta, float(m.value), bool(m.converged), int(m.evaluations)) for m in done]
        minima = [done[e * (bootstraps + 1) : (e + 1) * (bootstraps + 1)] for e in range(E)]
        ends = np.array([m.theta for m in done[len(tasks) :]]).reshape(E, starts, len(table))
        thetas = np.array([[minimum.theta for minimum in row] for row in minima])
        at_optimum = [
            value.series[:, e] for e, value in enumerate(nodes.map(problem, list(thetas[:, 0]), Coefficients(0, 0)))
        ]
        # wide against roughness
        slopes = [jacobian(problem.one(e, 0).series, thetas[e, 0], table, 0.3) for e in range(E)]

    return ClassicalFit(
        optimum=thetas[:, 0],
        replicates=thetas[:, 1:],
        value=np.array([[m.value for m in row] for row in minima]),
        converged=np.array([[m.converged for m in row] for row in minima]),
        at_bound=((thetas - low < 1e-3 * unit) | (high - thetas < 1e-3 * unit)).any(-1),
        evaluations=np.array([[m.evaluations for m in row] for row in minima]),
        coefficients=np.stack([c[0] for c in at_optimum]),
        coefficients_sd=np.stack([c[1:].std(0, ddof=1) for c in at_optimum]),
        valley=valley(np.stack(slopes), begin, ends),
        report=report,
        surfaces=surfaces,
        chi2=chi_squared,
    )
