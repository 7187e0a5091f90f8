"""The Fourier series in an angle, fitted to deviations by weighted linear least squares (PW21, equations 3-7)."""

from typing import Any

import numpy as np

__all__ = ["coefficient_names", "design", "least_squares"]


def coefficient_names(harmonics: int = 2) -> list[str]:
    """Names in the order of equation 4's columns: c0, a1, b1, a2, b2 (equation 7 lists them otherwise, a misprint)."""
    return ["c0"] + [f"{kind}{m}" for m in range(1, harmonics + 1) for kind in "ab"]


def design(angle: Any, harmonics: int = 2) -> np.ndarray:
    """Design matrix (N, 1 + 2 harmonics) of angles (N,) [rad]: 1, cos, sin, cos 2, sin 2, ... (PW21, equation 4)."""
    angle = np.asarray(angle)
    waves = [wave(m * angle) for m in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(angle), *waves], -1)


def least_squares(angle: Any, deviations: Any, sigma: Any = None, counts: Any = None, harmonics: int = 2) -> np.ndarray:
    """Best-fitting coefficients of equation 3, (M^T C^-1 M)^-1 M^T C^-1 y (PW21, equation 7).

    `angle` (N,) [rad]; `deviations` (B, N, E); `sigma` (N, E), their errors (default: equal); `counts` (B, N), how
    often each star was drawn in each resample (default: once). Returns (B, E, 1 + 2 harmonics) in the deviations'
    unit, ordered as `coefficient_names`.
    """
    M = design(angle, harmonics)
    y = np.asarray(deviations)
    inverse = np.ones(y.shape[1:]) if sigma is None else np.asarray(sigma, float) ** -2.0
    counts = np.ones(y.shape[:2]) if counts is None else np.asarray(counts, float)
    terms, elements = M.shape[1], y.shape[-1]
    MM = (M[:, :, None] * M[:, None, :]).reshape(len(M), 1, terms**2)
    normal = (counts @ (inverse[..., None] * MM).reshape(len(M), -1)).reshape(len(y), elements, terms, terms)
    projection = np.stack([M.T @ (c[:, None] * inverse * d) for c, d in zip(counts, y, strict=True)])
    return np.linalg.solve(normal, projection.transpose(0, 2, 1)[..., None])[..., 0]
