"""Table 1 of PW21: the joint constraint of all elements, and of any subset, from a classical result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import InputError
from ..classical.joint import MARK, Joint, joint_constraints, joint_gls, joint_product
from ..dynamics import MILKY_WAY, MassModel

if TYPE_CHECKING:  # pandas is slow to import
    import pandas as pd
    import xarray as xr

__all__ = ["excluding", "joint_of", "table_1", "table_1_text"]

_DERIVED = ("M_disk", "M_disk_over_M_halo")
_TITLES = {"product": "eq. 8*, product", "gls": "eq. 8*, cross-covariance", "chi2": "chi^2 (ours)"}


def excluding(classical: "xr.DataTree", exclude: Sequence[str] = (), model: MassModel = MILKY_WAY) -> list[str]:
    """The elements of a classical result that are left; `InputError` for an unknown one, or where none is."""
    names = ",".join(p.name for p in model.parameters)
    if classical.attrs["parameters"] != names:
        raise InputError(f"the result has parameters {classical.attrs['parameters']}, the mass model {names}; give its")
    elements = [str(e) for e in classical["posterior"].element.values]
    unknown = [e for e in exclude if e not in elements]
    if unknown:
        raise InputError(f"element {unknown[0]} is not in the result; found: {', '.join(elements)}")
    kept = [e for e in elements if e not in exclude]
    if not kept:
        raise InputError("every element is excluded; leave one")
    return kept


def _replicates(classical: "xr.DataTree", elements: Sequence[str], model: MassModel) -> np.ndarray:
    """(E, B, d) of equation 8."""
    draws = classical["posterior"].dataset.sel(element=list(elements), chain=0)
    return np.stack([draws[p.name].transpose("element", "draw").values for p in model.parameters], -1)


def joint_of(classical: "xr.DataTree", exclude: Sequence[str] = (), model: MassModel = MILKY_WAY) -> dict[str, Joint]:
    """Joint constraints of equation 8 without some elements: "product", and "gls" with enough bootstraps."""
    replicates = _replicates(classical, excluding(classical, exclude, model), model)
    found = {"product": joint_product(replicates)}
    if len(replicates) * replicates.shape[2] + 2 < replicates.shape[1]:
        found["gls"] = joint_gls(replicates)
    return found


def table_1(classical: "xr.DataTree", exclude: Sequence[str] = (), model: MassModel = MILKY_WAY) -> "pd.DataFrame":
    """Joint constraints of all elements, and without those of `exclude`, a row for each quantity (PW21, Table 1).

    Rows: the parameters, M_disk [Msun] and M_disk/M_halo within 8.1 kpc. Columns: (elements, constraint, "mean" or
    "sd"): of equation 8 the paper's "product" of Gaussians and "gls" with the cross-covariance of the elements, both
    with errors across its valley only; "chi2", the minimum of the elements' sum; each where there are enough
    bootstraps. Derived quantities are to first order. Raises `InputError` as `excluding`.
    """
    import pandas as pd

    groups = {"all": excluding(classical, (), model)}
    if exclude:
        groups["without " + ", ".join(exclude)] = excluding(classical, exclude, model)
    columns: dict[Any, dict[str, float]] = {}
    for title, elements in groups.items():
        ours = classical["chi2"].dataset.sel(element=elements) if "chi2" in classical.children else None
        joint = joint_constraints(_replicates(classical, elements, model), model, ours, profiles=False)
        if joint is None:
            continue
        for name in joint.combination.values.tolist():
            one = joint.sel(combination=name)
            sd = np.sqrt(np.diagonal(one.covariance.values))
            values = dict(zip(one.parameter.values.tolist(), zip(one["mean"].values, sd, strict=True), strict=True))
            for quantity in _DERIVED:
                here = one.sel(derived=quantity)
                values[quantity] = (float(here.derived_mean), float(here.derived_sd))
            columns[title, name, "mean"] = {quantity: float(v[0]) for quantity, v in values.items()}
            columns[title, name, "sd"] = {quantity: float(v[1]) for quantity, v in values.items()}
    if not columns:
        raise InputError("no joint constraint: it needs more bootstraps than parameters")
    table = pd.DataFrame(columns)
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["elements", "constraint", ""])
    table.index = pd.Index(table.index, name="quantity")
    units = {p.name: p.unit for p in model.parameters} | {"M_disk": "Msun"}
    table.insert(0, ("", "", "unit"), [units.get(name, "") for name in table.index])
    return table


def table_1_text(table: "pd.DataFrame") -> str:
    """For a terminal: mean +- sd, a column for each constraint."""
    import pandas as pd

    shown = {("", "unit"): table["", "", "unit"]}
    for title, name in dict.fromkeys((a, b) for a, b, c in table.columns if c == "mean"):
        mean, sd = table[title, name, "mean"], table[title, name, "sd"]
        shown[title, _TITLES[name]] = [_rounded(m, s) for m, s in zip(mean, sd, strict=True)]
    return f"{pd.DataFrame(shown, index=table.index).to_string()}\n* {MARK}"


def _rounded(mean: float, sd: float) -> str:
    """To two digits of the error; a power of ten in front of what is large."""
    if not np.isfinite([mean, sd]).all():
        return "-"
    power = int(np.floor(np.log10(abs(mean)))) if abs(mean) >= 1e4 else 0
    mean, sd = mean / 10**power, sd / 10**power
    digits = max(0, 1 - int(np.floor(np.log10(sd)))) if sd > 0 else 3
    text = f"{mean:.{digits}f} +- {sd:.{digits}f}"
    return f"({text})e{power}" if power else text
