"""The generative path: abundances ~ a Gaussian process over actions, sampled with NUTS."""

from .data import Data, prepare
from .likelihood import LIKELIHOODS, Likelihood
from .nuts import Settings as NutsSettings
from .priors import sample_parameters
from .sample import Posterior, check_surface, sample_posterior

__all__ = [
    "LIKELIHOODS",
    "Data",
    "Likelihood",
    "NutsSettings",
    "Posterior",
    "check_surface",
    "prepare",
    "sample_parameters",
    "sample_posterior",
]
