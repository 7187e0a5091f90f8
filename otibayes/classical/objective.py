"""The classical objective as the procedure box of PW21, section 6.2, lists it: stars and theta in, coefficients out.

`plain_coefficients` is the procedure as the paper reads, for one element and one resample, to be checked against it;
`coefficients` is the same for every element and resample at once, which is what everything runs on.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.spatial import cKDTree

from ..dynamics.frame import PhaseSpace, phase_space
from ..dynamics.trend import detrended
from .deviation import Neighbours, over_blocks
from .fourier import coefficient_names, design, normal_equations, solve
from .neighbours import Candidates

__all__ = [
    "ANGLES",
    "BINNED",
    "MOMENTS",
    "AtTheta",
    "Coefficients",
    "Settings",
    "at_theta",
    "coefficients",
    "deviations",
    "objective",
    "of_stars",
    "plain_coefficients",
]

Actions = Callable[[PhaseSpace, Any], Any]

ANGLES, MOMENTS = ("theta_z", "theta_R"), ("mean", "scatter")
BINNED = (1, 2, 4)  # harmonics of the coefficients in bins of J_z


class Settings(NamedTuple):
    """What the paper fixes and a variant may change.

    `neighbours` K; `own_copies`, whether a star's copies in a resample are its neighbours; `gradient`, whether the
    local mean is weighted (A5) or naive (A1); `angle`, "theta_z" or "theta_R"; `moment` of a label, its "mean" or
    "scatter"; `every`, whether c0 and b2 are in the objective. Ours: `detrended`, whether labels lose their gross form
    in the actions (`detrended`) before any mean over neighbours; `bins`, edges in J_z [kpc km/s] between which
    the coefficients are found separately, always of detrended labels.
    """

    neighbours: int = Neighbours().number
    own_copies: bool = False
    gradient: bool = True
    angle: str = "theta_z"
    moment: str = "mean"
    every: bool = False
    detrended: bool = False
    bins: tuple[float, ...] = ()


class Coefficients(NamedTuple):
    """`series` (B, E, 5), c0 a1 b1 a2 b2 of equation 3; `binned` (B, E, bins, 7), with a4 b4, for bins of J_z.

    In the labels' unit; of the scatter, its square.
    """

    series: Any
    binned: Any


def plain_coefficients(
    theta: Any,
    stars: Any,
    label: np.ndarray,
    sigma: np.ndarray,
    draws: np.ndarray,
    actions: Actions,
    neighbours: int = Neighbours().number,
) -> np.ndarray:
    """(c0, a1, b1, a2, b2) of one label on one resample, steps 1 to 6 of PW21's procedure as they read.

    `theta` a `Parameters`; `stars` N of them; `label` and `sigma` (N,); `draws`, the resample as indices of stars (all
    stars: 0 to N - 1); `actions(w, theta)` gives an `ActionAngle` of phase space `w`. Slow; for comparison.
    """
    w = phase_space(stars, theta)  # 2
    aa = actions(w, theta)  # 1 (the halo is part of the mass model), 3 and 4
    J = np.stack([aa.J_R, aa.L_z, aa.J_z], -1)[draws]
    theta_z, y = np.asarray(aa.theta_z)[draws], label[draws]
    _, near = cKDTree(J).query(J, k=neighbours + np.bincount(draws).max())
    deviation = np.empty(len(draws))
    for n in range(len(draws)):
        k = near[n][draws[near[n]] != draws[n]][:neighbours]  # a star and its copies are not its neighbours
        x = J[k].mean(0) - J[n]  # A2
        xi = (J[k] - J[n]) @ x  # A3
        w_k = xi * xi.sum() - (xi**2).sum()  # A6
        mean = (w_k * y[k]).sum() / w_k.sum() if xi.any() else y[k].mean()  # A5, or A1 where A2 underflows
        deviation[n] = y[n] - mean  # 5: equation 2
    M = np.stack([np.ones_like(theta_z), *(f(m * theta_z) for m in (1, 2) for f in (np.cos, np.sin))], -1)  # 4
    C_inverse = sigma[draws, None] ** -2.0  # 6, its diagonal
    return np.linalg.solve(M.T @ (C_inverse * M), M.T @ (C_inverse[:, 0] * deviation))  # step 6: equation 7


def coefficients(
    theta: Any,
    stars: Any,
    labels: Any,
    sigma: Any,
    counts: Any,
    actions: Actions,
    settings: Settings = Settings(),  # noqa: B008
    candidates: Candidates | None = None,
) -> Coefficients:
    """Fourier coefficients of every label and resample, for one theta (PW21, steps 1 to 6).

    `theta` is a `Parameters`; `stars` N of them; `labels` and `sigma` (N, E) hold any labels and their errors in one
    unit (None: equal); `counts` (B, N) how often each star was drawn in each resample (None: one, every star once).
    `actions(w, theta)` gives an `ActionAngle` of phase space `w`, that is `SampleActions` or another function; where it
    holds something of each star, `actions.of(chosen)` is the same for the stars `chosen`. `candidates` of the N stars,
    at a theta not far away, save most of the search for neighbours.

    Where the stars are few, their mean over neighbours (A5) is off by what the field bends there, and the outer stars'
    deviations with it, systematically. Labels less their regression on the actions' wide terms bend little; a
    regression of all stars serves every resample.
    """
    sample = at_theta(theta, stars, labels, sigma, counts, actions, settings)
    E = sample.y.shape[1]
    M = design(sample.angle, BINNED) if settings.bins else design(sample.angle)
    place = np.digitize(sample.J[:, 2], settings.bins)
    bins = len(settings.bins) + 1 if settings.bins else 0

    def equations(chosen: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        drawn = sample.counts[:, chosen]
        return normal_equations(M[chosen], found, sample.inverse[chosen], drawn, place[chosen], max(bins, 1))

    parts = deviations(equations, sample, settings, candidates)
    normal, projection = functools.reduce(lambda one, other: jax.tree.map(operator.add, one, other), parts)
    T = len(coefficient_names())  # the series' terms are the first of a bin's
    series = solve(normal[..., :T, :T].sum(0), projection[..., :E, :T].sum(0))
    if not bins:
        return Coefficients(series, np.zeros((*series.shape[:2], 0, len(coefficient_names(BINNED)))))
    return Coefficients(series, np.stack([*solve(normal, projection[..., -E:, :])], 2))


class AtTheta(NamedTuple):
    """What one theta makes of N stars: their actions `J` (N, 3) [kpc km/s] and `angle` (N,) [rad].

    `stars` (N,), which of the catalogue's they are; centred labels `y` (N, E), `inverse` variances (N, 1 or E) and
    `counts` (B, N); `ways`, the labels whose deviations are sought, one (N, E or, for the scatter, 2 E) each: as they
    are, for the series, and less their gross form, for bins, or for both.
    """

    J: np.ndarray
    angle: np.ndarray
    stars: np.ndarray
    y: np.ndarray
    inverse: np.ndarray
    counts: np.ndarray
    ways: list[np.ndarray]


def at_theta(
    theta: Any, stars: Any, labels: Any, sigma: Any, counts: Any, actions: Actions, settings: Settings
) -> AtTheta:
    """Arguments as for `coefficients`. A single resample keeps only its stars, where others do not matter."""
    w, y = phase_space(stars, theta), np.asarray(labels, float)
    y = y - y.mean(0)
    counts = np.ones((1, len(y)), int) if counts is None else np.asarray(counts)
    scatter, gross = settings.moment == "scatter", bool(settings.detrended or settings.bins)
    equal = sigma is None or scatter
    inverse = np.ones((len(y), 1)) if equal else np.asarray(sigma, float) ** -2.0
    drawn = np.arange(len(y))
    if len(counts) == 1 and not gross:  # stars that were not drawn weigh nothing, and are a third of all
        drawn = np.flatnonzero(counts[0])
        w, actions = PhaseSpace(*(np.asarray(x)[drawn] for x in w)), of_stars(actions, drawn)
        y, inverse, counts = y[drawn], inverse[drawn], counts[:, drawn]
    aa = actions(w, theta)
    J = np.stack([np.asarray(aa.J_R), np.asarray(aa.L_z), np.asarray(aa.J_z)], -1)
    used = np.concatenate([y, y**2], 1) if scatter else y
    ways = [used] if not settings.detrended else []
    if gross:
        ways.append(detrended(J, used))
    return AtTheta(J, np.asarray(getattr(aa, settings.angle)), drawn, y, inverse, counts, ways)


def of_stars(actions: Actions, chosen: np.ndarray) -> Actions:
    """The same of the stars `chosen` only."""
    return actions.of(chosen) if hasattr(actions, "of") else actions


def deviations(
    use: Callable[[np.ndarray, np.ndarray], Any],
    sample: AtTheta,
    settings: Settings,
    candidates: Candidates | None = None,
) -> Iterator[Any]:
    """What `use` makes of stars (S,) and the deviations (S, ways E, B) of their labels or scatters, block by block."""
    y = sample.y

    def used(chosen: np.ndarray, found: np.ndarray) -> Any:
        if settings.moment == "scatter":
            # y less the local mean m, squared, less its own local mean <y^2> - m^2; <> are the same weighted means
            pairs = [np.split(way, 2, 1) for way in np.split(found, len(sample.ways), 1)]
            found = np.concatenate([second - 2 * (y[chosen, :, None] - first) * first for first, second in pairs], 1)
        return use(chosen, found)

    neighbours = Neighbours(settings.neighbours, settings.own_copies, settings.gradient)
    candidates = None if candidates is None else candidates.of(sample.stars)
    return over_blocks(used, sample.J, np.concatenate(sample.ways, 1), sample.counts, neighbours, candidates)


def objective(series: Any, every: bool = False) -> Any:
    """a1^2 + b1^2 + a2^2 over the last axis of (c0, a1, b1, a2, b2) (PW21, equation 8).

    `every=True` adds c0^2 and b2^2, the variant that the paper verified to change little.
    """
    chosen = series if every else series[..., 1:4]
    return (chosen**2).sum(-1)  # step 7
