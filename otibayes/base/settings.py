"""What the settings of both paths have in common: read by Python, command line, checkpoint and result alike."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from .errors import InputError

__all__ = [
    "DELTA",
    "DELTAS",
    "METHOD",
    "METHODS",
    "Settings",
    "check_delta",
    "check_method",
    "delta_setting",
    "setting",
]


def setting(
    default: Any,
    help: str,
    metavar: str | None = None,
    least: int | None = None,
    choices: tuple[str, ...] = (),
    type: Any = None,
) -> Any:
    """A field of `Settings`: its default, what the command line says of it, and which values are allowed."""
    metavar = metavar or "|".join(choices) or None
    return field(
        default=default, metadata={"help": help, "metavar": metavar, "least": least, "choices": choices, "type": type}
    )


METHODS = ("staeckel", "galpy", "o2gf")
DELTAS = ("shell", "orbit", "local")
METHOD: dict[str, Any] = {
    "default": "staeckel",
    "metavar": "|".join(METHODS),
    "help": "Action finder. o2gf takes seconds a star.",
}
DELTA: dict[str, Any] = {
    "default": "shell",
    "metavar": "|".join([*DELTAS, "KPC"]),
    "help": "Focal length of the Staeckel fudge: of the star's shell orbit, the median along its own orbit, at its"
    " place, or one number [kpc].",
}


def check_method(method: str) -> None:
    """Raises `InputError` for an unknown action finder."""
    if method not in METHODS:
        raise InputError(f"unknown action method {method!r}; choose one of {', '.join(METHODS)}")


def check_delta(kind: str) -> None:
    """Raises `InputError` for an unknown kind of focal length."""
    if kind not in DELTAS:
        raise InputError(
            f"delta must be a number or array [kpc], or one of {', '.join(map(repr, DELTAS))}; got {kind!r}"
        )


def delta_setting(delta: Any) -> Any:
    """`delta` as it is recorded in a result: a name, a number, or the digest of an array."""
    if isinstance(delta, str):
        check_delta(delta)
        return delta
    import numpy as np  # here, because the command line reads settings at its start

    from .arrays import in_unit

    values = np.asarray(in_unit(delta, "kpc", "delta"), float)
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError("delta [kpc] must be positive and finite everywhere")
    return float(values) if values.ndim == 0 else f"array {hashlib.sha256(values.tobytes()).hexdigest()}"


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass whose fields are made by `setting`, `setting(**DELTA)` among them."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, about = getattr(self, f.name), f.metadata
            if about["least"] is not None and value is not None and value < about["least"]:
                raise InputError(f"{f.name}={value} is too small; at least {about['least']} is needed")
            if about["choices"] and value not in about["choices"]:
                raise InputError(f"unknown {f.name} {value!r}; choose one of {', '.join(about['choices'])}")
        Settings.record(self)  # refuses a delta that cannot be used

    @classmethod
    def given(cls, settings: Self | None, keywords: Mapping[str, Any]) -> Self:
        """These `settings`, or those that keywords name; `InputError` for both, and for an unknown keyword."""
        if settings is not None and keywords:
            raise InputError(f"give settings= or keywords, not both; keywords were {', '.join(keywords)}")
        known = [f.name for f in fields(cls)]
        if unknown := [name for name in keywords if name not in known]:
            raise InputError(f"there is no setting {unknown[0]!r}; choose from {', '.join(known)}")
        return settings or cls(**keywords)

    def record(self) -> dict[str, Any]:
        """All settings ready for JSON, as a result records them: an array `delta` as its digest."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"delta": delta_setting(values["delta"])}
