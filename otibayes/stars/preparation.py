"""Stars made ready for both paths: elements, labels, errors, focal lengths, and which stars are left out and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..base.arrays import in_unit
from ..base.errors import InputError
from ..base.parallel import BLOCK, threaded
from ..dynamics import (
    MILKY_WAY,
    MassModel,
    SampleActions,
    Status,
    action_angle,
    actions_of,
    focal_length,
    phase_space,
    prior_grid,
)
from .stars import Stars, in_words, names_of
from .values import clean_error, clean_label, first_reason, unusable

__all__ = ["PreparedStars", "prepare_stars"]

_TOGETHER = 8 * BLOCK  # stars


@dataclass(frozen=True, eq=False)
class PreparedStars:
    """The N `stars` that a path uses, their E `elements`, and focal lengths `delta` (N,) [kpc].

    `labels` and `errors` (N, E) [dex]; a label is NaN where it is missing; an error is NaN where there is none, or one
    that is zero or negative. `extent` (2, 3) [kpc km/s] holds the least and largest J_R, L_z, J_z over the prior.
    `actions(w, theta)` finds actions and angles of these stars in the mass `model`. Every star that was left out is
    counted in `stars.provenance.dropped`, by reason.
    """

    stars: Stars
    elements: tuple[str, ...]
    delta: np.ndarray
    labels: np.ndarray
    errors: np.ndarray
    extent: np.ndarray
    actions: SampleActions

    def __len__(self) -> int:
        return len(self.stars)

    @property
    def model(self) -> MassModel:
        """The mass model in which actions are found."""
        return self.actions.model


def prepare_stars(
    stars: Stars,
    elements: str | Sequence[str] | None = None,
    delta: Any = "shell",
    model: MassModel = MILKY_WAY,
    method: str | None = None,
    extra: str | Sequence[str] = (),
    every: bool = True,
) -> PreparedStars:
    """The stars that have what a path needs, everywhere in the prior.

    `elements`: None takes all; with `every` a star needs all of them, else one. `delta`: a number or (N,) [kpc],
    "shell", "orbit" or "local" (`focal_length` in the fiducial model). `method`: the action finder whose angles a star
    must have; None asks for actions by the Staeckel fudge only. `extra`: columns of `Stars.extra` that a star must
    have. A star without a usable position or velocity (`otibayes/stars/values.py`), or without actions at any point of
    `prior_grid`, is left out, for every theta alike.

    Raises `InputError` for an unknown or repeated element, a missing extra column, a delta of another shape, or where
    no star is left.
    """
    elements, total = _element_names(stars, elements), len(stars)
    if total == 0:
        raise InputError("there are no stars (0 rows); give some")
    if not isinstance(delta, str):
        delta = in_unit(delta, "kpc", "delta")
        if np.shape(delta) not in ((), (total,)):
            raise InputError(f"delta has shape {np.shape(delta)}; give one number, or one for each of {total} stars")
        delta = np.broadcast_to(np.asarray(delta, float), (total,))
    unknown = [name for name in names_of(extra) if name not in stars.extra]
    if unknown:
        raise InputError(
            f"the model needs {unknown[0]} of every star; read it with read_stars(..., extra=['{unknown[0]}'])"
        )
    stars = _cleaned(stars, elements)
    bad = unusable(stars.sky) | {f"{name} missing": ~np.isfinite(stars.extra[name]) for name in names_of(extra)}
    bad |= stars.lacking(elements, every)
    keep, dropped = first_reason(bad, total)
    if not keep.any():
        raise InputError(f"no star has all that is needed: {in_words(dropped)}; ask for fewer elements")
    stars = stars.without(bad).with_elements(elements, every)
    if isinstance(delta, str):
        delta = focal_length(phase_space(stars, model.Parameters()), model.Parameters(), delta, model)
    else:
        delta = delta[keep]

    J = _least_and_largest(stars, delta, model)
    solved = np.isfinite(J).all((1, 2))
    stars = stars.without({"undefined actions within the prior": ~solved})
    delta, J = delta[solved], J[solved]
    if method is not None and len(stars):
        solved = _has_angles(stars, delta, method, model)
        stars = stars.without({f"undefined angles by {method}": ~solved})
        delta, J = delta[solved], J[solved]
    if not len(stars):
        raise InputError(f"actions and angles are found of none of {total} stars; check distances and velocities")
    no_error = np.full(len(stars), np.nan)
    return PreparedStars(
        stars,
        elements,
        delta,
        np.stack([stars.abundances[e] for e in elements], 1),
        np.stack([stars.errors.get(e, no_error) for e in elements], 1),
        np.stack([J[:, 0].min(0), J[:, 1].max(0)]),
        SampleActions(delta, method or "staeckel", model),
    )


def _least_and_largest(stars: Stars, delta: np.ndarray, model: MassModel) -> np.ndarray:
    """Each star's least and largest J_R, L_z, J_z [kpc km/s] (N, 2, 3) over `prior_grid`; NaN where one is undefined.

    In blocks of stars, because the actions at all points of the prior fill the memory where stars are many.
    """
    grid = prior_grid(model)

    def of_block(start: int) -> np.ndarray:
        block = slice(start, start + _TOGETHER)
        some = stars[block]
        J = np.stack([actions_of(phase_space(some, theta), theta, delta[block], model) for theta in grid])
        return np.stack([J.min(0), J.max(0)], 1)

    return np.concatenate(threaded("prior", "block")(of_block, range(0, len(stars), _TOGETHER)))


def _cleaned(stars: Stars, elements: Sequence[str]) -> Stars:
    """With NaN for labels and errors of the elements that cannot be used."""
    known = [e for e in elements if e in stars.abundances]
    labels = {e: clean_label(e, np.asarray(stars.abundances[e], float))[0] for e in known}
    errors = {e: clean_error(e, np.asarray(stars.errors[e], float)) for e in known if e in stars.errors}
    return replace(stars, abundances={**stars.abundances, **labels}, errors={**stars.errors, **errors})


def _element_names(stars: Stars, elements: str | Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(stars.abundances) if elements is None else names_of(elements)
    if not names:
        raise InputError("no elements: the catalogue has no abundances, or none was asked for")
    repeated = sorted({e for e in names if names.count(e) > 1})
    if repeated:
        raise InputError(f"element {repeated[0]} is given twice; name each once")
    return names


def _has_angles(stars: Stars, delta: np.ndarray, method: str, model: MassModel) -> np.ndarray:
    """Which stars' angles a method finds in the fiducial model and at the ends of every parameter's range."""
    fiducial = model.Parameters()
    thetas = [fiducial]
    if method != "o2gf":  # seconds a star
        ends = [fiducial._replace(**{p.name: end}) for p in model.parameters for end in (p.low, p.high)]
        thetas += [theta for theta in ends if bool(model.allowed(theta))]
    solved = np.ones(len(stars), bool)
    for theta in thetas:
        status = action_angle(phase_space(stars, theta), theta, method, delta, model).status
        solved &= np.asarray(status) == Status.OK
    return solved
