"""The classical fit: Nelder-Mead of equation 8 for every label and bootstrap resample (PW21, section 6.2).

Bootstrapping is outside the whole procedure, and the same resamples serve all labels. By default the Fourier
coefficients are expanded over theta (`trust`), the optimisations never touch a star again, and what is not explicit
in the paper's objective, chi^2 of binned coefficients (`chi2`), comes with it. `surface=False` optimises the plain
objective.
"""

import dataclasses
import functools
import hashlib
from typing import Any, NamedTuple

import numpy as np

from ..dynamics.potential import MILKY_WAY, MassModel
from ..errors import InputError
from ..nodes import Nodes
from ..surface import Region, draw
from . import chi2
from .minimum import Minimum, nelder_mead, scales
from .objective import Actions, Coefficients, Settings, coefficients, objective
from .trust import LabelSurface, Pool, covering, outermost
from .valley import Valley, jacobian, valley

__all__ = ["ClassicalFit", "SurfaceReport", "fit", "resamples"]

M_DISK_START = 1.1  # PW21's released code; the other parameters start at their fiducial values
PILOT = 3.0  # radius of the pilot's ball in `scales`: 0.42 in m_disk, 0.285 kpc, 60 pc, 4.5 km/s
EDGE = 0.97  # an optimum further out, in units of the region's size, is on its edge
ROUNDS = 8  # of growing regions and degrees, before what is left is accepted and reported
DEGREES = (3, 4)  # of the surfaces of equation 8: the second where the first is not good enough
CHI2_ROUNDS = 2  # of placing the regions of chi^2, which may be as wide as the prior
ROUGH = 20_000  # stars below which the roughness of the coefficients, which no degree follows, limits a surface
OVERSAMPLING = 1.6  # nodes over polynomials
GOOD = 0.1  # bootstrap sd: largest error of a surface at an optimum


class SurfaceReport(NamedTuple):
    """How well the surfaces stand for the plain coefficients (a1, b1, a2), all errors in units of their bootstrap sd.

    `pairs` (P, 2), random (label, replicate); `pair_error` (P, 3), what was minimised less the plain coefficients, at
    these pairs' optima; `worst`, its largest magnitude; `surface_worst`, the same before polishing; `polished` (E,),
    labels for which each pair's surface was shifted to the plain coefficients at its own optimum and minimised anew;
    `degree` (E,) of each label's surface, `outermost` (E,) optimum in units of its region's size; `edge`, how many
    labels have one on the edge; `nodes`, evaluations over the stars for all labels and replicates; `rounds`;
    `chi2_error` (E, n), of the statistics of chi^2 on their surface, at a random resample's optimum.
    """

    pairs: np.ndarray
    pair_error: np.ndarray
    worst: float
    surface_worst: float
    polished: np.ndarray
    degree: np.ndarray
    outermost: np.ndarray
    edge: int
    nodes: int
    rounds: int
    chi2_error: np.ndarray


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


