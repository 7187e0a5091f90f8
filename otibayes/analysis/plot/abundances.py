"""Abundances in the vertical phase plane, and orbits over them (PW21, Figures 2 and 4)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import least_squares
from scipy.stats import binned_statistic_2d

from ...base.errors import InputError
from ...base.parameters import Parameters
from ...dynamics import PhaseSpace, action_angle, phase_space
from ...stars import Stars
from ...stars.orbits import integrate
from ...stars.stars import names_of
from .figure import in_dex, new_figure

__all__ = ["plot_mean_abundances", "plot_orbits"]

_CELLS = (8, 28)  # along each axis: for few stars and for many
_EACH = 15  # stars to a cell on average, between these
_FEWEST = 5  # stars in a cell that is shown
_STEPS = 700  # of 2 Myr: 1.4 Gyr, a dozen vertical periods
_ORBITS = ("#000000", "#D55E00")  # low and high J_z, on a map from blue to yellow


def plot_mean_abundances(stars: Stars, elements: str | Sequence[str] | None = None, theta: Any = None) -> Figure:
    """Mean abundances in cells of z and v_z, a panel for each of the `elements` (default: all) (PW21, Figure 2).

    Phase space is that of `theta` (default: fiducial). Raises `InputError` for an unknown element or without stars.
    """
    elements = list(stars.abundances) if elements is None else list(names_of(elements))
    _check(stars, elements)
    w = phase_space(stars, Parameters() if theta is None else theta)
    columns = min(4, len(elements))
    rows = -(-len(elements) // columns)
    figure = new_figure(2.9 * columns + 0.4, 2.6 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, element in zip(axes.flat, elements, strict=False):
        _cells(figure, ax, w, stars.abundances[element], element)
    for ax in axes.flat[len(elements) :]:
        ax.set_visible(False)
    _name_axes(axes, len(elements))
    return figure


def plot_orbits(
    stars: Stars,
    element: str,
    m_disk: Sequence[float] = (0.4, 1.0, 1.6),
    theta: Any = None,
    J_z: Sequence[float] | None = None,
) -> Figure:
    """Two orbits of fixed actions over the mean abundance in (z, v_z), in mass models of several disk masses.

    The orbits have the stars' median J_R and L_z, and `J_z` [kpc km/s] (default: the stars' 50th and 92nd percentile)
    (PW21, Figure 4). The other parameters are those of `theta` (default: fiducial). Raises `InputError` for an unknown
    element, without stars, or for a disk mass that leaves no halo.
    """
    _check(stars, [element])
    theta = Parameters() if theta is None else theta
    w = phase_space(stars, theta)
    aa = action_angle(w, theta, delta="local")
    solved = np.asarray(aa.status) == 0
    J_R, L_z = (float(np.median(np.asarray(a)[solved])) for a in (aa.J_R, aa.L_z))
    if J_z is None:
        J_z = np.percentile(np.asarray(aa.J_z)[solved], [50, 92]).tolist()
    figure = new_figure(3.0 * len(m_disk) + 0.7, 3.1)
    axes = figure.subplots(1, len(m_disk), squeeze=False, sharex=True, sharey=True)
    for i, (ax, mass) in enumerate(zip(axes[0], m_disk, strict=True)):
        model = theta._replace(m_disk=float(mass))
        _cells(figure, ax, w, stars.abundances[element], element, bar=i == len(m_disk) - 1)
        for wanted, colour in zip(J_z, _ORBITS, strict=False):
            orbit = integrate(*_start(J_R, L_z, wanted, model), model, _STEPS)
            ax.plot(orbit.w[5, :, 0], orbit.w[2, :, 0], "-", lw=0.5, color=colour, alpha=0.7, rasterized=True)
            ax.plot([], [], "-", lw=2, color=colour, label=f"$J_z$ = {wanted:.0f} kpc km/s")
        ax.set_title(rf"$M_{{\rm disk}}/M^*_{{\rm disk}} = {mass:g}$", fontsize=10)
    axes[0, 0].set_ylim(-1.05 * axes[0, 0].get_ylim()[1], 1.3 * axes[0, 0].get_ylim()[1])  # room for the legend
    axes[0, 0].legend(loc="upper center", fontsize=7, ncols=2, frameon=False, columnspacing=1.0, handlelength=1.2)
    _name_axes(axes, len(m_disk))
    return figure


def _check(stars: Stars, elements: Sequence[str]) -> None:
    if len(stars) == 0:
        raise InputError("a figure needs stars; there are none")
    unknown = [e for e in elements if e not in stars.abundances]
    if unknown or not elements:
        found = ", ".join(stars.abundances) or "no abundances"
        raise InputError(f"element {unknown[0] if unknown else '(none given)'} is not in the catalogue; found: {found}")


def _cells(figure: Figure, ax: Axes, w: PhaseSpace, values: Any, element: str, bar: bool = True) -> None:
    """Means in cells of v_z (across) and z (up), but for the outermost 1 in 100 stars of either."""
    z, vz, values = (np.asarray(a) for a in (w.z, w.vz, values))
    known = np.isfinite(values)
    number = int(np.clip(np.sqrt(known.sum() / _EACH), *_CELLS))
    edges = []
    for coordinate in (vz, z):
        reach = np.quantile(np.abs(coordinate[known]), 0.99)
        edges.append(np.linspace(-reach, reach, number + 1))
    mean, count = (
        binned_statistic_2d(vz[known], z[known], values[known], statistic, bins=edges).statistic
        for statistic in ("mean", "count")
    )
    shown = np.where(count >= _FEWEST, mean, np.nan)
    low, high = np.nanquantile(shown, [0.03, 0.97])
    image = ax.pcolormesh(*edges, shown.T, cmap="cividis", vmin=low, vmax=high, rasterized=True)
    ax.tick_params(direction="in", top=True, right=True)
    if bar:
        figure.colorbar(image, ax=ax, label=f"mean {in_dex(element)}")


def _name_axes(axes: np.ndarray, shown: int) -> None:
    columns = axes.shape[1]
    for i, ax in enumerate(axes.flat[:shown]):
        if i + columns >= shown:
            ax.set_xlabel(r"$v_z$ [km/s]")
            ax.tick_params(labelbottom=True)
        if i % columns == 0:
            ax.set_ylabel(r"$z$ [kpc]")


def _start(J_R: float, L_z: float, J_z: float, theta: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R, z [kpc] (1,) and v [km/s] (3, 1) of an orbit of these actions, in the plane near its guiding radius."""
    R = L_z / 229.0  # where the circular velocity is about that: any radius that the orbit crosses would do
    one = np.ones(1)

    def phase(x: np.ndarray) -> PhaseSpace:
        return PhaseSpace(R=R * one, phi=0 * one, z=0 * one, vR=x[0] * one, vT=L_z / R * one, vz=x[1] * one)

    def off(x: np.ndarray) -> np.ndarray:
        aa = action_angle(phase(x), theta, delta="local")
        found = np.sqrt(np.maximum(np.array([aa.J_R[0], aa.J_z[0]], float), 0.0))
        return found - np.sqrt([J_R, J_z])

    guess = np.sqrt([2 * J_R * 37.0, 2 * J_z * 70.0])  # epicycle frequencies [km/s/kpc]
    x = least_squares(off, guess, bounds=(0, np.inf), diff_step=1e-4).x
    return R * one, 0 * one, np.array([[x[0]], [L_z / R], [x[1]]])
