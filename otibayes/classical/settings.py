"""The settings of a classical fit: the one list that Python, the command line and a result's provenance read."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ..base.errors import InputError

__all__ = ["ClassicalSettings"]

_CHOICES = {
    "angle": ("theta_z", "theta_R"),
    "moment": ("mean", "scatter"),
    "weights": ("paper", "equal", "total"),
}


def _option(default: Any, help: str, metavar: str | None = None) -> Any:
    """A field with what the command line says about it."""
    return field(default=default, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True)
class ClassicalSettings:
    """What a classical result depends on besides stars, elements, seed and mass model.

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

    bootstraps: int = _option(128, "Resamples of the stars.", "N")
    method: str = _option("staeckel", "Action finder. o2gf takes seconds a star.", "staeckel|galpy|o2gf")
    delta: Any = _option("orbit", "Focal length of the Staeckel fudge, or one number [kpc].", "orbit|local|KPC")
    weights: str = _option("paper", "Weights of the stars in equation 8.", "paper|equal|total")
    neighbours: int = _option(64, "Neighbours of each star in action space.", "K")
    own_copies: bool = _option(False, "Count a star's copies in a resample as its neighbours.")
    naive_mean: bool = _option(False, "The plain mean of the neighbours (A1), not the weighted mean (A5).")
    angle: str = _option("theta_z", "Angle of the Fourier series.", "theta_z|theta_R")
    moment: str = _option("mean", "Moment of the abundance at fixed actions.", "mean|scatter")
    all_terms: bool = _option(False, "Include c0 and b2 in equation 8.")
    detrended: bool = _option(False, "Subtract the polynomial trend in the actions from the abundances first.")
    bins: int = _option(3, "Bins of J_z for chi^2; 0: no chi^2.", "N")
    surface: bool = _option(True, "Minimise on response surfaces, or go over the stars at every step.")

    def __post_init__(self) -> None:
        # these modules take seconds to import, and the command line reads this one at its start
        from ..dynamics import check_method
        from ..stars.preparation import delta_setting

        check_method(self.method)
        delta_setting(self.delta)
        for name, least in (("bootstraps", 2), ("neighbours", 4), ("bins", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: must be at least {least}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(known)}")

    def recorded(self) -> dict[str, Any]:
        """All settings as a result records them, ready for JSON: an array `delta` as its digest."""
        from ..stars.preparation import delta_setting

        return {**asdict(self), "delta": delta_setting(self.delta)}
