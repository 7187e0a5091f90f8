"""What a classical result depends on besides stars, elements, seed and mass model."""

from dataclasses import dataclass
from typing import Any

from ..base.settings import DELTA, METHOD, Settings, check_method, setting

__all__ = ["ClassicalSettings"]


@dataclass(frozen=True)
class ClassicalSettings(Settings):
    """Settings of `otibayes.fit_classical`; each is an option of `otibayes classical` too, with the help that is here.

    `bootstraps`: number of resamples. `method`, `delta`: see `otibayes.action_angle`; a number or array is in kpc.
    `weights` of the stars in equation 6: "paper" 1/sigma^2 of the quoted errors, "equal", or "total"
    1/(sigma^2 + s^2) with the intrinsic scatter s of each element; chi^2 always uses "total". `neighbours`: K of
    PW21. `own_copies`: a star's copies in a resample count as its neighbours. `naive_mean`: equation A1 in place of
    A5. `angle`: "theta_z" or "theta_R". `moment` of an element at fixed actions: its "mean" or "scatter".
    `all_terms`: c0 and b2 enter equation 8 too. `detrended`: abundances less their polynomial trend in the actions.
    `bins`: number of bins of J_z for chi^2, 0 for no chi^2. `surface=False` minimises the plain objective.

    Raises `InputError` where a value is unknown or out of range. Source: PW21, sections 6 and 7, appendix A;
    "equal", "total", `detrended` and `bins` are ours.
    """

    bootstraps: int = setting(128, "Resamples of the stars.", "N", least=2)
    method: str = setting(**METHOD)
    delta: Any = setting(**DELTA)
    weights: str = setting("paper", "Weights of the stars in equation 8.", choices=("paper", "equal", "total"))
    neighbours: int = setting(64, "Neighbours of each star in action space.", "K", least=4)
    own_copies: bool = setting(False, "Count a star's copies in a resample as its neighbours.")
    naive_mean: bool = setting(False, "The plain mean of the neighbours (A1), not the weighted mean (A5).")
    angle: str = setting("theta_z", "Angle of the Fourier series.", choices=("theta_z", "theta_R"))
    moment: str = setting("mean", "Moment of the abundance at fixed actions.", choices=("mean", "scatter"))
    all_terms: bool = setting(False, "Include c0 and b2 in equation 8.")
    detrended: bool = setting(False, "Subtract the polynomial trend in the actions from the abundances first.")
    bins: int = setting(3, "Bins of J_z for chi^2; 0: no chi^2.", "N", least=0)
    surface: bool = setting(True, "Minimise on response surfaces, or go over the stars at every step.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_method(self.method)
