r"""Elements wrongly taken as independent given the actions: what that costs, not what to believe.

As `joint_abundances`, but with Sigma = diag(s^2):

    X_ne ~ Normal(f_e(J_n), s_e^2)   for each element e by itself; all share theta

The residuals of a star's elements are correlated in fact (birth radius, age, the analysis of one spectrum: -0.5 between
[Mg/Fe] and [Fe/H] on APOKASC's stars, 0.92 between [Mg/Fe] and [alpha/Fe]). Taken as independent, two elements that say
the same count twice: the posterior of theta comes out too narrow, by up to a factor sqrt(2) for two copies of one.
"""

from typing import Any

import jax.numpy as jnp
from otibayes.models.joint_abundances import joint_abundances

from otibayes.generative import Data, GaussianField


def independent_elements(data: Data) -> tuple[Any, GaussianField]:
    """Sample theta and the hyperparameters, without a correlation of the elements' residuals."""
    return joint_abundances(data, correlation=jnp.eye(len(data.elements)))
