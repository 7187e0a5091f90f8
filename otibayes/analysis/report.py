"""One self-contained page of both answers: stars, numbers, figures, what to doubt, and how to make it again."""

import base64
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from .comparison import compare, describe

if TYPE_CHECKING:  # slow to import
    import pandas as pd
    import xarray as xr

__all__ = ["Picture", "report"]

# What the table's columns NAME_mean and NAME_sd are called in the page; others keep their name
_ANSWERS = {
    "eq8": "classical, eq. 8 (errors across its valley only)",
    "chi2": "classical, chi^2",
    "posterior": "posterior",
}


class Picture(NamedTuple):
    """A figure as PNG, with its title and what to see in it."""

    title: str
    caption: str
    png: bytes


class _Answer(NamedTuple):
    mean: str
    sd: str


@dataclass(frozen=True)
class _Stars:
    """The stars of a result, as far as a figure needs them."""

    heliocentric: np.ndarray
    abundances: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.heliocentric)


def report(
    classical: "xr.DataTree",
    posterior: "xr.DataTree",
    commands: Sequence[str] = (),
    pictures: Iterable[Picture] = (),
    run_file: str = "",
) -> str:
    """HTML of the comparison of two results, without anything that needs a network.

    `commands` are those that make the page again; `pictures` come before the page's own figures; `run_file` is the text
    of a run file. Raises `InputError` as `compare`.
    """
    table = compare(classical, posterior)
    figures = [
        (one.title, one.caption, base64.b64encode(one.png).decode(), _is_wide(one.png))
        for one in (*pictures, *_pictures(classical, posterior))
    ]
    page = Environment(
        loader=PackageLoader("otibayes.analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    return page.render(
        elements=posterior.attrs["elements"].split(","),
        answers=_answers(table),
        rows=list(_rows(table)),
        truth_known=bool(table.truth.notna().any()),
        doubts=[f"{name}: {note}" for name, note in table.note.items() if note] + describe(classical, posterior),
        figures=figures,
        diagnostics=list(_diagnostics(table)),
        results=[_result("Classical fit", classical), _result("Posterior", posterior)],
        commands=commands,
        run_file=run_file,
        version=json.loads(posterior.attrs.get("versions", "{}")).get("otibayes", ""),
    )


def _answers(table: "pd.DataFrame") -> list[tuple[str, str]]:
    """(prefix of the columns, heading) of every answer that holds all elements together."""
    pairs = [c.removesuffix("_mean") for c in table.columns if c.endswith("_mean")]
    return [(name, _ANSWERS[name]) for name in pairs if name in _ANSWERS]


def _rows(table: "pd.DataFrame") -> Iterator[dict[str, Any]]:
    for name, row in table.iterrows():
        answers = [_shown(row, key) for key, _ in _answers(table)]
        low, high = (_rounded(row[end], row["posterior_sd"]).mean for end in ("low_95", "high_95"))
        truth = "" if np.isnan(row["truth"]) else _rounded(row["truth"], row["posterior_sd"]).mean
        yield {"name": name, "unit": row["unit"], "answers": answers, "low": low, "high": high, "truth": truth}


def _shown(row: "pd.Series", key: str) -> str:
    """An answer with its sd, or with its 68% interval where both ends are known."""
    mean, sd = _rounded(row[f"{key}_mean"], row[f"{key}_sd"])
    ends = [row.get(f"{key}_{side}_68", np.nan) for side in ("low", "high")]
    if np.isfinite(ends).all():
        low, high = (_rounded(end, row[f"{key}_sd"]).mean for end in ends)
        return f"{mean} ({low} to {high})"
    return f"{mean} ± {sd}"


def _rounded(mean: float, sd: float) -> _Answer:
    """Both numbers to the second digit of the error."""
    if not (np.isfinite(mean) and np.isfinite(sd)):
        return _Answer("-", "-")
    if sd <= 0:
        return _Answer(f"{mean:.4g}", f"{sd:.1g}")
    size = int(np.floor(np.log10(sd)))
    if abs(mean) >= 1e5:
        power = int(np.floor(np.log10(abs(mean))))
        decimals = max(power - size + 1, 1)
        return _Answer(f"{mean / 10**power:.{decimals}f}e{power}", f"{sd / 10**power:.{decimals}f}e{power}")
    decimals = max(1 - size, 0)
    return _Answer(f"{mean:z.{decimals}f}", f"{sd:.{decimals}f}")


def _diagnostics(table: "pd.DataFrame") -> Iterator[tuple[str, str, str, str]]:
    for name, row in table.iterrows():
        yield str(name), f"{row['r_hat']:.3f}", f"{row['ess_bulk']:.0f}", f"{row['ess_tail']:.0f}"


def _result(title: str, tree: "xr.DataTree") -> dict[str, Any]:
    """What a result follows from."""
    attrs = tree.attrs
    provenance = json.loads(attrs.get("provenance", "{}"))
    return {
        "title": title,
        "stars": attrs["stars"],
        "rows": provenance.get("rows", 0),
        "catalogue": attrs.get("catalogue", ""),
        "sha256": attrs.get("catalogue_sha256", ""),
        "seed": attrs.get("seed", ""),
        "settings": json.loads(attrs.get("settings", "{}")),
        "versions": json.loads(attrs.get("versions", "{}")),
        "dropped": json.loads(attrs["dropped"]),
        "notes": provenance.get("notes", []),
    }


def _pictures(classical: "xr.DataTree", posterior: "xr.DataTree") -> Iterator[Picture]:
    """The figures that these results can show."""
    from .plot import plot_comparison, plot_field, plot_null_test, plot_profiles, plot_selection

    data = posterior["constant_data"].dataset
    if "heliocentric" in data:
        elements = data.element.values.tolist()
        abundances = dict(zip(elements, data["abundances"].values.T, strict=True))
        stars: Any = _Stars(data["heliocentric"].values, abundances)
        yield Picture(
            "The stars",
            "Left: the chemical plane. Middle: the Galactic plane from above; the star is the Sun. Right: height and"
            " vertical velocity. Stars on one side of the plane only tell mass and scale height hardly apart.",
            _png(plot_selection(stars)),
        )
    yield Picture(
        "The answers",
        "Each pair of parameters: draws and contours (1 and 2 sigma) of the posterior; ellipses of the classical fit.",
        _png(plot_comparison(classical, posterior)),
    )
    if "field" not in posterior.children:
        return
    yield Picture(
        "The mass model",
        "What follows from the posterior: medians with 68% and 95%, the prior in grey.",
        _png(plot_profiles(posterior)),
    )
    yield Picture(
        "The abundance field",
        "Mean abundance over the actions and over height and vertical velocity, as the posterior has it.",
        _png(plot_field(posterior)),
    )
    yield Picture(
        "The null test",
        "Residuals against the vertical angle. They should be flat: sin 2 theta is the term that no parameter can"
        " change, and a z-score beyond 3 there says that an assumption fails.",
        _png(plot_null_test(posterior)),
    )


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _is_wide(png: bytes) -> bool:
    """Whether a phone had better scroll it sideways: more than twice as wide as it is high (from the PNG's header)."""
    width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))
    return width > 2 * height
