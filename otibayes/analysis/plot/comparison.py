"""Both answers in one figure."""

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
from ..comparison import check_pair
from .figure import ELEMENTS, JOINT, POSTERIOR, TRUTH, axis_label, ellipses, new_figure

__all__ = ["plot_comparison"]

_SHOWN = 1500  # draws, as points and for the contours
_INSIDE = (0.3935, 0.8647)  # of a Gaussian in two dimensions, within 1 and 2 sigma


def plot_comparison(classical: xr.DataTree, posterior: xr.DataTree) -> Figure:
    """Both answers in all projections of the parameters on two of them; with the truth, where it is known.

    The posterior's draws and their 1 and 2 sigma contours (39% and 86%); the bootstraps of each element and the joint
    constraint as ellipses of 1 and 2 sigma. Save with `figure.savefig(path)`. Raises `InputError` as `compare`.
    """
    check_pair(classical, posterior)
    names = posterior.attrs["parameters"].split(",")
    if len(names) < 2:
        raise InputError("a projection needs two parameters; the mass model has one")
    truth = json.loads(posterior.attrs["truth"])
    draws = posterior["posterior"].dataset
    sample = np.stack([draws[name].values.ravel() for name in names], -1)
    thinned = sample[:: max(1, len(sample) // _SHOWN)]
    gaussians = _gaussians(classical, names)
    limits = _limits(sample, gaussians, truth, draws, names)

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
        if names[i] in truth and names[j] in truth:
            ax.plot(truth[names[i]], truth[names[j]], "*", ms=13, color=TRUTH, mec="white", mew=0.8, zorder=5)
        ax.set(xlim=limits[i], ylim=limits[j])
        ax.tick_params(direction="in", top=True, right=True)
        if row == count - 1:
            ax.set_xlabel(axis_label(draws[names[i]]))
        if column == 0:
            ax.set_ylabel(axis_label(draws[names[j]]))
    figure.legend(handles=_legend(gaussians, bool(truth)), loc="upper right", frameon=False)
    return figure


def _gaussians(classical: xr.DataTree, names: list[str]) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """(line style with label, mean, covariance) of each element's bootstraps, and of the joint constraint."""
    replicates = classical["posterior"].dataset
    found = []
    for element, colour in zip(replicates.element.values.tolist(), itertools.cycle(ELEMENTS), strict=False):
        values = np.stack([replicates[name].sel(element=element).values.ravel() for name in names])
        style = {"color": colour, "ls": "--", "lw": 1.2, "label": f"classical, {element}"}
        found.append((style, values.mean(1), np.cov(values)))
    if "joint" in classical.children:
        joint = classical["joint"].dataset
        which = "gls" if "gls" in joint.combination.values else "product"
        one = joint.sel(combination=which)
        style = {"color": JOINT, "ls": "-", "lw": 1.5, "label": f"classical, joint ({which})"}
        found.append((style, one["mean"].values, one.covariance.values))
    return found


def _limits(
    sample: np.ndarray, gaussians: list[Any], truth: dict[str, float], draws: xr.Dataset, names: list[str]
) -> list[tuple[float, float]]:
    """Axes that hold everything to 2 sigma and a little, but no more than the bounds of a parameter."""
    limits = []
    for i, name in enumerate(names):
        low, high = np.quantile(sample[:, i], [0.002, 0.998]).tolist()
        for _, mean, covariance in gaussians:
            sd = np.sqrt(covariance[i, i])
            low, high = min(low, mean[i] - 2.1 * sd), max(high, mean[i] + 2.1 * sd)
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


def _legend(gaussians: list[Any], truth: bool) -> list[Line2D]:
    handles = [Line2D([], [], color=POSTERIOR, lw=1.8, label="posterior (1, 2 sigma)")]
    handles += [Line2D([], [], **style) for style, *_ in gaussians]
    star = {"marker": "*", "ls": "", "ms": 11, "color": TRUTH, "mec": "white", "label": "truth"}
    return handles + ([Line2D([], [], **star)] if truth else [])  # type: ignore[arg-type]
