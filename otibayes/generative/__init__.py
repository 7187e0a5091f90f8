"""The generative path: abundances ~ a Gaussian process over actions, sampled with NUTS."""

from .checkpoint import FORGETFUL, differences, open_checkpoint
from .data import Data, prepare
from .likelihood import LIKELIHOODS, Likelihood
from .nuts import Settings as NutsSettings
from .priors import sample_parameters
from .sample import Posterior, check_surface, sample_posterior

__all__ = [
    "FORGETFUL",
    "LIKELIHOODS",
    "Data",
    "Likelihood",
    "NutsSettings",
    "Posterior",
    "check_surface",
    "differences",
    "open_checkpoint",
    "prepare",
    "sample_parameters",
    "sample_posterior",
]
