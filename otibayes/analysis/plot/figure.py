"""What figures share: a figure that shows itself, colours that everyone can tell apart, labels."""

import io
import re
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ...stars.values import is_element

__all__ = [
    "DASHES",
    "ELEMENTS",
    "JOINT",
    "POSTERIOR",
    "TRUTH",
    "axis_label",
    "bracketed",
    "ellipses",
    "in_dex",
    "new_figure",
]

# Okabe & Ito (2008): told apart by all common kinds of colour vision; also by dashes, for print
POSTERIOR, JOINT, TRUTH = "#0072B2", "#000000", "#D55E00"
ELEMENTS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#999999", "#B8A800", "#882255", "#0072B2")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


class _Shown(Figure):
    """A figure that shows itself in a notebook, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure [inches], laid out by constraint, which shows itself in a notebook; without pyplot."""
    figure = _Shown(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bracketed(element: str) -> str:
    """[Mg/Fe] for MG_FE or [Mg/Fe]; any other label as it is."""
    if not is_element(element):
        return element.replace("$", r"\$")  # which would begin a formula
    parts = re.split("[_/]", element.strip("[]").upper())
    above, below = (r"\alpha" if part == "ALPHA" else rf"\mathrm{{{part.capitalize()}}}" for part in parts)
    return f"$[{above}/{below}]$"


def in_dex(element: str) -> str:
    """An axis label of an element with its unit; the unit of any other label is not known."""
    return f"{bracketed(element)} [dex]" if is_element(element) else bracketed(element)


def axis_label(variable: xr.DataArray) -> str:
    """Its symbol and, in brackets, its unit."""
    unit = variable.attrs.get("units", "")
    return f"${variable.attrs.get('symbol', variable.name)}$" + (f" [{unit}]" if unit else "")


def ellipses(ax: Axes, mean: np.ndarray, covariance: np.ndarray, style: dict[str, Any]) -> None:
    """Draw a Gaussian's ellipses of 1 and 2 sigma."""
    values, vectors = np.linalg.eigh(covariance)
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    for sigmas in (1, 2):
        height, width = 2 * sigmas * np.sqrt(np.maximum(values, 0))
        drawn = {name: style[name] for name in ("color", "ls", "lw")}
        ax.add_patch(Ellipse(tuple(mean), width, height, angle=angle, fill=False, zorder=3, **drawn))
