"""The Fourier series in an angle, fitted to deviations by weighted linear least squares (PW21, equations 3-7)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["coefficient_names", "design", "least_squares", "normal_equations", "solve"]


def coefficient_names(harmonics: Sequence[int] = (1, 2)) -> list[str]:
    """Names in the order of equation 4's columns: c0, a1, b1, a2, b2 (equation 7 lists them otherwise, a misprint)."""
    return ["c0"] + [f"{kind}{m}" for m in harmonics for kind in "ab"]


def design(angle: Any, harmonics: Sequence[int] = (1, 2)) -> np.ndarray:
    """Design matrix (N, 1 + 2 harmonics) of angles (N,) [rad]: 1, cos, sin, cos 2, sin 2, ... (PW21, equation 4)."""
    angle = np.asarray(angle)
    waves = [wave(m * angle) for m in harmonics for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(angle), *waves], -1)


def normal_equations(
    M: np.ndarray, deviations: np.ndarray, inverse: np.ndarray, counts: np.ndarray, place: Any = 0, places: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """M^T C^-1 M (places, B, I, T, T) and M^T C^-1 y (places, B, E, T) of the stars at each place, to be summed over
    groups of stars (PW21, eq. 7).

    `M` (N, T); `deviations` (N, E, B); `inverse` (N, I), 1 / sigma^2 of the first I deviations and, as E is a multiple
    of I, of every next I of them; `counts` (B, N), how often each was drawn; `place` (N,), from 0.
    """
    (N, T), (_, E, B), errors = M.shape, deviations.shape, inverse.shape[1]
    dtype = deviations.dtype
    row, column = np.triu_indices(T)
    M, inside = M.astype(dtype), np.reshape(place, (-1, 1)) == np.arange(places)
    weight = inside[:, :, None, None] * inverse[:, None, :, None].astype(dtype)
    MM = weight * (M[:, row] * M[:, column])[:, None, None]
    upper = (counts.astype(dtype) @ MM.reshape(N, -1)).reshape(B, places, errors, len(row)).swapaxes(0, 1)
    normal = np.empty((*upper.shape[:3], T, T))
    normal[..., row, column] = normal[..., column, row] = upper
    MC = weight * M[:, None, None]
    drawn = deviations * counts.T[:, None].astype(dtype)
    projection = np.stack([MC[:, :, e % errors].reshape(N, -1).T @ drawn[:, e] for e in range(E)])
    return normal, projection.reshape(E, places, T, B).transpose(1, 3, 0, 2).astype(float)


def solve(normal: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Coefficients (B, E, T), from `normal_equations` with I of 1 or E, or the sum of several groups (PW21, eq. 7)."""
    return np.linalg.solve(normal, projection[..., None])[..., 0]


def least_squares(
    angle: Any, deviations: Any, sigma: Any = None, counts: Any = None, harmonics: Sequence[int] = (1, 2)
) -> np.ndarray:
    """Best-fitting coefficients of equation 3, (M^T C^-1 M)^-1 M^T C^-1 y (PW21, equation 7).

    `angle` (N,) [rad]; `deviations` (B, N, E); `sigma` (N, E), their errors (default: equal); `counts` (B, N), how
    often each star was drawn in each resample (default: once). Returns (B, E, 1 + 2 harmonics) in the deviations'
    unit, ordered as `coefficient_names`.
    """
    y = np.asarray(deviations).transpose(1, 2, 0)
    inverse = np.ones((len(y), 1)) if sigma is None else np.asarray(sigma, float) ** -2.0
    counts = np.ones((y.shape[2], len(y))) if counts is None else np.asarray(counts)
    normal, projection = normal_equations(design(angle, harmonics), y, inverse, counts)
    return solve(normal[0], projection[0])
