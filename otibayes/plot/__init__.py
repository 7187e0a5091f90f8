"""Figures: the only room that knows matplotlib, through its object-oriented interface."""

from .comparison import plot_comparison
from .selection import plot_selection

__all__ = ["plot_comparison", "plot_selection"]
