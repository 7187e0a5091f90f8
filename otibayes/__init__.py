"""Orbital Torus Imaging, classical and Bayesian, through one action layer."""

import jax

jax.config.update("jax_enable_x64", True)  # the one place: dynamics and likelihoods need float64

from importlib import import_module  # noqa: E402
from typing import Any  # noqa: E402

# Not lazily: importing the module of that name would otherwise put it in the function's place.
from .compare import chi2_rise, compare  # noqa: E402

# The module of each other public name, imported when first asked for: neither the command line's help nor a script
# that needs the dynamics alone waits for the samplers, and matplotlib waits for a figure.
_HOMES = {
    "InputError": "errors",
    "Parameters": "parameters",
    **dict.fromkeys(["Stars", "embedded_stars", "mock", "read_stars", "select", "write_table"], "stars"),
    **dict.fromkeys(
        ["MILKY_WAY", "MassModel", "PhaseSpace", "action_angle", "derived_quantities", "focal_length", "phase_space"],
        "dynamics",
    ),
    **dict.fromkeys(["classical_problem", "fit_classical", "sample"], "inference"),
    "table_1": "tables",
    **dict.fromkeys(["load", "save"], "results"),
    "profiles": "curves",
    **dict.fromkeys(["field_at", "vertical_plane"], "field"),
    "null_test": "nulltest",
    **dict.fromkeys(
        [
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
        ],
        "plot",
    ),
}

__all__ = ["chi2_rise", "compare", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
