# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your own catalogue
#
# From a survey's file to stars: which columns, which cuts, and what to look at before any fit. The
# file here is synthetic, with the columns and the flags of APOGEE DR17, so that this notebook needs
# no download. With the real file, only its name changes.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
from survey_file import write_survey_file

import otibayes as oti

QUICK = bool(os.environ.get("OTIBAYES_QUICK"))
folder = Path(tempfile.mkdtemp())
path = write_survey_file(folder / "allStar-synthetic.fits", low=600 if QUICK else 4000, high=300 if QUICK else 1500)
path.name

# %% [markdown]
# ## Select
#
# A recipe is a named list of cuts, with its source. `pw21-low-alpha` is section 3 of Price-Whelan
# et al. (2021). `otibayes select --recipes` lists all of them.

# %%
table, flow = oti.select(path, "pw21-low-alpha")
print(flow)

# %% [markdown]
# *Lost by it alone* counts stars that pass every other cut. A cut that loses nothing may be
# superfluous, or misunderstood. Change one to see what it does:

# %%
_, deeper = oti.select(path, "pw21-low-alpha", {"snr": {"min": 100}})
print(deeper)

# %% [markdown]
# ## From a table to stars
#
# `Stars.from_table` takes an astropy table, `Stars.from_pandas` a data frame, `oti.read_stars` a
# file (FITS, ECSV, CSV, Parquet). Columns that are called otherwise are mapped:
# `columns={"radial_velocity": "rv"}`. Units in the table are heeded.

# %%
stars = oti.Stars.from_table(table)
stars

# %% [markdown]
# Everything that was odd about the table is said once, and kept:

# %%
for note in stars.provenance.notes:
    print("-", note)

# %% [markdown]
# ## Look at the stars
#
# **The chemical plane.** Does the polygon follow the gap between the two sequences? Zero points of
# abundances differ between surveys and releases by some 0.05 dex; shift the polygon where it does
# not fit.
#
# **x and y.** Pencil beams are fine. A hole around the Sun comes from a bright limit.
#
# **z and v_z.** Are there stars on both sides of the plane? With one side only, the disk's mass and
# its scale height are hardly told apart.

# %%
from otibayes.stars.recipes import recipe

parent = oti.Stars.from_table(oti.select(path, "pw21-low-alpha", {"low-alpha": "off"})[0])
oti.plot_selection(stars, recipe("pw21-low-alpha")[1], parent)

# %% [markdown]
# **Abundances over z and v_z.** Orbits are nested rings in this plane. The mean abundance should
# change from ring to ring, smoothly, and not along a ring. An element without a gradient says
# nothing about the mass.

# %%
elements = ["MG_FE", "FE_H"]
oti.plot_mean_abundances(stars, elements)

# %% [markdown]
# **Errors against gradients.** An element is worth its gradient over the actions divided by the
# scatter about it. A quick look: how well does J_z order each element?

# %%
theta = oti.Parameters()
aa = oti.action_angle(oti.phase_space(stars, theta), theta)
for element, values in stars.abundances.items():
    use = np.isfinite(values)
    rank = np.corrcoef(np.argsort(np.argsort(aa.J_z[use])), np.argsort(np.argsort(values[use])))[0, 1]
    print(f"{element:8s} rank correlation with J_z {rank:+.2f}, {use.sum()} stars")

# %% [markdown]
# ## Keep the stars
#
# `oti.write_table` writes the table with its cut flow and notes; the command line does all of this
# in one line:
#
# ```sh
# otibayes select allStar-dr17-synspec_rev1.fits --recipe pw21-low-alpha --output stars.fits --figure selection.png
# ```

# %%
oti.write_table(table, folder / "stars.fits")
oti.read_stars(folder / "stars.fits", elements=elements)
