"""The parameter table: name, unit, fiducial value, bounds and prior of every dynamical parameter.

Priors, Nelder-Mead bounds, labels and units are all read from this one table. A mass model with parameters of
its own carries a longer table (`otibayes.dynamics.potential.MassModel`).
"""

from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

from .arrays import in_unit

__all__ = ["TABLE", "Parameter", "Parameters", "parameters_type"]


class Parameter(NamedTuple):
    """One row of a parameter table.

    The prior is uniform between the bounds, or, where `prior_sd` is given, Normal(fiducial, prior_sd) truncated to
    them. `symbol` is the TeX label of figures.
    """

    name: str
    symbol: str
    unit: str
    fiducial: float
    low: float
    high: float
    prior_sd: float | None = None


TABLE = (
    Parameter("m_disk", r"M_{\rm disk}/M^*_{\rm disk}", "", 1.0, 0.4, 1.8),
    Parameter("h_z", r"h_z", "kpc", 0.28, 0.05, 1.0),
    Parameter("z_sun", r"z_\odot", "pc", 20.8, -100.0, 100.0, prior_sd=30.0),
    Parameter("vz_sun", r"v_{z,\odot}", "km/s", 7.78, 0.0, 15.0, prior_sd=3.0),
)


def parameters_type(table: Sequence[Parameter]) -> Any:
    """The named tuple (hence a JAX pytree) that holds one value per row of `table`, fiducial by default.

    Quantities are converted to the unit of their row. Raises `InputError` for text and for another kind of quantity.
    """
    plain = namedtuple("Parameters", [p.name for p in table], defaults=[p.fiducial for p in table])  # type: ignore[misc]

    class Parameters(plain):  # type: ignore[valid-type, misc]
        __slots__ = ()

        def __new__(cls, *values: Any, **named: Any) -> Any:
            return cls._make(plain(*values, **named))

        @classmethod
        def _make(cls, values: Any) -> Any:  # type: ignore[override]
            rows = zip(values, table, strict=True)
            return tuple.__new__(cls, [in_unit(value, p.unit, p.name) for value, p in rows])

    return Parameters


Parameters = parameters_type(TABLE)
Parameters.__qualname__ = "Parameters"  # so that other processes find it
Parameters.__doc__ = """The default four parameters: m_disk (-), h_z (kpc), z_sun (pc), vz_sun (km/s).

A named tuple and JAX pytree; what is not given takes its fiducial value, and a quantity is converted to its unit.
"""
