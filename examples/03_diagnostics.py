# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Diagnostics
#
# Can this posterior be believed? Three things can be wrong: the chains, the response surface, and
# the model. This notebook has one section for each. It looks at a good run first, and then at a
# run that was broken on purpose.

# %%
import os
import tempfile
from pathlib import Path

import arviz as az
import pandas as pd

import otibayes as oti

QUICK = bool(os.environ.get("OTIBAYES_QUICK"))
PARAMETERS = ["m_disk", "h_z", "z_sun", "vz_sun"]

# %% [markdown]
# ## A posterior in a file
#
# We sample 400 of the stars that come with the package. `oti.save` writes netCDF. `oti.load` reads
# it again, equal in every value. The result is an `xarray.DataTree`, so that ArviZ works on it as
# it is.

# %%
stars = oti.embedded_stars()[:400]
sampler = {"chains": 2, "warmup": 60, "draws": 120} if QUICK else {"chains": 4, "warmup": 100, "draws": 250}
path = Path(tempfile.mkdtemp()) / "posterior.nc"
oti.save(oti.sample(stars, seed=0, **sampler), path)

post = oti.load(path)
list(post.children)

# %% [markdown]
# ## The chains
#
# Start with the numbers. `r_hat` compares the chains with one another. It should be below 1.01.
# `ess_bulk` and `ess_tail` say how many independent draws the chains are worth, for means and for
# the ends of intervals. They should be above 400.

# %%
az.summary(post, var_names=PARAMETERS, ci_prob=0.95)

# %% [markdown]
# The worst over all that was sampled, hyperparameters included, is in the attributes. `converged`
# is 1 where R-hat is at most 1.01, the bulk size is at least 400, and no draw diverged.

# %%
CONVERGENCE = ["converged", "max_r_hat", "min_ess_bulk", "min_ess_tail", "divergences"]
pd.Series({name: post.attrs[name] for name in CONVERGENCE}).round(3)

# %% [markdown]
# **Trace.** Draws in their order, one colour for each chain. A good chain looks like noise. It does
# not drift, and it does not stand still. All chains cover the same range.

# %%
_ = az.plot_trace(post, var_names=PARAMETERS)

# %% [markdown]
# **Rank.** If the chains agree, the ranks of each chain among all draws are uniform. The curves
# show how far they are from it. p is the probability of such curves where the chains agree. Below
# 0.01 the chains disagree.

# %%
_ = az.plot_rank(post, var_names=PARAMETERS)

# %% [markdown]
# **Energy.** The sampler changes its energy from step to step (*transition*). If these changes are
# much narrower than the distribution of the energy itself (*marginal*), then the sampler explores
# slowly. The two should have much the same width. BFMI compares them, chain by chain. It should be
# to the right of the dashed line.

# %%
_ = az.plot_energy(post)

# %% [markdown]
# **Pair.** The posterior of each pair of parameters. m_disk and h_z are correlated: a heavier disk
# that is thicker pulls stars near the plane much as a lighter, thinner disk does. A divergence
# would be marked in these panels.

# %%
_ = az.plot_pair(post, var_names=PARAMETERS)

# %% [markdown]
# **Prior and posterior.** What did the stars say? Where the two curves are alike, the stars said
# nothing, and the answer is the prior.

# %%
_ = az.plot_prior_posterior(post, var_names=PARAMETERS)

# %% [markdown]
# ## The response surface
#
# The sampler does not go over the stars at each step. It uses polynomials that stand for the
# likelihood near its maximum. Each run measures the error of this surface, and keeps the report in
# the group `surface`.

# %%
ABOUT_SURFACE = [
    "size",
    "farthest",
    "posterior_rms",
    "posterior_worst",
    "khat",
    "shift",
    "basis_size",
    "basis_shift",
    "attempts",
]
pd.Series({name: post["surface"].attrs[name] for name in ABOUT_SURFACE}).round(3)

# %% [markdown]
# - `size` is the radius of the surface, in sigma of the posterior. `farthest` is the distance of
#   the farthest draw. It must be smaller.
# - `posterior_rms` and `posterior_worst` are errors in ln L, at draws of the posterior.
# - `khat` is the Pareto k of the weights that would correct these errors. It must be below 0.7,
#   unless all errors are less than 1.
# - `shift` says how far the errors move the mean of a parameter, in sigma, at most. A run with more
#   than 0.1 is refused.
# - `basis_shift` is the same for the number of basis functions, `basis_size`. A finer basis would
#   move a mean so far.
# - `attempts` is the number of runs. The run goes on by itself while a number is not good enough.
#
# The errors at points that had no part in the surface grow with the distance from its centre:

# %%
surface = post["surface"].dataset
pd.DataFrame({"distance [sigma]": surface.held_out_radius, "error in ln L": surface.held_out_error}).sort_values(
    "distance [sigma]", ignore_index=True
).round(4)

# %% [markdown]
# ## The model
#
# **Posterior predictive.** Abundances that the model would make, beside those that were observed.
# If the two differ in shape, for example in the wings, then the scatter is not Gaussian.
# `--model heavy_tails` is for that.

# %%
_ = az.plot_ppc_dist(post)

# %% [markdown]
# **Null test.** If the model holds, then what the field leaves of the abundances does not depend on
# the vertical angle. Look at b2 first, in the other colour. No parameter can change it. If its 95%
# interval does not hold zero, then an assumption is broken.

# %%
test = oti.null_test(post)
test.pull.to_pandas().round(2)

# %%
oti.plot_null_test(post, test)

# %% [markdown]
# ## What bad looks like
#
# Now a run that is broken on purpose: a warm-up of 5 draws, and 15 draws in each chain. otibayes
# returns it, and its attributes say what is wrong.

# %%
bad = oti.sample(stars, seed=0, chains=4, warmup=5, draws=15)
pd.DataFrame({name: {key: tree.attrs[key] for key in CONVERGENCE} for name, tree in {"good": post, "bad": bad}.items()})

# %%
_ = az.plot_trace(bad, var_names=PARAMETERS)

# %% [markdown]
# Do not read numbers off such a run. Give it a longer warm-up, and more draws. If R-hat stays high,
# look at the pairs of parameters: two groups of draws mean two answers.
#
# A run whose surface cannot be checked, or is not good enough, is refused. Then there is no
# posterior, and the message says what to do.

# %%
try:
    oti.sample(stars, seed=0, chains=4, warmup=5, draws=10)
except oti.InputError as refusal:
    print(refusal)
