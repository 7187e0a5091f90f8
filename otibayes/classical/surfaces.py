"""Optimisations on response surfaces: trust regions placed and grown, surfaces checked at optima, optima polished."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..base.parallel import cores, threaded
from ..base.store import Store
from ..base.surface import Region, draw
from . import chi2
from .minimum import Minimum, scales
from .near_plane import near_plane
from .objective import Coefficients
from .problem import Problem, Single, minimum_of
from .regions import Pool, covering, outermost

__all__ = ["GOOD", "SurfaceReport", "Target", "optimise_on_surfaces", "polish_optima"]

EDGE = 0.97  # an optimum further out, in units of the region's size, is on its edge
ROUNDS = 6  # of growing regions, before what is left is accepted and reported
DEGREE = 3  # of the surfaces: the roughness of the coefficients, which no degree follows, limits them at 4 as well, ...
LOW_DEGREE, LEFT_OUT = 2, 0.02  # ... and where it leaves so little out [bootstrap sd, rms], at 2
CHI2_STARTS = 8  # of the minimum on all stars
CHI2_ROUNDS = 2  # of placing the regions of chi^2, which may be as wide as the prior
OVERSAMPLING = 1.4  # nodes over polynomials
PASSES = 6  # of polishing after the first, ...
STEP = 0.02  # ... in `scales`, of the first
SETTLE = 12  # at most so many minima of an optimum between plain evaluations, ...
DAMPED = 2  # ... after so many half-way, as it may go to and fro between two places, ...
SETTLED = 0.02  # ... until it moves the coefficients by less than this [bootstrap sd]
GOOD = 0.1  # bootstrap sd: largest error of a surface at an optimum


class SurfaceReport(NamedTuple):
    """How well the surfaces stand for the plain coefficients (a1, b1, a2), all errors in units of their bootstrap sd.

    `pairs` (P, 2), random (label, replicate); `pair_error` (P, 3), what was minimised less the plain coefficients, at
    these pairs' optima; `worst`, its largest magnitude; `surface_worst`, the same before polishing; `polished`, whether
    each pair's surface was shifted to the plain coefficients at its own optimum and minimised anew; `beyond`, the share
    of all optima that remain off by more than 0.1 then;
    `roughness` (E,), rms of the plain coefficients about each label's surface, at its nodes, and `left` (E,), the same
    without the part of stars near the plane, NaN where nothing was polished; `outermost` (E,) optimum
    in units of its region's size; `edge`, how many labels have one on the edge; `nodes`, evaluations over the stars
    for all labels and replicates; `rounds`;
    `chi2_error` (E, n), of the statistics of chi^2 on their surface, at a random resample's optimum.
    """

    pairs: np.ndarray
    pair_error: np.ndarray
    worst: float
    surface_worst: float
    polished: bool
    beyond: float
    roughness: np.ndarray
    left: np.ndarray
    outermost: np.ndarray
    edge: int
    nodes: int
    rounds: int
    chi2_error: np.ndarray


@dataclass
class Target:
    """One objective of one label: its trust region, and the optima of all stars and of every resample, `at` (1 + B, d).

    The valley of equation 8 is not that of chi^2, so each has a region of its own.
    """

    problem: Problem
    label: int
    fatol: float
    which: str  # "series": equation 8; "binned": chi^2
    region: Region
    at: np.ndarray
    degree: int = DEGREE
    surface: Any = None
    found: Any = None
    outermost: float = np.inf

    def place(self) -> None:
        """The region about the optima found so far, and the degree that it needs as far as the surface tells."""
        self.region = covering(self.at, self.region, scales(self.problem.model.parameters))
        if self.which == "series":
            known = self.surface.degree == DEGREE
            self.degree = LOW_DEGREE if known and self.surface.remainder(self.region, LOW_DEGREE) < LEFT_OUT else DEGREE

    def optimise(self, pool: Pool, step: float = 0.2) -> None:
        """On a new surface, each resample from the optimum that it had."""
        self.surface = pool.surface(self.which, self.label, self.region, self.degree)
        if self.which == "binned":
            starts = self.at[:: max(1, len(self.at) // CHI2_STARTS)]  # resamples' optima are all along the valley
            self.found = chi2.fit_label(self.surface, starts, self.problem.model.parameters)
            self.at = np.stack([minimum.theta for minimum in self.found.minima])
        else:
            series = map(self.surface.of_resample, range(len(self.at)))
            self.found = [
                minimum_of(s, theta, self.problem, self.fatol, step) for s, theta in zip(series, self.at, strict=True)
            ]
            self.at = np.stack([minimum.theta for minimum in self.found])
        self.outermost = outermost(self.region, self.at)

    def error(self, resample: int, plain: Coefficients) -> np.ndarray:
        """Of what is to vanish, in bootstrap sd, at one resample's optimum, where the `plain` coefficients are."""
        binned = self.which == "binned"
        both = getattr(plain, self.which)[0, 0], self.surface.at(self.at[resample], rim=binned)
        values, every = (chi2.statistics(value) if binned else value[..., 1:4] for value in both)
        return (every[resample] - values) / every[1:].std(0, ddof=1)


