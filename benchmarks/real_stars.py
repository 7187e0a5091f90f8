"""Posteriors of real stars, by labels and by parts of the sky: do they agree with one another?

    python benchmarks/real_stars.py run --survey-data FOLDER [--folder real-stars] [--only NAME]
    python benchmarks/real_stars.py table [--folder real-stars] [--markdown]

FOLDER has apok2_both_sides.fits (APOGEE DR17 labels, Gaia EDR3 astrometry, K2's red giants) and
kepler_apokasc2_gaiadr2.fits (APOKASC-2, Gaia DR2). K2's stars have a parallax S/N above 8, and radii within 1.5 kpc of
the Sun's. Kepler's have v_phi > 140 km/s. `run` skips what it has.
"""

import json
from pathlib import Path
from typing import NamedTuple

import click
import jax
import numpy as np
import pandas as pd
from catalogues import kept

import otibayes as oti
from otibayes.base.constants import R0
from otibayes.dynamics import PhaseSpace, galactocentric

TWO = ("ALPHA_M", "FE_H")
KEPLER = ("MG_FE", "FE_H", "ALPHA_FE")
PARAMETERS = oti.Parameters._fields
SHOWN = (*PARAMETERS, "Sigma_1p1")
WITHIN = 1.5  # kpc of the Sun's radius
LOW_ALPHA = 0


class Sample(NamedTuple):
    """Stars of one survey with these labels: of both alpha sequences or of the low one, and of a `part` of the sky."""

    survey: str
    labels: tuple[str, ...]
    low_alpha: bool = True
    part: str = "all"


SAMPLES = {
    "K2, low alpha, [alpha/M] and [Fe/H]": Sample("k2", TWO),
    "Kepler, [Mg/Fe], [Fe/H], [alpha/Fe]": Sample("kepler", KEPLER),
    "K2, low alpha, [alpha/M]": Sample("k2", ("ALPHA_M",)),
    "K2, low alpha, [Fe/H]": Sample("k2", ("FE_H",)),
    "K2, low alpha, [O/Fe]": Sample("k2", ("O_FE",)),
    "K2, low alpha, age": Sample("k2", ("AGE_RGB",)),
    "K2, all, [alpha/M] and [Fe/H]": Sample("k2", TWO, low_alpha=False),
    "K2, low alpha, inside the Sun": Sample("k2", TWO, part="inside"),
    "K2, low alpha, outside the Sun": Sample("k2", TWO, part="outside"),
    "K2, low alpha, above the plane": Sample("k2", TWO, part="above"),
    "K2, low alpha, below the plane": Sample("k2", TWO, part="below"),
}
PARTS = {
    "all": lambda w: w.R > 0,
    "inside": lambda w: w.R < R0,
    "outside": lambda w: w.R > R0,
    "above": lambda w: w.z > 0,
    "below": lambda w: w.z < 0,
}


def place(stars: oti.Stars) -> PhaseSpace:
    """Where the stars are in the fiducial frame."""
    return jax.tree.map(np.asarray, galactocentric(stars.heliocentric, oti.Parameters()))


def stars_of(sample: Sample, folder: Path) -> oti.Stars:
    if sample.survey == "kepler":
        columns = {"radial_velocity": "rv", "MG_FE_ERR": "MG_H_ERR"}
        file = folder / "kepler_apokasc2_gaiadr2.fits"
        stars = oti.read_stars(file, columns, sample.labels, parallax_zero_point=-0.05)
        return stars[place(stars).vT > 140]
    stars = oti.read_stars(folder / "apok2_both_sides.fits", elements=sample.labels, extra=["alpha_flag"])
    w = place(stars)
    # the relative error of the distance is that of the parallax
    good = stars.distance / stars.astrometric_errors["distance"] > 8
    good &= (np.abs(w.R - R0) < WITHIN) & PARTS[sample.part](w)
    return stars[good & (stars.extra["alpha_flag"] == LOW_ALPHA)] if sample.low_alpha else stars[good]


def answer(stars: oti.Stars, seed: int) -> dict:
    tree = oti.sample(stars, seed=seed)
    draws = tree["posterior"].dataset
    null = oti.null_test(tree).pull
    return {
        "stars": int(tree.attrs["stars"]),
        "pull": {name: float(tree["pull"][name]) for name in PARAMETERS},
        "null": {str(c): np.round(null.sel(coefficient=c).values, 2).tolist() for c in null.coefficient.values},
        **{name: float(tree.attrs[name]) for name in ("max_r_hat", "min_ess_bulk", "converged")},
        "found": {name: [float(draws[name].mean()), float(draws[name].std())] for name in SHOWN},
    }


@click.group(help=__doc__)
def main() -> None:
    pass


def file_of(name: str, folder: Path) -> Path:
    return folder / (name.translate(str.maketrans({c: "-" for c in " ,[]/"})) + ".json")


@main.command()
@click.option("--survey-data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--folder", type=Path, default=Path("real-stars"))
@click.option("--only", type=click.Choice(list(SAMPLES)))
def run(survey_data: Path, folder: Path, only: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in [only] if only else SAMPLES:
        file = file_of(name, folder)
        found = kept(file, lambda sample=SAMPLES[name]: answer(stars_of(sample, survey_data), seed=0))
        click.echo(f"{name}: {found}")


@main.command()
@click.option("--folder", type=Path, default=Path("real-stars"))
@click.option("--markdown", is_flag=True)
def table(folder: Path, markdown: bool) -> None:
    rows = {}
    for name in SAMPLES:
        if (file := file_of(name, folder)).exists():
            found = json.loads(file.read_text())
            rows[name] = {"stars": str(found["stars"])}
            for k in SHOWN:
                mean, sd = found["found"][k]
                rows[name][k] = f"{mean:.1f} +- {sd:.1f}" if sd > 2 else f"{mean:.2f} +- {sd:.2f}"
            pull, b2 = max(found["pull"].values(), key=abs), max(found["null"]["b2"], key=abs)
            rows[name] |= {"pull": f"{pull:+.2f}", "b2": f"{b2:+.1f}", "R-hat": f"{found['max_r_hat']:.3f}"}
    shown = pd.DataFrame(rows).T
    click.echo(shown.to_markdown() if markdown else shown.to_string())


if __name__ == "__main__":
    main()
