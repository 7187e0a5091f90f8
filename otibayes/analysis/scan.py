"""The coefficients against one parameter, the others fixed, and where a2 vanishes (PW21, section 6.1 and Figure 6)."""

from typing import Any, NamedTuple

import numpy as np

from ..base import constants
from ..base.errors import InputError
from ..base.store import Store
from ..classical.statistic import Statistic

__all__ = ["Crossing", "Scan", "scan", "zero_crossing"]


class Crossing(NamedTuple):
    """Where a coefficient vanishes: `value`, and its `error` by interpolation of the error bars; NaN where nowhere.

    The error is half the distance between the crossings of the coefficient plus and minus its sd; one-sided where one
    of them crosses outside the values. `bootstrap`, the crossings (B,) of the resamples.
    """

    value: float
    error: float
    bootstrap: np.ndarray


class Scan(NamedTuple):
    """`parameter` by name and its `values` (V,); `series` (V, 1 + B, E, 5), the first of all stars."""

    parameter: str
    values: np.ndarray
    series: np.ndarray

    def crossing(self, label: int, coefficient: int = 3) -> Crossing:
        """Of a label's a2, or of another of c0, a1, b1, a2, b2."""
        measured = self.series[:, 0, label, coefficient]
        resampled = self.series[:, 1:, label, coefficient]
        sd = resampled.std(1, ddof=1)
        value = zero_crossing(self.values, measured)
        ends = np.array([zero_crossing(self.values, measured + sign * sd, near=value) for sign in (-1, 1)])
        known = ends[np.isfinite(ends)]
        return Crossing(
            value,
            float(np.abs(known - value).mean()) if len(known) else np.nan,
            np.array([zero_crossing(self.values, one, near=value) for one in resampled.T]),
        )


def zero_crossing(x: np.ndarray, y: np.ndarray, near: float | None = None) -> float:
    """Where y (V,) of ascending x (V,), linear between its points, vanishes; NaN where nowhere.

    Of several places that `near` a value, or, without, the one across which y changes most.
    """
    here = np.flatnonzero((np.sign(y[:-1]) * np.sign(y[1:]) <= 0) & (y[:-1] != y[1:]))
    if not len(here):
        return np.nan
    places = x[here] - y[here] * (x[here + 1] - x[here]) / (y[here + 1] - y[here])
    if near is not None and np.isfinite(near):
        return float(places[np.abs(places - near).argmin()])
    before, after = np.maximum(here - 2, 0), np.minimum(here + 3, len(x) - 1)
    return float(places[np.abs(y[after] - y[before]).argmax()])


def scan(
    statistic: Statistic,
    theta: Any,
    values: Any,
    parameter: str = "m_disk",
    store: Store = Store(),
) -> Scan:
    """Coefficients of a statistic at each of `values` of one `parameter`, the others as in `theta`, a `Parameters`.

    Values that leave the halo no mass are left out; the least mass that a fit leaves the halo is not required here.
    Raises `InputError` where no value is left.
    """
    model = statistic.model
    halo = model.components.get("halo")
    thetas = [theta._replace(**{parameter: float(value)}) for value in values]
    possible = [bool(model.allowed(t) if halo is None else halo(constants.R0, 0.0, t) < 0) for t in thetas]
    if not any(possible):
        raise InputError(f"none of these values of {parameter} leaves the halo any mass; lower them")
    points = [np.array(t) for t, one in zip(thetas, possible, strict=True) if one]
    passes = store.of("classical").map(statistic, points, statistic.like, "scan")
    return Scan(parameter, np.asarray(values, float)[possible], np.stack([one.series for one in passes]))
