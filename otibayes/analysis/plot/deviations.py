"""Deviations against the vertical angle, and their coefficients against the disk's mass (PW21, Figures 5 and 6)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...base.errors import InputError
from ...base.parameters import Parameters
from ...base.store import Store
from ...classical.local_mean import deviation
from ...classical.objective import design
from ...classical.settings import ClassicalSettings
from ...classical.statistic import Statistic, make_statistic
from ...stars.preparation import PreparedStars
from ..scan import scan
from .figure import POSTERIOR, TRUTH, bracketed, new_figure

__all__ = ["plot_coefficients", "plot_deviations"]

_BINS = 32
_GRID = tuple(np.round(np.arange(0.4, 1.81, 0.1), 10).tolist())  # of m_disk, as PW21
# symbol, term, what it is sensitive to: PW21, section 6.1
_TERMS = (
    (1, r"a_1", r"\cos\theta_z", "Sun's vertical velocity"),
    (2, r"b_1", r"\sin\theta_z", "Sun's height"),
    (3, r"a_2", r"\cos 2\theta_z", "disk mass"),
    (4, r"b_2", r"\sin 2\theta_z", "null test: must vanish"),
)


def plot_deviations(
    prepared: PreparedStars,
    element: str,
    m_disk: Sequence[float] = (0.4, 1.0, 1.6),
    theta: Any = None,
    settings: ClassicalSettings = ClassicalSettings(),
    seed: int = 0,
) -> Figure:
    """Deviation of one element against theta_z in mass models of several disk masses (PW21, Figure 5).

    Each panel: means in bins of theta_z, with the weights of the fit; the Fourier series of every bootstrap resample;
    and the mean of their cos 2 theta_z terms, which vanishes in the right model. `prepared` from `oti.prepare_stars`
    with a method; the other parameters are those of `theta` (default: fiducial). Raises `InputError` for an unknown
    element, or disk masses that leave the halo no mass.
    """
    theta = Parameters() if theta is None else theta
    statistic = _statistic(prepared, element, settings, seed)
    found = scan(statistic, theta, np.sort(np.asarray(m_disk, float)))
    figure = new_figure(3.0 * len(found.values) + 0.5, 3.2)
    axes = figure.subplots(1, len(found.values), squeeze=False, sharex=True, sharey=True)[0]
    angle = np.linspace(0, 2 * np.pi, 181)
    edges = np.linspace(0, 2 * np.pi, _BINS + 1)
    height = 0.0
    for ax, mass, series in zip(axes, found.values, found.series[:, :, 0], strict=True):
        J, theta_z = statistic.actions_at(np.array(theta._replace(m_disk=float(mass))))
        delta, weight = deviation(J, statistic.labels, settings=settings)[0, :, 0], statistic.weights.chosen[:, 0]
        total, weighted = (
            np.histogram(np.mod(theta_z, 2 * np.pi), edges, weights=w)[0] for w in (weight, weight * delta)
        )
        means = np.where(total > 0, weighted / np.where(total > 0, total, 1), np.nan)
        curves = design(angle) @ series[1:].T
        ax.plot(angle, 1e3 * curves, color=POSTERIOR, lw=0.4, alpha=0.35, rasterized=True)
        ax.stairs(1e3 * means, edges, color="black", lw=1.0, baseline=None)
        ax.plot(angle, 1e3 * series[1:, 3].mean() * np.cos(2 * angle), color=TRUTH, lw=2.2)
        ax.axhline(0, color="0.6", lw=0.6, zorder=0)
        ax.set_title(rf"$M_{{\rm disk}}/M^*_{{\rm disk}} = {mass:g}$", fontsize=10)
        ax.set_xlabel(rf"$\theta_{settings.angle[-1]}$ [rad]")
        ax.set_xticks(
            [0, np.pi / 2, np.pi, 1.5 * np.pi, 2 * np.pi], ["0", r"$\pi/2$", r"$\pi$", r"$3\pi/2$", r"$2\pi$"]
        )
        ax.tick_params(direction="in", top=True, right=True)
        height = max(height, np.nanquantile(np.abs(means), 0.9) * 1e3, np.abs(curves).max() * 1e3)
    axes[0].set(xlim=(0, 2 * np.pi), ylim=(-1.25 * height, 1.25 * height))
    axes[0].set_ylabel(f"deviation of {bracketed(element)} [mdex]")
    for kind, style in {
        "mean in bins": {"color": "black", "lw": 1.0},
        f"{settings.bootstraps} bootstraps": {"color": POSTERIOR, "lw": 1.2},
        r"mean $\cos 2\theta_z$ term": {"color": TRUTH, "lw": 2.2},
    }.items():
        axes[-1].plot([], [], label=kind, **style)
    axes[-1].legend(loc="upper right", fontsize=7, framealpha=0.9)
    return figure


def plot_coefficients(
    prepared: PreparedStars,
    element: str,
    values: Sequence[float] = _GRID,
    theta: Any = None,
    settings: ClassicalSettings = ClassicalSettings(),
    seed: int = 0,
    store: Store = Store(),
) -> Figure:
    """Coefficients of one element against m_disk at `values`, with bootstrap errors (PW21, Figure 6).

    The title of a panel says what its coefficient is sensitive to. In the panel of a2 the crossing of zero and its
    error, by linear interpolation of the points and of their error bars, are marked. b2 is the null test. Arguments
    and errors otherwise as for `plot_deviations`.
    """
    theta = Parameters() if theta is None else theta
    statistic = _statistic(prepared, element, settings, seed)
    found = scan(statistic, theta, np.sort(np.asarray(values, float)), store=store)
    crossing = found.crossing(0)
    figure = new_figure(6.8, 5.4)
    axes = figure.subplots(2, 2, sharex=True)
    for ax, (i, symbol, term, sensitive) in zip(axes.flat, _TERMS, strict=True):
        sd = found.series[:, 1:, 0, i].std(1, ddof=1)
        ax.errorbar(found.values, 1e3 * found.series[:, 0, 0, i], 1e3 * sd, fmt="o", ms=4, color="black", lw=1.0)
        ax.axhline(0, color="0.6", lw=0.8, zorder=0)
        ax.set_title(rf"${symbol}$ (${term}$): {sensitive}", fontsize=9)
        ax.set_ylabel(rf"${symbol}$ [mdex]")
        ax.tick_params(direction="in", top=True, right=True)
    if np.isfinite(crossing.value):
        axes[1, 0].errorbar(
            crossing.value, 0, xerr=crossing.error, fmt="s", ms=7, color=TRUTH, lw=2, capsize=3, zorder=5,
            label=f"{crossing.value:.3f} $\\pm$ {crossing.error:.3f}",
        )  # fmt: skip
        a2 = found.series[:, 0, 0, _TERMS[2][0]]
        axes[1, 0].legend(loc="lower right" if a2[-1] > a2[0] else "upper right", fontsize=8)  # off the points
    for ax in axes[1]:
        ax.set_xlabel(r"$M_{\rm disk}/M^*_{\rm disk}$")
    figure.suptitle(bracketed(element), fontsize=11)
    return figure


def _statistic(prepared: PreparedStars, element: str, settings: ClassicalSettings, seed: int) -> Statistic:
    """Of one element, without bins of J_z."""
    if element not in prepared.elements:
        raise InputError(f"element {element} is not among the prepared stars'; found: {', '.join(prepared.elements)}")
    place = [prepared.elements.index(element)]
    return make_statistic(
        prepared.stars,
        prepared.labels[:, place],
        prepared.errors[:, place],
        actions=prepared.actions,
        settings=replace(settings, bins=0),
        seed=seed,
        model=prepared.model,
    )
