# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Classical against Bayesian
#
# otibayes gives three answers to one question. They are equation 8 of Price-Whelan et al. (2021),
# chi^2 in bins of J_z, and the Bayesian posterior. All three see the same stars through the same
# actions. This notebook shows what each of them uses, where they differ, and why.

# %%
import json
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import otibayes as oti
from otibayes.classical.settings import ClassicalSettings

QUICK = bool(os.environ.get("OTIBAYES_QUICK"))
stars = oti.embedded_stars()[: 400 if QUICK else 2000]
fit = oti.fit_classical(stars, bootstraps=32 if QUICK else 64, seed=0)
sampler = {"chains": 2, "warmup": 60, "draws": 120} if QUICK else {"chains": 4, "warmup": 100, "draws": 250}
post = oti.sample(stars, seed=0, **sampler)
PARAMETERS = fit.attrs["parameters"].split(",")
ELEMENTS = fit["chi2"].element.values.tolist()
truth = json.loads(fit.attrs["truth"])
truth

# %% [markdown]
# ## Equation 8
#
# Take a star's abundance, less the mean of its neighbours in the actions. In the right mass model
# this deviation does not depend on the vertical angle. So the first coefficients of its Fourier
# series vanish. Each of them responds to something else: a1 to the Sun's vertical velocity, b1 to
# the Sun's height, a2 to the disk's mass. b2 should vanish in any mass model.

# %%
prepared = oti.prepare_stars(stars, ["MG_FE"], method="staeckel")
oti.plot_coefficients(
    prepared,
    "MG_FE",
    values=np.linspace(0.4, 1.8, 8),
    settings=ClassicalSettings(bootstraps=16),
)

# %% [markdown]
# Equation 8 is the sum a1^2 + b1^2 + a2^2. The fit looks for its minimum. The error comes from
# bootstraps: fits to resamples of the stars.
#
# ## The valley
#
# Three numbers are set to zero, but there are four parameters. So one direction is left in which
# nothing changes. The fit stops somewhere along it. Where it stops depends on where it starts. The
# result shows it. `flat` is the direction. `spread` says how far apart the fit ends from four other
# starts. Both are in the units of the parameters.

# %%
valley = fit["valley"].dataset
pd.concat(
    {name: (valley[name] * (valley.scale if name == "flat" else 1)).to_pandas() for name in ("flat", "spread")},
    names=["", "element"],
).round(3)

# %% [markdown]
# The stars are the same for all starts, so that the spread would be zero without a valley. For
# m_disk and h_z it is about as large as the error of the bootstraps (`eq8_sd` in the table at the
# end). For z_sun and vz_sun it is much smaller. The bootstraps start at one place, so that they all
# stop near one another. Their error is the width of the valley, not its length.
#
# ## chi^2: the same statistic in bins
#
# A change of the disk's mass moves stars of all J_z. A change of its scale height moves stars of
# low J_z most. So a2 at several J_z tells the two apart. chi^2 takes a1, b1, a2 and a4 in three
# bins of J_z, with their covariance. These are twelve numbers for four parameters, so that there is
# one minimum. Its intervals are profiles: they end where chi^2 has risen by 1, whatever the other
# parameters do.

# %%
chi2 = fit["chi2"].dataset
pd.DataFrame(
    {
        (element, column): values
        for element in ELEMENTS
        for column, values in {
            "minimum": [float(chi2[name].sel(element=element)) for name in PARAMETERS],
            "low": chi2.interval.sel(element=element).values[:, 0],
            "high": chi2.interval.sel(element=element).values[:, 1],
        }.items()
    },
    index=PARAMETERS,
).round(3)

# %% [markdown]
# NaN marks a side that is open: chi^2 does not rise by 1 within the bounds of the parameter.
#
# How much does chi^2 see of the valley? We take the points at which equation 8 ended from other
# starts. For equation 8 they are as good as its optimum. `oti.chi2_rise` says how far chi^2 is
# above its minimum there. At the truth its mean is 4.

