"""The generative path: abundances ~ a Gaussian process over actions, sampled with NUTS."""

from .checkpoint import FORGETFUL, differences, open_checkpoint
from .cosine_sums import Moments
from .data import Data, prepare
from .field import Drawn, Field, draw_all
from .likelihood import LIKELIHOODS, Likelihood
from .nuts import Settings as NutsSettings
from .posterior import Posterior, check_surface, sample_posterior
from .priors import sample_parameters
from .requirements import requirements_of, requires

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
    "requires",
    "requirements_of",
    "open_checkpoint",
    "prepare",
    "sample_parameters",
    "sample_posterior",
]
