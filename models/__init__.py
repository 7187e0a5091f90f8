"""Generative models, one a file, as a person would write them down; shipped as `otibayes.models`."""

from .calibrated_abundances import calibrated_abundances
from .free_circular_velocity import free_circular_velocity
from .heavy_tails import heavy_tails
from .independent_elements import independent_elements
from .joint_abundances import joint_abundances
from .one_element import one_element

__all__ = [
    "calibrated_abundances",
    "free_circular_velocity",
    "heavy_tails",
    "independent_elements",
    "joint_abundances",
    "one_element",
]
