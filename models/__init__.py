"""Generative models, one a file, as a person would write them down; shipped as `otibayes.models`."""

from .joint_abundances import joint_abundances

__all__ = ["joint_abundances"]
