r"""Scatter with heavy tails: a star far from the field weighs less than one near it.

A multivariate t with nu = 4 degrees of freedom is a normal distribution whose precision is random,

    X_n | w_n ~ Normal(f(J_n), Sigma / w_n),     w_n ~ Gamma(nu / 2, nu / 2)

Given the weights w_n everything is as in `joint_abundances`, at the same cost and with the same response surface. They
are fixed at their expectations, w_n = (nu + E) / (nu + d_n^2), d_n the Mahalanobis distance of star n from a first
field in the fiducial mass model, by expectation-maximisation (Liu & Rubin 1995; `generative/weights.py`).

What is approximate: weights that are known, where in truth they are inferred with theta. The maximum in theta is that
of the t distribution, near the fiducial model. For t scatter the information on f is overstated by
(nu + E + 2) / (nu + E), so that sds come out 13% small for two elements, 8% for eight. An outlier is weighed as a whole
star: one bad abundance discounts its others too. Use it to see whether outliers drive an answer.
"""

from typing import Any

from otibayes.models.joint_abundances import joint_abundances

from otibayes.generative import Data, GaussianField, requires


@requires(tails=4.0)
def heavy_tails(data: Data) -> tuple[Any, GaussianField]:
    """Sample theta and the hyperparameters, outlying stars weighed down."""
    return joint_abundances(data)