def resamples(stars: int, bootstraps: int, seed: int) -> np.ndarray:
    """How often each star was drawn, (bootstraps, stars) integers: draws of as many stars, with replacement."""
    # A stream of its own: from default_rng(seed) itself, resamples of a catalogue simulated with the same seed would
    # repeat its random numbers, and follow the stars' properties.
    rng = np.random.default_rng([seed, 0x626F6F74])
    return np.stack([np.bincount(rng.integers(stars, size=stars), minlength=stars) for _ in range(bootstraps)])


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

    def __call__(self, theta: np.ndarray) -> Coefficients:
        return coefficients(
            self.model.Parameters(*theta), self.stars, self.labels, self.sigma, self.counts, self.actions, self.settings
        )

    def one(self, label: int, replicate: int) -> "_Problem":
        """Of one label and resample, without bins."""
        sigma = None if self.sigma is None else self.sigma[:, [label]]
        return dataclasses.replace(
            self,
            labels=self.labels[:, [label]],
            sigma=sigma,
            counts=self.counts[[replicate]],
            settings=self.settings._replace(bins=()),
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


def _minimum(series: Any, start: np.ndarray, problem: _Problem, fatol: float, step: float = 0.5) -> Minimum:
    """Nelder-Mead of equation 8; infinite where the coefficients are not known."""

    def function(theta: np.ndarray) -> float:
        value = float(objective(series(theta), problem.settings.every))
        return value if np.isfinite(value) else np.inf

    return nelder_mead(function, start, problem.model.parameters, fatol, step)


def _thetas(minima: list[list[Minimum]]) -> np.ndarray:
    return np.array([[minimum.theta for minimum in row] for row in minima])


@dataclasses.dataclass
class _Target:
    """One objective of one label: its trust region, and the optima of all stars and of every resample, `at` (1 + B, d).

    The valley of equation 8 is not that of chi^2, so each has a region of its own.
    """

    problem: _Problem
    label: int
    fatol: float
    which: str  # "series": equation 8; "binned": chi^2
    region: Region
    at: np.ndarray
    degree: int = DEGREES[0]
    surface: Any = None
    found: Any = None
    outermost: float = np.inf

    def place(self) -> None:
        """The region about the optima found so far."""
        self.region = covering(self.at, self.region, scales(self.problem.model.parameters))

    def optimise(self, pool: Pool, step: float = 0.2) -> None:
        """On a new surface, each resample from the optimum that it had."""
        self.surface = pool.surface(self.which, self.label, self.region, self.degree)
        if self.which == "binned":
            self.found = chi2.fit_label(self.surface, self.at[0], self.problem.model.parameters)
            self.at = np.stack([minimum.theta for minimum in self.found[0]])
        else:
            series = map(self.surface.of_resample, range(len(self.at)))
            self.found = [
                _minimum(s, theta, self.problem, self.fatol, step) for s, theta in zip(series, self.at, strict=True)
            ]
            self.at = np.stack([minimum.theta for minimum in self.found])
        self.outermost = outermost(self.region, self.at)

    def error(self, resample: int, plain: Coefficients) -> np.ndarray:
        """Of what is to vanish, in bootstrap sd, at one resample's optimum, where the `plain` coefficients are."""
        values = getattr(plain, self.which)[:, self.label]
        values, here = (
            chi2.statistics(v) if self.which == "binned" else v[..., 1:4]
            for v in (values, self.surface.of_resample(resample)(self.at[resample]))
        )
        return (here - values[resample]) / values[1:].std(0, ddof=1)


def _on_surfaces(
    problem: _Problem, nodes: Nodes, region: Region, fatol: np.ndarray, starts: int, checks: int, seed: int
) -> tuple[list[_Target], SurfaceReport, np.ndarray, np.ndarray]:
    """From a pilot about the start to regions in which all optima lie, and surfaces that are good enough there.

    Returns the targets, equation 8 for each label and then chi^2 for each, the report, and multi-starts and their ends.
    """
    start, table = region.centre, problem.model.parameters
    E, B = problem.labels.shape[1], len(problem.counts)
    rng = np.random.default_rng([seed, 0x70616972])
    pool = Pool(problem, nodes)
    pool.add(pool.design([region], [DEGREES[0]], OVERSAMPLING, seed))

    targets = [_Target(problem, e, fatol[e], "series", region, np.tile(start, (B, 1))) for e in range(E)]
    for target in targets:
        target.optimise(pool, step=0.5)
    begin = draw(region, starts, seed)
    ends = np.array([[_minimum(t.surface.of_resample(0), s, problem, t.fatol).theta for s in begin] for t in targets])
    if chi2.possible(len(problem.settings.bins) + 1 if problem.settings.bins else 0, B - 1, len(table)):
        targets += [dataclasses.replace(t, which="binned") for t in targets]
        for target in targets[E:]:
            target.optimise(pool)

    wanting = targets
    for rounds in range(1, ROUNDS + 1):
        for target in wanting:
            target.place()
        pool.add(pool.design([t.region for t in wanting], [t.degree for t in wanting], OVERSAMPLING, seed + rounds))
        for target in wanting:
            target.optimise(pool)
        free = targets if rounds < CHI2_ROUNDS else targets[:E]
        wanting = [target for target in free if target.outermost > EDGE]
        if wanting and rounds < ROUNDS:
            continue
        drawn = np.stack([rng.permutation(B) for _ in range(E)])
        pairs = [(i % E, int(drawn[i % E, (i // E) % B])) for i in range(max(checks, E))]
        pairs += [(E + i, int(rng.integers(B))) for i in range(len(targets) - E)]
        plain = pool.add(np.array([targets[i].at[b] for i, b in pairs]))
        errors = [targets[i].error(b, plain.take(n)) for n, (i, b) in enumerate(pairs)]
        poor = {i for (i, _), error in zip(pairs, errors, strict=True) if not np.abs(error).max() < GOOD}
        smooth = len(problem.labels) > ROUGH
        wanting = [targets[i] for i in sorted(poor) if smooth and i < E and targets[i].degree < DEGREES[-1]]
        if not wanting or rounds == ROUNDS:
            break
        for target in wanting:
            target.degree += 1
    checked = max(checks, E)
    worst = float(np.abs(errors[:checked]).max())
    report = SurfaceReport(
        pairs=np.array(pairs[:checked]),
        pair_error=np.array(errors[:checked]),
        worst=worst,
        surface_worst=worst,
        polished=np.zeros(E, bool),
        degree=np.array([target.degree for target in targets[:E]]),
        outermost=np.array([target.outermost for target in targets[:E]]),
        edge=sum(target.outermost > EDGE for target in targets[:E]),
        nodes=len(pool.theta),
        rounds=rounds,
        chi2_error=np.array(errors[checked:]),
    )
    return targets, report, begin, ends.reshape(E, starts, len(start))


@dataclasses.dataclass(frozen=True)
class _Single:
    """Plain coefficients of one (label, replicate, theta): a task of its own."""

    problem: _Problem

    def __call__(self, task: tuple[int, int, np.ndarray]) -> np.ndarray:
        label, replicate, theta = task
        return self.problem.one(label, replicate).series(theta)


def _polish(problem: _Problem, nodes: Nodes, targets: list[_Target], report: SurfaceReport, seed: int) -> SurfaceReport:
    """Each pair's surface shifted to the plain coefficients at its optimum, minimised anew, and checked there.

    In small samples a neighbour that comes or goes makes the plain coefficients rough over the region, by more than
    a polynomial can follow; over the step that this takes they are smooth. Twice, because the first may be long.
    """
    single = dataclasses.replace(nodes.of("single", like=0), description="polish", unit="optimum")
    rng = np.random.default_rng([seed, 0x706F6C])
    polished, B = [target.label for target in targets], len(targets[0].at)
    shifted: Any = None
    for _ in range(2):
        tasks = [(target.label, b, theta) for target in targets for b, theta in enumerate(target.at)]
        plain = np.array(single(_Single(problem), tasks)).reshape(len(targets), B, 5)
        shifted = {
            (t.label, b): _shifted(t.surface.of_resample(b), t.at[b], plain[i, b])
            for i, t in enumerate(targets)
            for b in range(B)
        }
        for target in targets:
            target.found = [
                _minimum(shifted[target.label, b], theta, problem, target.fatol, step=0.02)
                for b, theta in enumerate(target.at)
            ]
            target.at = np.stack([minimum.theta for minimum in target.found])
    pairs, error = report.pairs.copy(), report.pair_error.copy()
    again = np.isin(pairs[:, 0], polished)
    for e in polished:
        pairs[pairs[:, 0] == e, 1] = np.resize(rng.permutation(B), (pairs[:, 0] == e).sum())
    of = {target.label: target for target in targets}
    checked = single(_Single(problem), [(int(e), int(b), of[e].at[b]) for e, b in pairs[again]])
    for row, (e, b), at in zip(np.flatnonzero(again), pairs[again], checked, strict=True):
        sd = of[e].surface.at(of[e].at[0])[1:, 1:4].std(0, ddof=1)
        error[row] = (shifted[e, b](of[e].at[b]) - at)[1:4] / sd
    return report._replace(
        pairs=pairs,
        pair_error=error,
        worst=float(np.abs(error).max()),
        polished=np.isin(np.arange(len(report.polished)), polished),
    )


def _shifted(series: Any, theta: np.ndarray, plain: np.ndarray) -> Any:
    shift = plain - series(theta)
    return lambda at: series(at) + shift


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
    nodes: Nodes = Nodes(),  # noqa: B008
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
    problem = _Problem(stars, labels, sigma, counts, actions, settings, model)
    nodes = nodes.of(f"classical {problem.digest()}", like=Coefficients(0, 0))
    table, unit = model.parameters, scales(model.parameters)
    low, high = np.array([[p.low, p.high] for p in table]).T
    start = np.array([M_DISK_START if p.name == "m_disk" else p.fiducial for p in table])
    # coefficients have a variance of about 2 var / N
    fatol = 1e-3 * (labels.var(0) ** 2 * 2 if settings.moment == "scatter" else labels.var(0)) / N
    region = Region(start, np.diag(1 / unit), PILOT, low, high, lambda theta: model.allowed(model.Parameters(*theta)))

    surfaces = report = chi_squared = None
    if surface:
        targets, report, begin, ends = _on_surfaces(problem, nodes, region, fatol, starts, checks, seed)
        poor = set(report.pairs[~(np.abs(report.pair_error) < GOOD).all(1), 0].tolist())
        chosen = [t for t in targets[:E] if polish or (polish is None and t.label in poor)]
        if chosen:
            report = _polish(problem, nodes, chosen, report, seed)
        surfaces, minima = tuple(t.surface for t in targets[:E]), [t.found for t in targets[:E]]
        if len(targets) > E:
            chi_squared = chi2.together([t.found for t in targets[E:]])
        thetas = _thetas(minima)
        at_optimum = [s.at(theta) for s, theta in zip(surfaces, thetas[:, 0], strict=True)]
        slopes = [jacobian(s.of_resample(0), t, table, 1e-3) for s, t in zip(surfaces, thetas[:, 0], strict=True)]
    else:
        begin = draw(region, starts, seed)
        tasks = [(e, b, start) for e in range(E) for b in range(bootstraps + 1)]
        more = [(e, 0, s) for e in range(E) for s in begin]
        structure: Any = Minimum(*[0] * len(Minimum._fields))  # type: ignore[arg-type]
        plain = nodes.of("minimum", like=structure, description="plain", unit="fit")
        done = plain(functools.partial(_plain, problem, fatol), tasks + more)
        done = [Minimum(m.theta, float(m.value), bool(m.converged), int(m.evaluations)) for m in done]
        minima = [done[e * (bootstraps + 1) : (e + 1) * (bootstraps + 1)] for e in range(E)]
        ends = np.array([m.theta for m in done[len(tasks) :]]).reshape(E, starts, len(table))
        thetas = _thetas(minima)
        at_optimum = [value.series[:, e] for e, value in enumerate(nodes(problem, list(thetas[:, 0])))]
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


def _plain(problem: _Problem, fatol: np.ndarray, task: tuple[int, int, np.ndarray]) -> Minimum:
    """One plain Nelder-Mead: a task of its own."""
    label, replicate, start = task
    return _minimum(problem.one(label, replicate).series, start, problem, fatol[label])