def optimise_on_surfaces(
    problem: Problem, nodes: Store, region: Region, fatol: np.ndarray, starts: int, checks: int, seed: int
) -> tuple[Pool, list[Target], SurfaceReport, np.ndarray, np.ndarray]:
    """From a pilot about the start to regions in which all optima lie, and surfaces that are good enough there.

    Returns the evaluations, the targets, equation 8 for each label and then chi^2 for each, the report, and
    multi-starts and their ends.
    """
    start, table = region.centre, problem.model.parameters
    E, B = problem.labels.shape[1], len(problem.counts)
    rng = np.random.default_rng([seed, 0x70616972])
    pool = Pool(problem, nodes)
    pool.cover([(region, DEGREE)], OVERSAMPLING, seed)

    targets = [Target(problem, e, fatol[e], "series", region, np.tile(start, (B, 1))) for e in range(E)]
    for target in targets:
        target.optimise(pool, step=0.5)
    begin = draw(region, starts, seed)
    ends = np.array([[minimum_of(t.surface.of_resample(0), s, problem, t.fatol).theta for s in begin] for t in targets])
    if chi2.possible(len(problem.settings.bins) + 1 if problem.settings.bins else 0, B - 1, len(table)):
        targets += [replace(t, which="binned") for t in targets]
        for target in targets[E:]:
            target.optimise(pool)

    wanting, rounds = targets, 0
    while wanting and rounds < ROUNDS:
        rounds += 1
        for target in wanting:
            target.place()
        pool.cover([(t.region, t.degree) for t in wanting], OVERSAMPLING, seed + rounds)
        for target in wanting:
            target.optimise(pool)
        free = targets if rounds < CHI2_ROUNDS else targets[:E]
        wanting = [target for target in free if target.outermost > EDGE]
    checked = max(checks, E)
    pairs = _random_pairs(rng, checked, E, B)
    pairs += [(E + i, int(rng.integers(B))) for i in range(len(targets) - E)]
    roughness = np.array([pool.roughness(t.label, t.surface) for t in targets[:E]])
    tasks = [(targets[i].label, b, targets[i].at[b]) for i, b in pairs]
    plain = _singly(Single(problem, bins=True), nodes, tasks)
    errors = [targets[i].error(b, one) for (i, b), one in zip(pairs, plain, strict=True)]
    worst = float(np.abs(errors[:checked]).max())
    report = SurfaceReport(
        pairs=np.array(pairs[:checked]),
        pair_error=np.array(errors[:checked]),
        worst=worst,
        surface_worst=worst,
        polished=False,
        beyond=0.0,
        roughness=roughness,
        left=np.full(E, np.nan),
        outermost=np.array([target.outermost for target in targets[:E]]),
        edge=sum(target.outermost > EDGE for target in targets[:E]),
        nodes=len(pool.theta),
        rounds=rounds,
        chi2_error=np.array(errors[checked:]),
    )
    return pool, targets, report, begin, ends.reshape(E, starts, len(start))


