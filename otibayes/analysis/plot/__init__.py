"""Figures: the only room that knows matplotlib, through its object-oriented interface."""

from .abundances import plot_mean_abundances, plot_orbits
from .comparison import plot_comparison
from .constraints import plot_constraint, plot_projections
from .deviations import plot_coefficients, plot_deviations
from .posterior import plot_field, plot_null_test, plot_profiles
from .selection import plot_selection

__all__ = [
    "plot_coefficients",
    "plot_comparison",
    "plot_constraint",
    "plot_deviations",
    "plot_field",
    "plot_mean_abundances",
    "plot_null_test",
    "plot_orbits",
    "plot_profiles",
    "plot_projections",
    "plot_selection",
]
