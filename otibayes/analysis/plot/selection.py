"""What to look at in a selection of stars."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from ...base.constants import R0
from ...base.errors import InputError
from ...base.parameters import Parameters
from ...dynamics import phase_space
from ...stars import Stars
from .figure import TRUTH, in_dex, new_figure

__all__ = ["plot_selection"]


def plot_selection(
    stars: Stars, cuts: Mapping[str, Mapping[str, Any]] | None = None, parent: Stars | None = None
) -> Figure:
    """What to look at in a selection (PW21, Fig. 1): its chemical plane with the polygons of a recipe's `cuts`, the
    Galactic plane seen from above, and (z, v_z), in the frame of the fiducial mass model.

    The chemical plane is that of the first polygon, or of FE_H and MG_FE, and shows `parent`: best the stars that pass
    every cut but the polygon, since those inside do not tell whether it follows the gap between the sequences.
    Raises `InputError` where there is no star.
    """
    if len(stars) == 0:
        raise InputError("a figure needs stars; there are none")
    polygons = [cut for cut in (cuts or {}).values() if cut["kind"] == "in_polygon"]
    x, y = (polygons[0][axis].upper() for axis in "xy") if polygons else ("FE_H", "MG_FE")
    w = phase_space(stars, Parameters())
    figure = new_figure(11.5, 3.7)
    chemistry, plane, vertical = figure.subplots(1, 3)
    shown = (stars if parent is None else parent).abundances
    if {x, y} <= shown.keys():
        _counts(figure, chemistry, shown[x], shown[y])
        for polygon in polygons:
            corners = np.array(polygon["vertices"])
            chemistry.fill(*corners.T, fill=False, ec=TRUTH, lw=1.5)
    else:
        chemistry.text(0.5, 0.5, f"no {x} and {y}\nin this table", ha="center", transform=chemistry.transAxes)
    chemistry.set(xlabel=in_dex(x), ylabel=in_dex(y))
    _counts(figure, plane, -w.R * np.cos(w.phi), w.R * np.sin(w.phi))
    plane.plot(-R0, 0, "*", ms=12, color=TRUTH, mec="white")  # the Sun
    plane.set(xlabel="x [kpc]", ylabel="y [kpc]", aspect="equal")
    _counts(figure, vertical, w.z, w.vz)
    vertical.set(xlabel="z [kpc]", ylabel=r"$v_z$ [km/s]")
    return figure


def _counts(figure: Figure, ax: Axes, x: Any, y: Any) -> None:
    """Stars in hexagons, but for the outermost 1 in 1000 of either coordinate where there are as many."""
    x, y = np.asarray(x), np.asarray(y)
    tail = 0.0005 if x.size > 1000 else 0.0
    (left, right), (low, high) = (np.nanquantile(values, [tail, 1 - tail]) for values in (x, y))
    shown = (x >= left) & (x <= right) & (y >= low) & (y <= high)
    hexagons = ax.hexbin(x[shown], y[shown], gridsize=60, bins="log", mincnt=1, cmap="viridis", linewidths=0.1)
    bar = figure.colorbar(hexagons, ax=ax, label="stars", shrink=0.85, ticks=LogLocator(subs=(1, 2, 5)), format="%d")
    bar.minorticks_off()
    ax.tick_params(direction="in", top=True, right=True)
