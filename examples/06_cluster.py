# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A cluster
#
# Both paths spend their time in passes over the stars. A pass takes one mass model and returns some
# sums. Passes do not need one another, so that many machines can share them. otibayes hands them to
# a [Dask](https://docs.dask.org) cluster. `pip install ".[dask]"` brings Dask.
#
# Here the cluster is two processes on this machine. On a real cluster only the address changes.

# %%
import os

import xarray as xr
from distributed import Client, LocalCluster

import otibayes as oti

QUICK = bool(os.environ.get("OTIBAYES_QUICK"))
stars = oti.embedded_stars()[:400]

# %% [markdown]
# ## Start workers
#
# Each worker needs otibayes in the same version. One thread in each worker is enough.

# %%
cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
client = Client(cluster)
print(f"{len(cluster.workers)} workers")

# %% [markdown]
# ## The classical path
#
# `client=` is all that is new. The stars travel to each worker once. Nelder-Mead runs here, on the
# surface that the passes gave.

# %%
fit = oti.fit_classical(stars, bootstraps=32, seed=0, client=client)
print(f"{fit['surface'].attrs['passes']} passes over the stars, for equation 8 alone")

# %% [markdown]
# The cluster does not change the answer. Without it, the same numbers come out, but for rounding:

# %%
alone = oti.fit_classical(stars, bootstraps=32, seed=0)
xr.testing.assert_allclose(fit["posterior"].dataset, alone["posterior"].dataset, rtol=1e-6)

# %% [markdown]
# ## The Bayesian path
#
# It is the same here. The passes that make the response surface go to the cluster. So do those that
# check it. NUTS runs here, on the surface.

# %%
sampler = {"chains": 2, "warmup": 60, "draws": 120} if QUICK else {"chains": 4, "warmup": 100, "draws": 250}
post = oti.sample(stars, seed=0, client=client, **sampler)
oti.plot_comparison(fit, post)

# %% [markdown]
# ## Stop the workers

# %%
client.close()
cluster.close()

# %% [markdown]
# ## On real machines
#
# Start a scheduler on one machine, and a worker on each:
#
# ```sh
# dask scheduler                   # prints its address
# dask worker tcp://HOST:8786      # on every machine
# ```
#
# Then, in Python, `Client("tcp://HOST:8786")` takes the place of the two lines above. The command
# line has an option for it:
#
# ```sh
# otibayes sample stars.fits --dask tcp://HOST:8786 --output posterior.nc
# ```
#
# A long run can be stopped and can go on: `checkpoint=` of `oti.sample` and `store=` of
# `oti.fit_classical` name a folder that keeps the finished passes.
