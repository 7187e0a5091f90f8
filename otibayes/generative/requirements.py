"""What a generative model may ask for besides stars and elements, told by a decorator on it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..dynamics import MILKY_WAY, MassModel

__all__ = ["Requirements", "requires", "requirements_of"]


class Requirements(NamedTuple):
    """`mass_model` in place of the default one; `extra`, columns of the stars on which abundances depend linearly, with
    wide priors (`Stars.extra`); `tails`, the degrees of freedom of a Student t whose weights the stars get."""

    mass_model: MassModel = MILKY_WAY
    extra: tuple[str, ...] = ()
    tails: float | None = None


def requires(
    mass_model: MassModel = MILKY_WAY, extra: Sequence[str] = (), tails: float | None = None
) -> Callable[[Any], Any]:
    """A decorator of a model: see `Requirements`."""

    def mark(model: Any) -> Any:
        model.requirements = Requirements(mass_model, tuple(extra), tails)
        return model

    return mark


def requirements_of(model: Any) -> Requirements:
    """What a model asks for; nothing by default."""
    return getattr(model, "requirements", Requirements())
