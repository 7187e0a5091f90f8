"""What a posterior says beyond its parameters: the field, the mass model's curves, the null test."""

import json
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...base.constants import R0, V_CIRC
from ...dynamics import MassModel
from ...generative.model import mass_model_of
from ..field import field_at, vertical_plane
from ..null_test import null_test
from ..profiles import curves, profiles
from .figure import POSTERIOR, TRUTH, in_dex, new_figure

__all__ = ["plot_field", "plot_null_test", "plot_profiles"]

_LABELS = {
    "K_z": r"$|K_z(R_0, z)|$ [km$^2$ s$^{-2}$ kpc$^{-1}$]",
    "Sigma": r"$\Sigma(<|z|)$ [$M_\odot$ pc$^{-2}$]",
    "v_circ": r"$v_{\rm circ}(R)$ [km s$^{-1}$]",
    "rho_DM": r"$\rho_{\rm DM}(R)$ [$M_\odot$ pc$^{-3}$]",
}


def plot_field(posterior: xr.DataTree, mass_model: MassModel | None = None) -> Figure:
    """Four panels an element: mean and standard deviation of the field over (L_z, J_z) at J_R = 15 kpc km/s; the
    stars on the z-v_z plane; the field there, at R0 on a circular orbit's v_T, to the same colours."""
    f, data = posterior["field"].dataset, posterior["constant_data"].dataset
    plane = vertical_plane(posterior, mass_model=mass_model)
    low, high = f.low.values, f.high.values
    root_J_z = np.linspace(0, np.sqrt(10) * high[2], 60)
    L_z = R0 * V_CIRC + 300 * np.linspace(low[1], high[1], 60)
    J_R = 15.0
    grid = np.stack(np.broadcast_arrays(J_R, L_z[:, None], root_J_z[None] ** 2), -1)
    values = field_at(posterior, grid.reshape(-1, 3)).values.reshape(-1, 60, 60, f.sizes["element"])
    elements = f.element.values.tolist()
    figure = new_figure(14.5, 3.1 * len(elements) + 0.3)
    axes = figure.subplots(len(elements), 4, squeeze=False)
    for e, (element, row) in enumerate(zip(elements, axes, strict=True)):
        sd = values[..., e].std(0)
        known = sd < 0.5 * np.nanstd(data.abundances.values[:, e])
        mean = np.where(known, values[..., e].mean(0), np.nan)
        label = in_dex(element)
        for ax, shown, what, cmap in ((row[0], mean, label, "viridis"), (row[1], sd, f"sd of {label}", "magma_r")):
            top = np.nanquantile(shown, 0.98) if what is not label else np.nanmax(shown)
            mesh = ax.pcolormesh(L_z, root_J_z, shown.T, cmap=cmap, shading="nearest", vmax=top, rasterized=True)
            figure.colorbar(mesh, ax=ax, label=what)
            ax.set(xlabel=r"$L_z$ [kpc km s$^{-1}$]", ylabel=r"$\sqrt{J_z}$ [kpc km s$^{-1}$]$^{1/2}$")
        row[0].set_title(rf"field at $J_R = {J_R:.0f}$ kpc km/s" if e == 0 else "")
        one = plane.sel(element=element)
        here = one["mean"].where(one.sd < 0.5 * float(np.nanstd(data.abundances.values[:, e])))
        low_e, high_e = np.nanquantile(np.concatenate([here.values.ravel(), one.stars.values.ravel()]), [0.02, 0.98])
        colours = {"cmap": "viridis", "vmin": low_e, "vmax": high_e, "shading": "nearest", "rasterized": True}
        for ax, cells, title in ((row[2], one.stars, "stars"), (row[3], here, r"field at $R_0$, $v_R = 0$")):
            mesh = ax.pcolormesh(*(cells[dim] for dim in cells.dims), cells.values.T, **colours)
            ax.set(xlabel="z [kpc]", ylabel=r"$v_z$ [km/s]", title=title if e == 0 else "")
            figure.colorbar(mesh, ax=ax, label=label)
    return figure


