"""Three answers in one figure: equation 8, chi^2 and the posterior."""

import itertools
import json
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import gaussian_kde

from ...base.errors import InputError
from ...classical.joint import MARK
from ..comparison import check_pair
from .figure import ELEMENTS, JOINT, POSTERIOR, TRUTH, axis_label, ellipses, new_figure

__all__ = ["plot_comparison"]

_SHOWN = 1500  # draws, as points and for the contours
_INSIDE = (0.3935, 0.8647)  # of a Gaussian in two dimensions, within 1 and 2 sigma


def plot_comparison(classical: xr.DataTree, posterior: xr.DataTree) -> Figure:
    """Three answers in all projections of the parameters on two of them; with the truth, where it is known.

    Equation 8, whose errors are across its valley only: ellipses of 1 and 2 sigma, dashed for each element and full for
    the joint constraint. chi^2: a square for each element with its 68% profile intervals, up to the bound where a side
    is open. The posterior: draws, and contours of 1 and 2 sigma (39% and 86%). Save with `figure.savefig(path)`. Raises
    `InputError` as `compare`.
    """
    check_pair(classical, posterior)
    names = posterior.attrs["parameters"].split(",")
    if len(names) < 2:
        raise InputError("a projection needs two parameters; the mass model has one")
    truth = json.loads(posterior.attrs["truth"])
    draws = posterior["posterior"].dataset
    sample = np.stack([draws[name].values.ravel() for name in names], -1)
    thinned = sample[:: max(1, len(sample) // _SHOWN)]
    gaussians, chi2 = _gaussians(classical, names), _chi2(classical, names)
    limits = _limits(sample, gaussians, chi2, truth, draws, names)

    count = len(names) - 1
    figure = new_figure(2.9 * count + 0.6, 2.7 * count + 0.4)
    axes = figure.subplots(count, count, squeeze=False, sharex="col", sharey="row")
    for row, column in itertools.product(range(count), repeat=2):
        ax, (i, j) = axes[row, column], (column, row + 1)
        if column > row:
            ax.set_visible(False)
            continue
        ax.plot(thinned[:, i], thinned[:, j], ".", ms=2, color=POSTERIOR, alpha=0.15, mew=0, rasterized=True)
        _contours(ax, thinned[:, [i, j]], limits[i], limits[j])
        for style, mean, covariance in gaussians:
            ellipses(ax, mean[[i, j]], covariance[np.ix_([i, j], [i, j])], style)
        for style, optimum, interval in chi2:
            error = np.abs(interval - optimum[:, None])
            at = {"xerr": error[[i]].T, "yerr": error[[j]].T}
            ax.errorbar(*optimum[[i, j]], **at, **style, mec="black", mew=0.6, zorder=4)
        if names[i] in truth and names[j] in truth:
            ax.plot(truth[names[i]], truth[names[j]], "*", ms=13, color=TRUTH, mec="white", mew=0.8, zorder=5)
        ax.set(xlim=limits[i], ylim=limits[j])
        ax.tick_params(direction="in", top=True, right=True)
        if row == count - 1:
            ax.set_xlabel(axis_label(draws[names[i]]))
        if column == 0:
            ax.set_ylabel(axis_label(draws[names[j]]))
    figure.legend(handles=_legend(gaussians, chi2, bool(truth)), loc="upper right", frameon=False)
    return figure


def _gaussians(classical: xr.DataTree, names: list[str]) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """(line style with label, mean, covariance) of equation 8: each element's bootstraps, and the joint constraint."""
    replicates = classical["posterior"].dataset
    found = []
    for element, colour in zip(replicates.element.values.tolist(), itertools.cycle(ELEMENTS), strict=False):
        values = np.stack([replicates[name].sel(element=element).values.ravel() for name in names])
        style = {"color": colour, "ls": "--", "lw": 1.2, "label": f"eq. 8*, {element}"}
        found.append((style, values.mean(1), np.cov(values)))
    joint = classical["joint"].dataset if "joint" in classical.children else None
    for which in ("gls", "product"):
        if joint is not None and which in joint.combination.values:
            one = joint.sel(combination=which)
            style = {"color": JOINT, "ls": "-", "lw": 1.5, "label": f"eq. 8*, joint ({which})"}
            return [*found, (style, one["mean"].values, one.covariance.values)]
    return found


def _chi2(classical: xr.DataTree, names: list[str]) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """(style with label, optimum (d,), interval (d, 2)) of each element; an open side ends at the parameter's bound."""
    if "chi2" not in classical.children:
        return []
    chi2 = classical["chi2"].dataset
    bounds = np.array([[chi2[name].attrs[side] for side in ("low", "high")] for name in names])
    found = []
    for element, colour in zip(chi2.element.values.tolist(), itertools.cycle(ELEMENTS), strict=False):
        one = chi2.sel(element=element)
        interval = one.interval.sel(parameter=names).values
        style = {"color": colour, "fmt": "s", "ms": 6, "lw": 1.6, "label": f"chi$^2$, {element} (68%)"}
        optimum = np.array([float(one[name]) for name in names])
        found.append((style, optimum, np.where(np.isfinite(interval), interval, bounds)))
    return found


def _limits(
    sample: np.ndarray,
    gaussians: list[Any],
    chi2: list[Any],
    truth: dict[str, float],
    draws: xr.Dataset,
    names: list[str],
) -> list[tuple[float, float]]:
    """Axes that hold everything to 2 sigma and a little, but no more than the bounds of a parameter."""
    limits = []
    for i, name in enumerate(names):
        low, high = np.quantile(sample[:, i], [0.002, 0.998]).tolist()
        for _, mean, covariance in gaussians:
            sd = np.sqrt(covariance[i, i])
            low, high = min(low, mean[i] - 2.1 * sd), max(high, mean[i] + 2.1 * sd)
        for _, _, interval in chi2:
            low, high = min(low, interval[i, 0]), max(high, interval[i, 1])
        low, high = max(low, draws[name].attrs.get("low", low)), min(high, draws[name].attrs.get("high", high))
        known = truth.get(name, low)
        low, high = min(low, known), max(high, known)
        margin = 0.04 * (high - low) or 0.5
        limits.append((low - margin, high + margin))
    return limits


def _contours(ax: Axes, points: np.ndarray, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Highest-density contours of the points; none where they do not span a plane."""
    spread = np.linalg.eigvalsh(np.corrcoef(points.T)) if (points.std(0) > 0).all() else np.zeros(2)
    if len(points) < 20 or spread[0] < 1e-9:
        return
    density = gaussian_kde(points.T)
    low, high = points.min(0), points.max(0)
    pad = 0.15 * (high - low)
    grid = np.meshgrid(*np.linspace(np.maximum(low - pad, [x[0], y[0]]), np.minimum(high + pad, [x[1], y[1]]), 80).T)
    values = density(np.stack([g.ravel() for g in grid])).reshape(grid[0].shape)
    ordered = np.sort(values.ravel())[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    levels = sorted({float(ordered[np.searchsorted(mass, inside)]) for inside in _INSIDE})
    ax.contour(*grid, values, levels=levels, colors=POSTERIOR, linewidths=1.8)


def _legend(gaussians: list[Any], chi2: list[Any], truth: bool) -> list[Line2D]:
    handles = [Line2D([], [], color=POSTERIOR, lw=1.8, label="posterior (1, 2 sigma)")]
    handles += [Line2D([], [], color=s["color"], marker="s", lw=s["lw"], label=s["label"]) for s, *_ in chi2]
    handles += [Line2D([], [], **style) for style, *_ in gaussians]
    if truth:
        handles.append(Line2D([], [], marker="*", ls="", ms=11, color=TRUTH, mec="white", label="truth"))
    return [*handles, Line2D([], [], ls="", label=f"* {MARK}")]
