"""`Stars`: what every later stage needs of a catalogue, as plain arrays, with a record of where they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..base.errors import InputError
from ..dynamics.frame import heliocentric
from . import interchange
from .table import similar_names

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table

__all__ = ["Provenance", "Stars", "first_reason", "in_words"]


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


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        *("ra", "dec", "distance", "pmra", "pmdec", "radial_velocity"),
        *("abundances", "errors", "astrometric_errors", "extra", "row"),
    ],
    meta_fields=["provenance"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Stars:
    """N stars: a JAX pytree of (N,) float64 arrays.

    `ra`, `dec` [deg, ICRS], `distance` [kpc], `pmra` (with cos dec), `pmdec` [mas/yr], `radial_velocity` [km/s,
    heliocentric]. `abundances` [dex] by element, NaN where missing; `errors` [dex] for those elements that have them;
    `astrometric_errors` by the name of the quantity, in its unit, for those that have them; `extra` by name what a
    model may ask for besides, e.g. LOGG and TEFF. `row` counts rows of the source table from 0.
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
    def heliocentric(self) -> jax.Array:
        """Cartesian position [kpc] and velocity [km/s] relative to the Sun (N, 6); see `otibayes.dynamics.frame`."""
        return heliocentric(self.ra, self.dec, self.distance, self.pmra, self.pmdec, self.radial_velocity)

    def with_elements(self, elements: Sequence[str], every: bool = True) -> "Stars":
        """Only these elements, and only the stars that have them all, or, without `every`, at least one.

        Stars without are counted in the provenance, each under the first element it lacks. Raises `InputError` for an
        unknown element, or where no star has them all.
        """
        unknown = [e for e in elements if e not in self.abundances]
        if unknown:
            found = ", ".join(similar_names(unknown[0], self.abundances) or self.abundances) or "no abundances"
            raise InputError(f"element {unknown[0]} is not in the catalogue; found: {found}")
        missing = {f"{e} missing": np.isnan(self.abundances[e]) for e in elements}
        if not every:
            missing = {"all elements missing": np.all(list(missing.values()), axis=0)}
        keep, dropped = first_reason(missing, len(self))
        if not keep.any():
            raise InputError(f"no star has all of {', '.join(elements)}: {in_words(dropped)}; ask for fewer elements")
        chosen = replace(
            self,
            abundances={e: self.abundances[e] for e in elements},
            errors={e: self.errors[e] for e in elements if e in self.errors},
            provenance=replace(self.provenance, dropped=self.provenance.dropped + dropped),
        )
        return chosen[keep]


def _pick(values: Any, rows: np.ndarray) -> Any:
    if isinstance(values, dict):
        return {name: array[rows] for name, array in values.items()}
    return None if values is None else values[rows]


def first_reason(bad: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, tuple[tuple[str, int], ...]]:
    """Rows that nothing is wrong with (n,), and for each reason the number of rows it is the first to apply to."""
    keep, dropped = np.ones(n, bool), []
    for reason, rows in bad.items():
        if count := int(np.sum(keep & rows)):
            dropped.append((reason, count))
        keep &= ~rows
    return keep, tuple(dropped)


def in_words(dropped: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{count} with {reason}" for reason, count in dropped)
