"""Constraints of equation 8 from each element and from all, as ellipses (PW21, Figures 7 and 8)."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...base.errors import InputError
from ...classical.joint import MARK
from ...dynamics import MILKY_WAY, MassModel
from ..table_1 import excluding, joint_of
from .figure import DASHES, ELEMENTS, JOINT, TRUTH, axis_label, bracketed, ellipses, new_figure

__all__ = ["plot_constraint", "plot_projections"]

_JOINTS = {"product": ("-", "joint, product"), "gls": ((0, (4, 1.5)), "joint, with cross-covariance")}
_TITLE = f"equation 8:\n{MARK}"


def plot_constraint(
    classical: xr.DataTree,
    x: str = "m_disk",
    y: str = "h_z",
    exclude: Sequence[str] = (),
    model: MassModel = MILKY_WAY,
) -> Figure:
    """1 and 2 sigma ellipses of two parameters: each element's bootstraps, and the joint constraints (PW21, Figure 7).

    Black: the paper's product of Gaussians, full, and with the cross-covariance between elements, dashed. `exclude`
    leaves elements out of the joint ones only, drawing them thin. Dotted lines: the fiducial values; star: the truth,
    where it is known. Raises `InputError` for an unknown parameter or element.
    """
    names = _parameters(classical, model)
    for name in (x, y):
        if name not in names:
            raise InputError(f"unknown parameter {name!r}; choose from {', '.join(names)}")
    figure = new_figure(6.4, 4.6)
    ax = figure.subplots()
    _panel(ax, classical, (x, y), exclude, model)
    figure.legend(
        handles=_legend(classical, exclude, model), loc="outside right upper", frameon=False, fontsize=8, title=_TITLE
    )
    return figure


def plot_projections(classical: xr.DataTree, exclude: Sequence[str] = (), model: MassModel = MILKY_WAY) -> Figure:
    """The same in all projections on two parameters (PW21, Figure 8, and 7 among them)."""
    names = _parameters(classical, model)
    count = len(names) - 1
    figure = new_figure(2.9 * count + 0.5, 2.6 * count + 0.3)
    axes = figure.subplots(count, count, squeeze=False, sharex="col", sharey="row")
    for row in range(count):
        for column in range(count):
            ax = axes[row, column]
            if column > row:
                ax.set_visible(False)
                continue
            _panel(ax, classical, (names[column], names[row + 1]), exclude, model)
            ax.label_outer()
    figure.legend(
        handles=_legend(classical, exclude, model), loc="upper right", frameon=False, fontsize=9, title=_TITLE
    )
    return figure


def _parameters(classical: xr.DataTree, model: MassModel) -> list[str]:
    if classical.attrs.get("otibayes_kind") != "classical":
        raise InputError("these figures are of a classical result; give what fit_classical made")
    excluding(classical, (), model)
    return [p.name for p in model.parameters]


def _styles(classical: xr.DataTree, exclude: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    elements = classical["posterior"].element.values.tolist()
    return [
        (
            element,
            {
                "color": ELEMENTS[i % len(ELEMENTS)],
                "ls": DASHES[i % len(DASHES)],
                "lw": 0.7 if element in exclude else 1.4,
            },
        )
        for i, element in enumerate(elements)
    ]


def _panel(ax: Axes, classical: xr.DataTree, pair: tuple[str, str], exclude: Sequence[str], model: MassModel) -> None:
    draws = classical["posterior"].dataset
    names = [p.name for p in model.parameters]
    places = [names.index(name) for name in pair]
    reach = []
    for element, style in _styles(classical, exclude):
        values = np.stack([draws[name].sel(element=element).values.ravel() for name in pair])
        mean, covariance = values.mean(1), np.cov(values)
        ellipses(ax, mean, covariance, style)
        reach += [mean - 2.2 * np.sqrt(np.diag(covariance)), mean + 2.2 * np.sqrt(np.diag(covariance))]
    for name, joint in joint_of(classical, exclude, model).items():
        style = {"color": JOINT, "ls": _JOINTS[name][0], "lw": 2.0}
        ellipses(ax, joint.mean[places], joint.covariance[np.ix_(places, places)], style)
    rows = {p.name: p for p in model.parameters}
    ax.axvline(rows[pair[0]].fiducial, color="0.5", ls=":", lw=0.9, zorder=0)
    ax.axhline(rows[pair[1]].fiducial, color="0.5", ls=":", lw=0.9, zorder=0)
    truth = json.loads(classical.attrs["truth"])
    if set(pair) <= truth.keys():
        at = np.array([truth[name] for name in pair])
        ax.plot(*at, "*", ms=12, color=TRUTH, mec="white", mew=0.8, zorder=6)
        reach.append(at)
    # weak elements would hide the strong: the middle of what all need
    low, high = np.quantile(np.array(reach), [0.0, 1.0], axis=0)
    bounds = np.array([[rows[name].low, rows[name].high] for name in pair]).T
    margin = 0.03 * (high - low)
    low, high = np.maximum(low - margin, bounds[0] - margin), np.minimum(high + margin, bounds[1] + margin)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set(xlabel=axis_label(draws[pair[0]]), ylabel=axis_label(draws[pair[1]]))
    ax.tick_params(direction="in", top=True, right=True)


def _legend(classical: xr.DataTree, exclude: Sequence[str], model: MassModel) -> list[Line2D]:
    handles = [
        Line2D([], [], label=bracketed(element) + (" (not in joint)" if element in exclude else ""), **style)
        for element, style in _styles(classical, exclude)
    ]
    for name in joint_of(classical, exclude, model):
        dashes, label = _JOINTS[name]
        handles.append(Line2D([], [], color=JOINT, ls=dashes, lw=2.0, label=label))
    if json.loads(classical.attrs["truth"]):
        handles.append(Line2D([], [], marker="*", ls="", ms=11, color=TRUTH, mec="white", label="truth"))
    return handles
