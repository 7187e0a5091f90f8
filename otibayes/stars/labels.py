"""Abundances of synthetic stars: smooth functions of the torus, with scatter correlated between elements."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..base import constants as const

__all__ = ["LABELS", "Label", "mean_labels", "scatter", "scatter_covariance"]


class Label(NamedTuple):
    """How one element depends on the torus, and what blurs it.

    mean + radial (L_z / v_circ - R0) + vertical s(z_max^2, 1 kpc) + eccentric s((r_apo - r_peri)^2, 4 kpc), where
    s(x^2, c) = x^2 / (x^2 + c^2), plus Normal scatter. Scatters of two elements correlate by the product of their
    `loadings` on two common causes. In dex, `radial` in dex/kpc; `error` is the median measurement error.
    """

    mean: float
    radial: float
    vertical: float
    eccentric: float
    scatter: float
    loadings: tuple[float, float]
    error: float


# Gradients and amplitudes after Hayden et al. 2015 and Price-Whelan et al. 2021 (Figs. 3, 4), on the strong side;
# errors after Joensson et al. 2020. The loadings make [Mg/Fe] and [O/Fe] correlate by 0.90, [Fe/H] with both by -0.52.
LABELS: Mapping[str, Label] = {
    "FE_H": Label(0.00, -0.060, -0.50, -0.10, 0.080, (-0.55, 0.60), 0.010),
    "C_FE": Label(-0.02, -0.010, 0.08, 0.02, 0.060, (0.30, -0.30), 0.020),
    "N_FE": Label(0.15, -0.015, -0.10, -0.03, 0.080, (-0.30, 0.40), 0.025),
    "O_FE": Label(0.02, 0.012, 0.28, 0.05, 0.040, (0.95, 0.00), 0.015),
    "MG_FE": Label(0.02, 0.010, 0.25, 0.05, 0.040, (0.95, 0.00), 0.013),
    "SI_FE": Label(0.00, 0.008, 0.18, 0.03, 0.035, (0.90, 0.00), 0.013),
    "MN_FE": Label(-0.03, -0.030, -0.22, -0.04, 0.040, (-0.60, 0.50), 0.017),
    "NI_FE": Label(0.02, -0.010, -0.05, -0.01, 0.025, (0.10, 0.50), 0.012),
}


def _saturating(x: np.ndarray, scale: float) -> np.ndarray:
    """Even in x, hence smooth in the action that grows as x^2, and never above 1."""
    return x**2 / (x**2 + scale**2)


def mean_labels(torus: Mapping[str, np.ndarray], labels: Sequence[Label], conical: bool = False) -> np.ndarray:
    """Mean abundance [dex] (N, E) on each star's torus.

    `conical` makes it linear in z_max near the plane, hence not smooth in J_z at 0: a stress on methods that assume so.
    """
    height = torus["z_max"] / (torus["z_max"] + 1.0) if conical else _saturating(torus["z_max"], 1.0)
    mean, radial, vertical, eccentric = np.array([label[:4] for label in labels]).T
    inputs = np.stack([
        np.ones_like(torus["L_z"]),
        torus["L_z"] / const.V_CIRC - const.R0,
        height,
        _saturating(torus["r_apo"] - torus["r_peri"], 4.0),
    ])  # fmt: skip
    return inputs.T @ np.stack([mean, radial, vertical, eccentric])


def scatter_covariance(labels: Sequence[Label]) -> np.ndarray:
    """Covariance [dex^2] (E, E) of the scatter about the mean abundances."""
    loadings = np.array([label.loadings for label in labels])
    correlation = loadings @ loadings.T
    np.fill_diagonal(correlation, 1.0)
    scatter = np.array([label.scatter for label in labels])
    return correlation * np.outer(scatter, scatter)


def scatter(rng: np.random.Generator, n: int, labels: Sequence[Label], skew: float = 0.0) -> np.ndarray:
    """Scatter [dex] (n, E) about the means: Gaussian, or with a lognormal tail of shape `skew` towards high values."""
    covariance = scatter_covariance(labels)
    drawn = rng.multivariate_normal(np.zeros(len(labels)), covariance, n)
    if skew == 0:
        return drawn
    sd = np.sqrt(np.diag(covariance))
    return sd * np.expm1(skew * drawn / sd - skew**2 / 2) / np.sqrt(np.expm1(skew**2))
