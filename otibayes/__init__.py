"""Orbital Torus Imaging, classical and Bayesian, through one action layer."""

from importlib import import_module
from typing import Any

from .base.jax_options import keep_compiled_programs, set_jax_option

set_jax_option("jax_enable_x64", True)  # the one place: dynamics and likelihoods need float64
keep_compiled_programs(default="off")

# The module of each public name, imported when the name is first used: a script that needs the dynamics alone does not
# wait for the samplers, and matplotlib waits for a figure.
_HOMES = {
    "InputError": "base.errors",
    "Parameters": "base.parameters",
    **dict.fromkeys(["Stars", "embedded_stars", "mock", "read_stars", "select", "write_table"], "stars"),
    "expected_distances": "stars.distances",
    "prepare_stars": "stars.preparation",
    **dict.fromkeys(
        ["MILKY_WAY", "MassModel", "PhaseSpace", "action_angle", "derived_quantities", "focal_length", "phase_space"],
        "dynamics",
    ),
    "fit_classical": "classical.fit",
    "sample": "generative.sample",
    **dict.fromkeys(["load", "save"], "results.files"),
    **dict.fromkeys(["chi2_rise", "compare"], "analysis.comparison"),
    "table_1": "analysis.table_1",
    "profiles": "analysis.profiles",
    **dict.fromkeys(["field_at", "vertical_plane"], "analysis.field"),
    "null_test": "analysis.null_test",
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
        "analysis.plot",
    ),
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
