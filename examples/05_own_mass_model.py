# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your own mass model and priors
#
# A mass model is a sum of potentials and a table of parameters. Both paths take one, and actions
# and derived quantities follow from it. Here: first other priors for the default model, then a
# model with a second, thick disk.

# %%
import dataclasses
import os

import arviz as az
import jax.numpy as jnp

import otibayes as oti
from otibayes.base import constants as const
from otibayes.base.parameters import Parameter
from otibayes.dynamics import halo_mass
from otibayes.dynamics.potential import miyamoto_nagai, nfw

QUICK = bool(os.environ.get("OTIBAYES_QUICK"))
oti.MILKY_WAY

# %% [markdown]
# ## Other priors
#
# A row of the table is a name, a TeX symbol, a unit, a fiducial value, bounds, and, for a Gaussian
# prior, its standard deviation. Say that star counts give h_z = 0.28 +- 0.03 kpc:

# %%
rows = [p._replace(prior_sd=0.03) if p.name == "h_z" else p for p in oti.MILKY_WAY.parameters]
thin = dataclasses.replace(oti.MILKY_WAY, parameters=tuple(rows))
thin

# %% [markdown]
# ## A second disk
#
# A component is a function of R, z [kpc] and theta that returns a potential [(km/s)^2]. It must be
# made of JAX operations, because its derivatives are taken. The new parameter is theta.m_thick, in
# 10^10 Msun.

# %%
A_THICK, B_THICK = 2.0, 0.9  # kpc


def thick(R, z, theta):
    return miyamoto_nagai(R, z, theta.m_thick * 1e10, A_THICK, B_THICK)


# %% [markdown]
# The halo is solved again, so that the circular velocity at the Sun stays at 229 km/s: what the
# thick disk supplies is taken from what the halo has to supply.


# %%
def halo_scale_mass(theta):
    taken = const.G * theta.m_thick * 1e10 * const.R0**2 / (const.R0**2 + (A_THICK + B_THICK) ** 2) ** 1.5
    return halo_mass(theta, v_circ=jnp.sqrt(const.V_CIRC**2 - taken))


def halo(R, z, theta):
    return nfw(R, z, halo_scale_mass(theta), const.R_S_HALO)


second_disk = oti.MassModel(
    components={**oti.MILKY_WAY.components, "thick": thick, "halo": halo},
    parameters=(
        *oti.MILKY_WAY.parameters,
        Parameter("m_thick", r"M_{\rm thick}/10^{10} M_\odot", "", 0.6, 0.0, 2.0, prior_sd=0.3),
    ),
    allowed=lambda theta: halo_scale_mass(theta) > const.M_HALO_FLOOR,
)
second_disk

# %% [markdown]
# Check it before you use it: what follows from it, and how actions change with it.
# `examples/second_disk.py` is the same model with its peers in galpy and gala, against which the
# tests compare it.

# %%
w = oti.PhaseSpace(R=8.0, phi=0.0, z=0.4, vR=20.0, vT=210.0, vz=15.0)
for m_thick in (0.0, 0.6, 1.2):
    theta = second_disk.Parameters(m_disk=0.9, m_thick=m_thick)
    aa = oti.action_angle(w, theta, delta="local", model=second_disk)
    sigma = oti.derived_quantities(theta, second_disk)["Sigma_1p1"]
    print(f"m_thick {m_thick:.1f}: J_z {aa.J_z[0]:.3f} kpc km/s, surface density {sigma:.1f} Msun/pc^2")

# %% [markdown]
# ## The posterior in it
#
# `sample(..., mass_model=...)` and `fit_classical(..., model=...)` take the model. The embedded
# stars were made without a thick disk of this shape, so the data should prefer little of it; how
# little they can say is the point.

# %%
stars = oti.embedded_stars()[: 400 if QUICK else 1000]
sampler = {"chains": 2, "warmup": 60, "draws": 120} if QUICK else {"chains": 4, "warmup": 100, "draws": 250}
post = oti.sample(stars, seed=0, mass_model=second_disk, **sampler)
az.summary(post, var_names=["m_disk", "h_z", "z_sun", "vz_sun", "m_thick"], ci_prob=0.95)

# %% [markdown]
# m_disk and m_thick pull against each other: together they make the surface density, which is what
# the stars weigh.

# %%
draws = post["posterior"].dataset
for name in ("m_disk", "m_thick", "Sigma_1p1"):
    values, prior = draws[name], post["prior"].dataset[name]
    mean, sd = float(values.mean()), float(values.std())
    print(f"{name:10s} posterior {mean:7.3f} +- {sd:.3f}, prior sd {float(prior.std()):.3f}")

# %%
oti.plot_profiles(post, mass_model=second_disk)
