"""Frame, mass model, actions and angles: pure JAX functions of one star, vmapped at the edge."""

from .actions import (
    ActionAngle,
    SampleActions,
    Status,
    action_angle,
    actions_of,
    focal_length,
    star_actions,
)
from .frame import PhaseSpace, galactocentric, phase_space
from .potential import MILKY_WAY, MassModel, derived_quantities, forces, halo_mass, prior_grid

__all__ = [
    "MILKY_WAY",
    "ActionAngle",
    "MassModel",
    "PhaseSpace",
    "SampleActions",
    "Status",
    "action_angle",
    "actions_of",
    "derived_quantities",
    "focal_length",
    "forces",
    "galactocentric",
    "halo_mass",
    "phase_space",
    "prior_grid",
    "star_actions",
]
