r"""One element alone, so that the answers of elements can be compared (Price-Whelan et al. 2021, figures 7 and 8).

The model of `joint_abundances` with E = 1: for star n with actions J_n(theta) and abundance X_n,

    theta ~ the parameter table
    X_n   ~ Normal(f(J_n), s^2)
    f     = beta . w(J_n) + GP(0, a^2 k)

Sample each element on the *same* stars, those that have them all, and compare: elements share stars and their residuals
are correlated, so that a product of their posteriors claims too much; `joint_abundances` is what combines them.

    complete = stars.with_elements(["MG_FE", "FE_H"])
    each = {e: oti.sample(complete, [e], model="one_element") for e in complete.abundances}
"""

from typing import Any

from otibayes.models.joint_abundances import joint_abundances

from otibayes.base.errors import InputError
from otibayes.generative import Data, GaussianField


def one_element(data: Data) -> tuple[Any, GaussianField]:
    """Sample theta and the hyperparameters of one element; `InputError` for several."""
    if len(data.elements) != 1:
        raise InputError(
            f"the model one_element is for one element; got {', '.join(data.elements)}: name one (--elements), or"
            " use joint_abundances"
        )
    return joint_abundances(data)