# %%
places = {f"valley, start {i}": valley.ends.sel(element="MG_FE").values[i] for i in range(4)}
places["truth"] = np.array([truth[name] for name in PARAMETERS])
rise = oti.chi2_rise(fit, np.stack(list(places.values())))
pd.DataFrame(
    np.column_stack([np.stack(list(places.values())), rise]),
    index=list(places),
    columns=[*PARAMETERS, *(f"chi^2 rise, {element}" for element in ELEMENTS)],
).round(2)

# %% [markdown]
# ## The posterior
#
# The Bayesian path has no angles, no neighbours and no bins. It takes abundances as a smooth field
# over the actions, plus scatter. In a wrong mass model the same field has to explain more, and the
# likelihood falls. It uses both elements at once, and the scatter that they share. It has a prior,
# too.
#
# Here are the three answers in the plane of the disk's mass and scale height, for [Mg/Fe] in the
# first two panels. All panels have the same axes, and the star is the truth. The bootstraps of
# equation 8 lie across the ridge along which the other two are long.

# %%
x, y = "m_disk", "h_z"
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained")

one = valley.sel(element="MG_FE")
replicates = fit["posterior"].dataset.sel(element="MG_FE")
axes[0].plot(replicates[x].values.ravel(), replicates[y].values.ravel(), "k.", ms=4, label="bootstraps")
ends = one.ends.sel(parameter=[x, y]).values
axes[0].plot(*ends.T, "D", color="#CC79A7", label="from other starts")
axes[0].set_title("equation 8, [Mg/Fe]")

best = {name: float(chi2[name].sel(element="MG_FE")) for name in PARAMETERS}
masses, heights = np.linspace(0.4, 1.8, 41), np.linspace(0.1, 0.7, 41)
grid = np.array([[list((best | {x: m, y: h}).values()) for m in masses] for h in heights])
drawn = axes[1].contourf(
    masses, heights, oti.chi2_rise(fit, grid)[..., 0], levels=[0, 1, 4, 9, 16], cmap="Blues_r", extend="max"
)
axes[1].plot(best[x], best[y], "ks", label="minimum")
axes[1].set_title("chi$^2$, [Mg/Fe]")
figure.colorbar(drawn, ax=axes[1], label="rise, the Sun's position fixed")

draws = post["posterior"].dataset
axes[2].plot(draws[x].values.ravel(), draws[y].values.ravel(), ".", ms=2, alpha=0.3, color="#0072B2")
axes[2].set_title("posterior, both elements")
for ax in axes:
    ax.plot(truth[x], truth[y], "*", ms=14, color="#D55E00", mec="white", label="truth")
    ax.set_xlabel("$m_{disk}$")
    ax.legend(loc="upper left", frameon=False)
_ = axes[0].set_ylabel("$h_z$ [kpc]")

# %% [markdown]
# ## All answers in one table

# %%
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
        "difference_sigma",
        "truth",
    ]
].round(3)

# %%
oti.plot_comparison(fit, post)

# %% [markdown]
# ## Where they differ, and why
#
# - **Equation 8 tells the width of a valley.** Its errors of m_disk and h_z are not to be compared
#   with those of the other two. z_sun and vz_sun lie across the valley, so that their errors hold.
# - **chi^2 has lopsided intervals.** It uses bins of J_z. Its joint answer is the minimum of the
#   elements' sum, `chi2_mean`. `chi2_low_68` and `chi2_high_68` end its profile.
# - **The posterior uses all elements at once, and each star at its own actions.** It pays with
#   assumptions: a smooth field, Gaussian scatter, a prior. The notebook on diagnostics shows how to
#   check them.
# - **`difference_sigma` is no test.** Both answers saw the same stars, so that their errors are not
#   independent. Beyond 3 it is an alarm: abundances may have a zero point that follows distance.
