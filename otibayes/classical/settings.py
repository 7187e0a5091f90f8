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


def _option(help: str, metavar: str | None = None) -> dict[str, Any]:
    """What the command line says about a field."""
    return {"help": help, "metavar": metavar}


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

    bootstraps: int = field(default=128, metadata=_option("Resamples of the stars.", "N"))
    method: str = field(
        default="staeckel", metadata=_option("Action finder. o2gf takes seconds a star.", "staeckel|galpy|o2gf")
    )
    delta: Any = field(
        default="shell",
        metadata=_option("Focal length of the Staeckel fudge, or one number [kpc].", "shell|orbit|local|KPC"),
    )
    weights: str = field(default="paper", metadata=_option("Weights of the stars in equation 8.", "paper|equal|total"))
    neighbours: int = field(default=64, metadata=_option("Neighbours of each star in action space.", "K"))
    own_copies: bool = field(default=False, metadata=_option("Count a star's copies in a resample as its neighbours."))
    naive_mean: bool = field(
        default=False, metadata=_option("The plain mean of the neighbours (A1), not the weighted mean (A5).")
    )
    angle: str = field(default="theta_z", metadata=_option("Angle of the Fourier series.", "theta_z|theta_R"))
    moment: str = field(default="mean", metadata=_option("Moment of the abundance at fixed actions.", "mean|scatter"))
    all_terms: bool = field(default=False, metadata=_option("Include c0 and b2 in equation 8."))
    detrended: bool = field(
        default=False, metadata=_option("Subtract the polynomial trend in the actions from the abundances first.")
    )
    bins: int = field(default=3, metadata=_option("Bins of J_z for chi^2; 0: no chi^2.", "N"))
    surface: bool = field(
        default=True, metadata=_option("Minimise on response surfaces, or go over the stars at every step.")
    )

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
