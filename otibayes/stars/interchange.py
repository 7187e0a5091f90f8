"""Stars from and to tables in memory, and how they show themselves."""

import json
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..base.notebook import html_table
from .table import META_KEY, table_of_frame
from .values import RANGES

if TYPE_CHECKING:  # pandas is slow to import
    import pandas as pd

    from .stars import Stars

__all__ = ["as_html", "as_pandas", "as_table", "as_text", "from_pandas"]


def as_table(stars: "Stars") -> Table:
    """An astropy table of the stars, in the columns and units that `read_stars` reads, `row` and `extra` besides."""
    table = Table()
    for name, values in stars.sky.items():
        unit = RANGES[name].unit
        table[name] = np.asarray(values, float) * unit
        if name in stars.astrometric_errors:
            table[f"{name}_error"] = np.asarray(stars.astrometric_errors[name], float) * unit
    for element, values in stars.abundances.items():
        table[element] = np.asarray(values, float) * u.dex
        if element in stars.errors:
            table[f"{element}_ERR"] = np.asarray(stars.errors[element], float) * u.dex
    for name, values in stars.extra.items():
        table[name] = np.asarray(values)
    if stars.row is not None:
        table["row"] = np.asarray(stars.row)
    provenance = stars.provenance
    table.meta[META_KEY] = json.dumps({"truth": dict(provenance.truth), "notes": list(provenance.notes)})
    return table


def as_pandas(stars: "Stars") -> "pd.DataFrame":
    """The same as a pandas data frame; units are those of `read_stars`, and truth and notes are in its `attrs`."""
    table = as_table(stars)
    frame = table.to_pandas(index=False)
    frame.attrs.update(table.meta)
    return frame


def from_pandas(frame: "pd.DataFrame") -> Table:
    """The astropy table of a data frame, missing values masked."""
    table = table_of_frame(frame)
    table.meta.update(frame.attrs)
    return table


def as_text(stars: "Stars") -> str:
    """One line: how many stars, of which catalogue, with what elements."""
    source = f" from {stars.provenance.source}" if stars.provenance.source else ""
    return f"<Stars: {len(stars)}{source}; {', '.join(stars.abundances) or 'no abundances'}>"


def as_html(stars: "Stars") -> str:
    """Median and range of each measured quantity, for a notebook."""
    columns: list[tuple[str, str, Any, Any]] = [
        (name, str(RANGES[name].unit), values, stars.astrometric_errors.get(name)) for name, values in stars.sky.items()
    ]
    columns += [(element, "dex", values, stars.errors.get(element)) for element, values in stars.abundances.items()]
    rows = []
    for name, unit, column, error in columns:
        values = np.asarray(column, float)
        known = values[np.isfinite(values)]
        low, middle, high = np.quantile(known, [0.05, 0.5, 0.95]) if known.size else [np.nan] * 3
        typical = "-" if error is None else f"{np.nanmedian(np.asarray(error, float)):.3g}"
        rows.append((name, unit, known.size, f"{low:.4g}", f"{middle:.4g}", f"{high:.4g}", typical))
    p = stars.provenance
    notes = [f"left out: {count} with {reason}" for reason, count in p.dropped]
    notes += [f"truth: {', '.join(f'{name} {value:g}' for name, value in p.truth)}"] * bool(p.truth)
    header = ["", "unit", "stars", "5%", "median", "95%", "median error"]
    return html_table(as_text(stars).strip("<>"), header, rows, [*notes, *p.notes])
