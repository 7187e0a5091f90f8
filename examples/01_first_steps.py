# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # First steps
#
# Both paths of otibayes on synthetic stars whose true mass model is known: what to type, and what
# each line of the answer means. It is the run of `otibayes demo` with fewer draws. It takes some
# minutes, most of it to compile.

# %%
import os

import pandas as pd

import otibayes as oti
from otibayes.analysis.comparison import describe
from otibayes.classical.settings import ClassicalSettings

QUICK = bool(os.environ.get("OTIBAYES_QUICK"))  # the tests run this notebook with fewer stars and draws

# %% [markdown]
# ## The stars
#
# 4,000 stars within 2 kpc of the Sun, as a survey would see them. Their orbits were integrated in a
# mass model with the parameters shown as *truth*. Their abundances depend on their orbits, with
# scatter.

# %%
stars = oti.embedded_stars()
stars = stars[:600] if QUICK else stars
stars

# %% [markdown]
# ## The idea in one figure
#
# Each panel shows how much [Mg/Fe] differs from its mean at the same actions, against the vertical
# angle: 0 where a star crosses the plane upwards, pi/2 at its highest point. In the right mass
# model the red curve is flat. With too light a disk (left) or too heavy a disk (right) it is not,
# and its sign changes between them. That sign is the measurement.

# %%
prepared = oti.prepare_stars(stars, ["MG_FE"], method="staeckel")
oti.plot_deviations(prepared, "MG_FE", settings=ClassicalSettings(bootstraps=16))

# %% [markdown]
# ## The classical path
#
# For each element and each bootstrap resample of the stars, the fit finds the mass model in which
# the curve is flat (equation 8 of Price-Whelan et al. 2021). The result is an `xarray.DataTree`, as
# ArviZ uses; these are its groups.

# %%
fit = oti.fit_classical(stars, bootstraps=16 if QUICK else 64, seed=0)
list(fit.children)

# %% [markdown]
# ## The generative path
#
# Abundances are a Gaussian process over the actions plus scatter that is correlated between
# elements. Angles do not appear. NUTS samples the mass model and the properties of the field
# together.

# %%
sampler = {"chains": 2, "warmup": 60, "draws": 120} if QUICK else {"warmup": 100, "draws": 400}
post = oti.sample(stars, seed=0, **sampler)
list(post.children)

# %% [markdown]
# ## The comparison
#
# One row a parameter or derived quantity, the answers side by side. `truth` is known here because
# the stars are synthetic.

# %%
pd.options.display.float_format = "{:.4g}".format
table = oti.compare(fit, post)
table[
    [
        "unit",
        "eq8_mean",
        "eq8_sd",
        "chi2_mean",
        "chi2_low_68",
        "chi2_high_68",
        "posterior_mean",
        "posterior_sd",
        "low_95",
        "high_95",
        "truth",
    ]
]

# %% [markdown]
# - `eq8_mean`, `eq8_sd`: equation 8, all elements joined. It sets three numbers to zero with four
#   parameters, so it has a valley in (m_disk, h_z). Its errors hold across that valley only. The
#   column `note` says so where it matters.
# - `chi2_mean`, `chi2_low_68`, `chi2_high_68`: chi^2 of coefficients in bins of J_z, all elements
#   joined: its minimum, and where it has risen by one sigma. It has no such valley.
# - `posterior_mean`, `posterior_sd`: mean and standard deviation of the posterior's draws.
# - `low_95`, `high_95`: 95% of the posterior lies between them.
# - The first four rows are the parameters; the others follow from them.
#
# The same in one figure: draws and contours of the posterior, ellipses of equation 8, squares of
# chi^2, a star at the truth.

# %%
oti.plot_comparison(fit, post)

# %% [markdown]
# ## What to doubt
#
# Read this before you believe a number. Each line is about one thing that can be wrong: the valley
# of equation 8, fits that did not converge, chains that did not mix, the error of the response
# surface, stars that were left out.

# %%
for line in describe(fit, post):
    print("-", line)

# %% [markdown]
# ## Keep it
#
# `oti.save` writes netCDF, `oti.load` reads it again. The file holds the settings, the seed, the
# versions and a digest of the stars.
#
# ```python
# oti.save(post, "posterior.nc")
# ```
#
# Next: [your own catalogue](02_your_own_catalogue.ipynb).
