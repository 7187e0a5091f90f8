r"""Abundances with errors of calibration that run with a star's surface gravity and temperature.

Stars at other distances are other kinds of stars, and an analysis that is off by a little for cool giants makes a
gradient in abundance where there is none (Price-Whelan et al. 2021, section 7.3). As `joint_abundances`, but

    X_n ~ Normal(f(J_n) + gamma_1 logg_n + gamma_2 Teff_n, Sigma)

with both columns, LOGG and TEFF, in units of their own scatter, and gamma's prior as wide as the polynomial trend's:
30 residual scatters. They are integrated out with the field, exactly, and the response surface carries
them like any other column. The price is what theta loses where stars' kinds follow their orbits.
"""

from typing import Any

from otibayes.models.joint_abundances import joint_abundances

from otibayes.generative import Data, GaussianField, requires


@requires(extra=("LOGG", "TEFF"))
def calibrated_abundances(data: Data) -> tuple[Any, GaussianField]:
    """Sample theta and the hyperparameters; the terms of calibration are integrated out."""
    return joint_abundances(data)
