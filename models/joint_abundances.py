r"""The four-parameter, many-element model: abundances depend on the actions, and on nothing else.

For star n with actions J_n(theta) and abundances X_n (E elements, standardised by the sample's own mean and sd),

    theta ~ the parameter table            m_disk, h_z, z_sun, vz_sun
    X_n   ~ Normal(f(J_n), Sigma)          Sigma = diag(s) C diag(s), with the measurement errors in it
    f_e   = beta_e . w(J_n) + GP(0, a_e^2 k)
    w     = J_R, J_z, and all products of up to two of ln(1 + J_R / 30), (L_z - L_0) / 300, ln(1 + J_z / 10)
    k     = squared exponential in (sqrt J_R, L_z, sqrt J_z), made even in both roots, lengths l (3,)

    l   ~ LogNormal(log 3, 0.5)    a field that bends over the width of the disk or hardly, not within a fraction of it
    a_e ~ LogNormal(log 0.5, 0.5)  half the scatter of the sample, within a factor of 3
    s_e ~ LogNormal(log 0.9, 0.3)  most of that scatter is not explained by the actions
    C   ~ LKJ(2)

beta is integrated out with a wide prior, 30 residual scatters per unit, and the process with its own. The model is
conditional on where stars lie, so that no selection in phase space matters. J_n(theta) stands for labels of orbits that
theta, averaged over the stars, leaves alone (`otibayes.generative.relabelling`).
"""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from otibayes.generative import Data, GaussianField, sample_parameters


def joint_abundances(data: Data, correlation: Any = None) -> tuple[Any, GaussianField]:
    """Sample theta and the hyperparameters of all elements jointly.

    `correlation`, the Cholesky factor of C (E, E), is sampled where it is not given.
    """
    theta = sample_parameters(data.model)
    elements = len(data.elements)
    lengths = numpyro.sample("length_scale", dist.LogNormal(jnp.log(3.0), 0.5).expand([3]).to_event(1))
    amplitude = numpyro.sample("amplitude", dist.LogNormal(jnp.log(0.5), 0.5).expand([elements]).to_event(1))
    scatter = numpyro.sample("scatter", dist.LogNormal(jnp.log(0.9), 0.3).expand([elements]).to_event(1))
    if correlation is None and elements == 1:
        correlation = jnp.eye(1)
    if correlation is None:
        correlation = numpyro.sample("correlation_cholesky", dist.LKJCholesky(elements, 2.0))
    return theta, GaussianField(lengths, amplitude, scatter[:, None] * correlation)
