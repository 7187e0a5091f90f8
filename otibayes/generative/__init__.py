"""The generative path: abundances ~ a Gaussian process over actions, sampled with NUTS."""

from .checkpoint import FORGETFUL, differences, open_checkpoint
from .data import Data, prepare
from .field import Drawn, Field, draw_all
from .likelihood import LIKELIHOODS, Likelihood
from .moments import Moments
from .needs import needs, needs_of
from .nuts import Settings as NutsSettings
from .priors import sample_parameters
from .sample import Posterior, check_surface, sample_posterior

__all__ = [
    "FORGETFUL",
    "LIKELIHOODS",
    "Data",
    "Drawn",
    "Field",
    "Likelihood",
    "Moments",
    "NutsSettings",
    "Posterior",
    "check_surface",
    "differences",
    "draw_all",
    "needs",
    "needs_of",
    "open_checkpoint",
    "prepare",
    "sample_parameters",
    "sample_posterior",
]
