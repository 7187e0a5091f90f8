"""`Stars`: what every later stage needs of a catalogue, as plain arrays, with a record of where they came from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..base.arrays import column, one_length
from ..base.errors import InputError
from ..dynamics.frame import heliocentric
from . import interchange
from .table import similar_names
from .values import RANGES, first_reason

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table

__all__ = ["Provenance", "Stars", "in_words", "names_of"]


@dataclass(frozen=True)
class Provenance:
    """Where stars came from: hashable, so that it can be the static part of a pytree.

    `source` is the file's name and `sha256` its digest; `rows` how many rows it had; `dropped` the (reason, count) of
    those left out; `truth` the (name, value) of a synthetic catalogue's parameters; `settings` the (name, value) of how
    it was read; `notes` what the user should know. `dataclasses.asdict` makes it ready for a result file.
    """

    source: str = ""
    sha256: str = ""
    rows: int = 0
    dropped: tuple[tuple[str, int], ...] = ()
    truth: tuple[tuple[str, float], ...] = ()
    settings: tuple[tuple[str, float | str], ...] = ()
    notes: tuple[str, ...] = ()

    def dropping(self, reasons: Iterable[tuple[str, int]]) -> "Provenance":
        """With more stars left out; a reason that is there already counts them together."""
        counts = dict(self.dropped)
        for reason, count in reasons:
            counts[reason] = counts.get(reason, 0) + count
        return replace(self, dropped=tuple(counts.items()))


@dataclass(frozen=True, eq=False, repr=False)
class Stars:
    """N stars: a JAX pytree of (N,) float64 arrays.

    `ra`, `dec` [deg, ICRS], `distance` [kpc], `pmra` (with cos dec), `pmdec` [mas/yr], `radial_velocity` [km/s,
    heliocentric]. `abundances` [dex] by element, NaN where missing; `errors` [dex] for those elements that have them;
    `astrometric_errors` by the name of the quantity, in its unit, for those that have them; `extra` by name what a
    model may ask for besides, e.g. LOGG and TEFF. `row` counts rows of the source table from 0.

    Quantities are converted to these units; lists, masked arrays, and columns of pandas and astropy become arrays, by
    position. Raises `InputError` for text, another kind of quantity, or columns of different lengths.
    """

    ra: Any
    dec: Any
    distance: Any
    pmra: Any
    pmdec: Any
    radial_velocity: Any
    abundances: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    astrometric_errors: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    row: Any = None
    provenance: Provenance = Provenance()

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {name: column(getattr(self, name), str(RANGES[name].unit), name) for name in _SKY}
        for group in _GROUPS:
            named = getattr(self, group)
            if not hasattr(named, "items"):
                raise InputError(f"{group}: {type(named).__name__} cannot be used; give columns by name")
            plain[group] = {str(name): column(values, self._unit(group, name), name) for name, values in named.items()}
        if self.row is not None:
            plain["row"] = np.atleast_1d(np.asarray(self.row))
        for name, values in plain.items():
            object.__setattr__(self, name, values)
        arrays = [(n, a) for n, v in plain.items() for n, a in (v.items() if isinstance(v, dict) else [(n, v)])]
        one_length([name for name, _ in arrays], [array for _, array in arrays])

    def _unit(self, group: str, name: Any) -> str | None:
        """The unit of a column beyond the six of the sky; None where it keeps its own."""
        if group == "astrometric_errors":
            return str(RANGES[name].unit) if name in RANGES else None
        unit = getattr(self.abundances[name], "unit", None) if group == "errors" and name in self.abundances else None
        return None if unit is None else str(unit)

    def __len__(self) -> int:
        return self.ra.shape[0]

    def __getitem__(self, index: Any) -> "Stars":
        """The stars that a mask, slice, integer or integer array picks out; the provenance is kept."""
        picked = np.atleast_1d(np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)])
        # Not jax.tree.map, which would sort the elements.
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "provenance"}
        return replace(self, **{name: _pick(values, picked) for name, values in arrays.items()})

    @staticmethod
    def from_table(table: "Table", **options: Any) -> "Stars":
        """Stars of an astropy table in memory; the options are those of `read_stars`."""
        from .catalogue import read_stars

        return read_stars(table, **options)

    @staticmethod
    def from_pandas(frame: "pd.DataFrame", **options: Any) -> "Stars":
        """Stars of a pandas data frame; the options are those of `read_stars`."""
        return Stars.from_table(interchange.from_pandas(frame), **options)

    def to_table(self) -> "Table":
        """An astropy table in the columns and units that `read_stars` reads."""
        return interchange.as_table(self)

    def to_pandas(self) -> "pd.DataFrame":
        """A pandas data frame in the columns and units that `read_stars` reads."""
        return interchange.as_pandas(self)

    def __repr__(self) -> str:
        return interchange.as_text(self)

    def _repr_html_(self) -> str:
        return interchange.as_html(self)

    @property
    def sky(self) -> dict[str, Any]:
        """The six columns of position and velocity by name."""
        return {name: getattr(self, name) for name in _SKY}

    @property
    def heliocentric(self) -> jax.Array:
        """Cartesian position [kpc] and velocity [km/s] relative to the Sun (N, 6); see `otibayes.dynamics.frame`."""
        return heliocentric(**self.sky)

    def without(self, bad: Mapping[str, np.ndarray]) -> "Stars":
        """Without the stars that are bad for any reason; each is counted in the provenance under the first."""
        keep, dropped = first_reason(bad, len(self))
        return replace(self[keep], provenance=self.provenance.dropping(dropped)) if dropped else self

    def lacking(self, elements: Sequence[str], every: bool = True) -> dict[str, np.ndarray]:
        """Stars (N,) that lack one of these elements, by the element, or, without `every`, that lack them all.

        Raises `InputError` for an unknown element.
        """
        unknown = [e for e in elements if e not in self.abundances]
        if unknown:
            near = ", ".join(similar_names(unknown[0], self.abundances) or self.abundances) or "no abundances"
            raise InputError(f"element {unknown[0]} is not in the catalogue; found: {near}")
        missing = {f"{e} missing": ~np.isfinite(self.abundances[e]) for e in elements}
        return missing if every else {"all elements missing": np.all(list(missing.values()), axis=0)}

    def with_elements(self, elements: str | Sequence[str], every: bool = True) -> "Stars":
        """Only these elements, and only the stars that have them all, or, without `every`, at least one.

        Stars without are counted in the provenance, each under the first element it lacks. Raises `InputError` for an
        unknown element, or where no star has them all.
        """
        elements = names_of(elements)
        if not len(self):
            raise InputError("there are no stars (0 rows); give some")
        lacking = self.lacking(elements, every)
        keep, dropped = first_reason(lacking, len(self))
        if not keep.any():
            raise InputError(f"no star has all of {', '.join(elements)}: {in_words(dropped)}; ask for fewer elements")
        abundances = {e: self.abundances[e] for e in elements}
        errors = {e: self.errors[e] for e in elements if e in self.errors}
        return replace(self, abundances=abundances, errors=errors).without(lacking)


_SKY = ("ra", "dec", "distance", "pmra", "pmdec", "radial_velocity")
_GROUPS = ("abundances", "errors", "astrometric_errors", "extra")
_ARRAYS = (*_SKY, *_GROUPS, "row")


def _flatten(stars: Stars) -> tuple[tuple[Any, ...], Provenance]:
    return tuple(getattr(stars, name) for name in _ARRAYS), stars.provenance


def _unflatten(provenance: Provenance, children: Iterable[Any]) -> Stars:
    """Without the checks of the constructor: JAX puts anything in place of an array."""
    stars = object.__new__(Stars)
    for name, value in zip((*_ARRAYS, "provenance"), (*children, provenance), strict=True):
        object.__setattr__(stars, name, value)
    return stars


jax.tree_util.register_pytree_node(Stars, _flatten, _unflatten)


def _pick(values: Any, rows: np.ndarray) -> Any:
    if isinstance(values, dict):
        return {name: array[rows] for name, array in values.items()}
    return None if values is None else values[rows]


def names_of(elements: str | Sequence[str]) -> tuple[str, ...]:
    """Names in a sequence, or in one text between commas."""
    names = elements.split(",") if isinstance(elements, str) else elements
    return tuple(name.strip() for name in names if name.strip())


def in_words(dropped: Sequence[tuple[str, int]]) -> str:
    """Reasons and counts as a list: "3 with pmra missing, 1 with distance <= 0"."""
    return ", ".join(f"{count} with {reason}" for reason, count in dropped)