def polish_optima(
    problem: Problem, nodes: Store, pool: Pool, targets: list[Target], report: SurfaceReport, seed: int
) -> SurfaceReport:
    """Pairs' surfaces shifted to the plain coefficients at their optimum and minimised anew, until the two agree there.

    The plain coefficients are rough over the region, by more than a polynomial can follow. What stars near the plane
    make of that is known for little; the rest of it is smooth over the step to a new optimum, but where a neighbour
    comes or goes. Every optimum is checked, and those that differ by more than is allowed go round again, by longer
    steps along the valley each time.
    """
    exact = near_plane(problem, targets[0].region.centre)
    candidates = problem.candidates(np.median(np.concatenate([target.at for target in targets]), 0))
    parts = np.array(threaded("near plane", "node")(exact, pool.theta))
    rest = [pool.surface("series", t.label, t.region, t.degree, less=parts) for t in targets]
    sd = [target.surface.at(target.at[0])[1:, 1:4].std(0, ddof=1) for target in targets]
    pending = [(e, b) for e, target in enumerate(targets) for b in range(len(target.at))]
    off = {pair: np.zeros(5) for pair in pending}  # plain coefficients less what they were taken for
    # (error, minimum, value there): across a jump there is no end to it
    best: dict[tuple[int, int], tuple[np.ndarray, Minimum, np.ndarray]] = {}

    for passes in range(PASSES + 1):

        def settled(pair: tuple[int, int], step: float = STEP * 2**passes) -> tuple[Minimum, np.ndarray, np.ndarray]:
            """A pair's minimum on its shifted surface, the coefficients there, and those it takes for the plain."""
            e, b = pair
            surface, smooth = (s.of_resample(b) for s in (targets[e].surface, rest[e]))
            minimum, shift = targets[e].found[b], np.zeros(5)
            settling = 0
            while True:
                taken = smooth(minimum.theta) + exact.of(e, b, minimum.theta) + off[pair]
                value = surface(minimum.theta) + shift
                error = value - taken
                if settling == SETTLE or np.abs(error[1:4] / sd[e]).max() < SETTLED:
                    return minimum, value, taken
                shift = shift - error * (1.0 if settling < DAMPED else 0.5)
                settling += 1
                minimum = minimum_of(_shifted(surface, shift), minimum.theta, problem, targets[e].fatol, step)

        ends = threaded("settling", "optimum")(settled, pending)
        tasks = [(*pair, minimum.theta) for pair, (minimum, *_) in zip(pending, ends, strict=True)]
        plain = _singly(Single(problem, candidates=candidates), nodes, tasks)
        left = []
        for (e, b), (minimum, value, taken), one in zip(pending, ends, plain, strict=True):
            targets[e].found[b], targets[e].at[b] = minimum, minimum.theta
            known = one.series[0, 0]
            error = (value - known)[1:4] / sd[e]
            if (e, b) not in best or np.abs(error).max() < np.abs(best[e, b][0]).max():
                best[e, b] = error, minimum, value
            if not np.abs(error).max() < GOOD:
                left.append((e, b))
                off[e, b] += known - taken
        pending = left
        if not pending:
            break
    for (e, b), (_, minimum, _) in best.items():
        targets[e].found[b], targets[e].at[b] = minimum, minimum.theta
    rng = np.random.default_rng([seed, 0x706F6C])
    pairs = _random_pairs(rng, len(report.pairs), len(targets), len(targets[0].at))
    plain = _singly(Single(problem), nodes, [(*pair, best[pair][1].theta) for pair in pairs])  # by trees alone
    error = np.array([(best[e, b][2] - p.series[0, 0])[1:4] / sd[e] for (e, b), p in zip(pairs, plain, strict=True)])
    return report._replace(
        pairs=np.array(pairs),
        pair_error=error,
        worst=float(np.abs(error).max()),
        polished=True,
        left=np.array([pool.roughness(t.label, s, less=parts) for t, s in zip(targets, rest, strict=True)]),
        beyond=float(np.mean([not np.abs(one).max() < GOOD for one, *_ in best.values()])),
    )


def _random_pairs(rng: np.random.Generator, number: int, labels: int, resamples: int) -> list[tuple[int, int]]:
    """So many (label, resample), labels in turn, none twice while there are others."""
    drawn = np.stack([rng.permutation(resamples) for _ in range(labels)])
    return [(i % labels, int(drawn[i % labels, (i // labels) % resamples])) for i in range(number)]


def _singly(function: Single, nodes: Store, tasks: list[tuple[int, int, np.ndarray]]) -> list[Coefficients]:
    """Plain coefficients of single (label, replicate, theta)."""
    kind = f"single {function.bins}" + (" of candidates" if function.candidates else "")
    nodes = nodes.of(kind, threads=cores())
    with threadpool_limits(1, "blas"):  # of all: one evaluation's end must not change another's
        return nodes.map(function, tasks, Coefficients(0, 0), "plain", "optimum")


def _shifted(series: Any, shift: np.ndarray) -> Any:
    return lambda theta: series(theta) + shift
