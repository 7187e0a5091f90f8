"""What a posterior depends on besides stars, elements and seed."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..base.errors import InputError
from ..base.settings import DELTA, Settings, setting

__all__ = ["SampleSettings"]

_CHECKABLE = 50  # draws: with fewer the tail of the surface's importance weights cannot be fitted


@dataclass(frozen=True)
class SampleSettings(Settings):
    """Settings of `otibayes.sample`; each is an option of `otibayes sample` too, with the help that stands here.

    `model` may also be a function that returns theta and a `GaussianField`; `delta` [kpc] an array (N,). Raises
    `InputError` for a value that is unknown, too small or does not go with another.
    """

    model: str | os.PathLike[str] | Callable[[Any], Any] = setting(
        "joint_abundances",
        "Generative model: a name in otibayes.models, or your own .py file, which is run.",
        "NAME_OR_PATH",
    )
    likelihood: str = setting("hilbert", "dense: to 2,000 stars.", choices=("hilbert", "dense"))
    surface: bool = setting(True, "Expand the likelihood in theta first.")
    chains: int = setting(4, "Chains, on as many cores as there are.", least=1)
    warmup: int = setting(200, "Draws of each chain to adapt, not kept.", least=1)
    draws: int = setting(850, "Draws of each chain to keep; more where chains have not converged.", least=4)
    basis_size: int | None = setting(
        None, "Cosines of 'hilbert'. Default: as the field's length scales ask for.", least=1, type=int
    )
    delta: Any = setting(**DELTA)
    keep_stars: int = setting(
        100_000, "Stars that the result holds, at random where there are more; the null test is of these.", "N", least=1
    )
    error_classes: int = setting(
        0,
        "0: abundance errors are part of the scatter. N: add each star's own, in N classes of like errors.",
        "N",
        least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.surface and self.likelihood != "hilbert":
            raise InputError(
                f"the response surface carries the 'hilbert' statistic; with likelihood {self.likelihood!r} give"
                " surface=False (--no-surface)"
            )
        if self.surface and self.chains * self.draws < _CHECKABLE:
            raise InputError(
                f"{self.chains} x {self.draws} draws are too few to check the surface; {_CHECKABLE} or more are needed,"
                " or surface=False (--no-surface)"
            )

    def record(self) -> dict[str, Any]:
        """As of every path; a user's model has its file's digest in its name."""
        from .model import named_model

        return super().record() | {"model": named_model(self.model)[0]}
