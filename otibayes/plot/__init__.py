"""Figures: the only room that knows matplotlib, through its object-oriented interface."""

from .comparison import plot_comparison
from .posterior import plot_field, plot_null_test, plot_profiles
from .selection import plot_selection

__all__ = ["plot_comparison", "plot_field", "plot_null_test", "plot_profiles", "plot_selection"]
