"""The classical objective as the procedure box of PW21, section 6.2, lists it: stars and theta in, coefficients out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..dynamics.frame import PhaseSpace, phase_space
from .deviation import K_NEIGHBOURS, deviation
from .fourier import least_squares

__all__ = ["Settings", "coefficients", "objective"]

Actions = Callable[[PhaseSpace, Any], Any]


class Settings(NamedTuple):
    """What the paper fixes and a variant may change."""

    neighbours: int = K_NEIGHBOURS
    harmonics: int = 2
    angle: str = "theta_z"  # or theta_R, for radial coefficients
    own_copies: bool = False
    gradient: bool = True


def coefficients(
    theta: Any,
    stars: Any,
    labels: Any,
    sigma: Any,
    counts: Any,
    actions: Actions,
    settings: Settings = Settings(),  # noqa: B008
) -> np.ndarray:
    """Fourier coefficients (B, E, 1 + 2 harmonics) of every element and resample, for one theta (PW21, steps 1 to 6).

    `theta` is a `Parameters`; `stars` N of them; `labels` and `sigma` (N, E) hold any labels and their errors in one
    unit; `counts` (B, N) how often each star was drawn in each resample (None: one, every star once). `actions(w,
    theta)` gives an `ActionAngle` of phase space `w`, that is `action_angle` with its method, focal lengths and mass
    model chosen.
    """
    w = phase_space(stars, theta)  # step 2
    aa = actions(w, theta)  # steps 1 (the halo is part of the mass model), 3 and 4
    J = np.stack([np.asarray(aa.J_R), np.asarray(aa.L_z), np.asarray(aa.J_z)], -1)
    deviations = deviation(J, labels, counts, settings.neighbours, settings.own_copies, settings.gradient)  # step 5
    return least_squares(getattr(aa, settings.angle), deviations, sigma, counts, settings.harmonics)  # step 6


def objective(coefficients: Any, every: bool = False) -> Any:
    """a1^2 + b1^2 + a2^2 over the last axis of `coefficients`, ordered (c0, a1, b1, a2, b2) (PW21, equation 8).

    `every=True` adds c0^2 and b2^2, the variant that the paper verified to change little.
    """
    chosen = coefficients[..., :5] if every else coefficients[..., 1:4]
    return (chosen**2).sum(-1)  # step 7