def plot_profiles(posterior: xr.DataTree, mass_model: MassModel | None = None) -> Figure:
    """|K_z| and Sigma with height, v_circ and dark matter with radius: median, 68% and 95% of the posterior, the
    prior's 95% dotted, and the truth of synthetic stars dashed."""
    model = mass_model_of(posterior, mass_model)
    found = profiles(posterior, mass_model=model)
    prior = profiles(posterior, mass_model=model, group="prior")
    truth = json.loads(posterior.attrs["truth"])
    known = {}
    if all(name in truth for name in model.Parameters._fields):
        theta = np.array([[truth[name] for name in model.Parameters._fields]])
        known = curves(theta, found.z.values, found.R.values, model)
    levels = [0.025, 0.16, 0.5, 0.84, 0.975]
    figure = new_figure(14.5, 3.4)
    for ax, name in zip(figure.subplots(1, len(found.data_vars)), found.data_vars, strict=True):
        x = found[name].dims[-1]
        low2, low1, middle, high1, high2 = found[name].quantile(levels, ("chain", "draw")).values
        ax.fill_between(found[x], low2, high2, color=POSTERIOR, alpha=0.2, lw=0, label="posterior, 95%")
        ax.fill_between(found[x], low1, high1, color=POSTERIOR, alpha=0.35, lw=0, label="68%")
        ax.plot(found[x], middle, color=POSTERIOR, lw=1.5)
        for edge in prior[name].quantile([0.025, 0.975], ("chain", "draw")).values:
            ax.plot(found[x], edge, color="0.5", ls=":", lw=1, label="prior, 95%")
        if name in known:
            ax.plot(found[x], known[name][0], color=TRUTH, ls="--", lw=1.5, label="truth")
        ax.set(xlabel=f"{x} [kpc]", ylabel=_LABELS[str(name)])
        _ticks(ax)
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def plot_null_test(posterior: xr.DataTree, found: xr.Dataset | None = None, **given: Any) -> Figure:
    """Residual abundances against theta_z, and their Fourier coefficients with 68% and 95% intervals, which hold zero
    if the model holds. `found`: what `null_test` returned; computed where absent, with what is `given`."""
    found = null_test(posterior, **given) if found is None else found
    elements = found.element.values.tolist()
    figure = new_figure(11.5, 1.9 * len(elements) + 1.0)
    grid = figure.add_gridspec(len(elements), 2, width_ratios=(1.4, 1))
    for e, element in enumerate(elements):
        ax = figure.add_subplot(grid[e, 0])
        one = found.sel(element=element)
        ax.axhline(0, color="0.6", lw=0.8)
        ax.errorbar(found.theta_z, one.residual, one.residual_sd, fmt="o", ms=3.5, color="black", lw=1, label="stars")
        angle = np.linspace(0, 2 * np.pi, 200)
        waves = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)])
        curve = np.einsum("cdk,kx->cdx", one.amplitude.transpose("chain", "draw", "coefficient").values, waves)
        low, high = np.quantile(curve.reshape(-1, angle.size), [0.025, 0.975], axis=0)
        ax.fill_between(angle, low, high, color=POSTERIOR, alpha=0.3, lw=0, label="Fourier terms, 95%")
        ax.set(ylabel=f"residual {in_dex(element)}", xlim=(0, 2 * np.pi))
        ax.set_xticks(np.arange(5) * np.pi / 2, ["0", r"$\pi/2$", r"$\pi$", r"$3\pi/2$", r"$2\pi$"])
        _ticks(ax)
        if e == 0:
            handles, labels = ax.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
        side = figure.add_subplot(grid[e, 1])
        values = one.amplitude.stack(sample=("chain", "draw")).transpose("coefficient", "sample").values
        places = np.arange(len(values))
        low2, low1, middle, high1, high2 = np.quantile(values, [0.025, 0.16, 0.5, 0.84, 0.975], axis=1)
        colours = [TRUTH if name == "b2" else POSTERIOR for name in found.coefficient.values]
        side.axvline(0, color="0.6", lw=0.8)
        side.hlines(places, low2, high2, color=colours, lw=1.2)
        side.hlines(places, low1, high1, color=colours, lw=3.5)
        side.scatter(middle, places, color=colours, s=18, zorder=3)
        side.set_yticks(places, [rf"${name[0]}_{name[1]}$" for name in found.coefficient.values])
        side.invert_yaxis()
        side.locator_params(axis="x", nbins=5)
        _ticks(side)
    ax.set_xlabel(r"$\theta_z$ [rad]")
    side.set_xlabel("coefficient [dex]")
    return figure


def _ticks(ax: Axes) -> None:
    ax.tick_params(direction="in", top=True, right=True)
