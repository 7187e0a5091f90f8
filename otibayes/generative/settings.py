"""What a posterior depends on besides stars, elements and seed: read by Python, command line, checkpoint and result."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from ..base.errors import InputError

__all__ = ["LIKELIHOODS", "SampleSettings"]

LIKELIHOODS = ("hilbert", "dense")
_CHECKABLE = 50  # draws: with fewer the tail of the surface's importance weights cannot be fitted


def _about(help: str, metavar: str | None = None, least: int | None = None, type: Any = None) -> dict[str, Any]:
    return {"help": help, "metavar": metavar, "least": least, "type": type}


@dataclass(frozen=True)
class SampleSettings:
    """Settings of `otibayes.sample`; each is an option of `otibayes sample` too, with the help that stands here.

    `model` may also be a function that returns theta and a `GaussianField`; `delta` [kpc] an array (N,). Raises
    `InputError` for a value that is unknown, too small or does not go with another.
    """

    model: str | os.PathLike[str] | Callable[[Any], Any] = field(
        default="joint_abundances",
        metadata=_about(
            "Generative model: a name in otibayes.models, or your own .py file, which is run.", "NAME_OR_PATH"
        ),
    )
    likelihood: str = field(default="hilbert", metadata=_about("dense: to 2,000 stars.", "hilbert|dense"))
    surface: bool = field(default=True, metadata=_about("Expand the likelihood in theta first."))
    chains: int = field(default=4, metadata=_about("Chains, on as many cores as there are.", least=1))
    warmup: int = field(default=200, metadata=_about("Draws of each chain to adapt, not kept.", least=1))
    draws: int = field(
        default=850, metadata=_about("Draws of each chain to keep; more where chains have not converged.", least=4)
    )
    basis_size: int | None = field(
        default=None,
        metadata=_about("Cosines of 'hilbert'. Default: as the field's length scales ask for.", None, 1, int),
    )
    delta: Any = field(
        default="shell",
        metadata=_about(
            "Focal length of the Staeckel fudge: of the star's shell orbit, the median along its own orbit, at its"
            " place, or one number [kpc].",
            "shell|orbit|local|KPC",
        ),
    )
    error_classes: int = field(
        default=0,
        metadata=_about(
            "0: abundance errors are part of the scatter. N: add each star's own, in N classes of like errors.", "N", 0
        ),
    )

    def __post_init__(self) -> None:
        from ..stars.preparation import delta_setting

        if self.likelihood not in LIKELIHOODS:
            raise InputError(f"unknown likelihood {self.likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")
        if self.surface and self.likelihood != "hilbert":
            raise InputError(
                f"the response surface carries the 'hilbert' statistic; with likelihood {self.likelihood!r} give"
                " surface=False (--no-surface)"
            )
        for f in fields(self):
            value, least = getattr(self, f.name), f.metadata["least"]
            if value is not None and least is not None and value < least:
                raise InputError(f"{f.name}={value} is too small; at least {least} is needed")
        if self.surface and self.chains * self.draws < _CHECKABLE:
            raise InputError(
                f"{self.chains} x {self.draws} draws are too few to check the surface; {_CHECKABLE} or more are needed,"
                " or surface=False (--no-surface)"
            )
        delta_setting(self.delta)

    def record(self) -> dict[str, Any]:
        """Ready for JSON: a user's model has its file's digest in its name, an array of focal lengths is a digest."""
        from ..stars.preparation import delta_setting
        from .model import named_model

        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"model": named_model(self.model)[0], "delta": delta_setting(self.delta)}
