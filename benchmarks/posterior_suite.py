"""Posteriors of catalogues that differ in everything: from the file to the saved result, stage by stage.

    python benchmarks/posterior_suite.py run [--folder posterior-suite] [--survey-data FOLDER] [--only NAME]
    python benchmarks/posterior_suite.py table [--folder posterior-suite] [--markdown]

Each run is a process of its own, `otibayes sample` with default settings and seed 0, that compiles everything anew
(OTIBAYES_CACHE=off). `run` skips what the folder has. Real stars are run where --survey-data has their files.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
from catalogues import with_field
from posterior import copies

import otibayes as oti
from otibayes.base.store import write_whole
from otibayes.stars import embedded_stars
from otibayes.stars.labels import LABELS

THREE = ("FE_H", "MG_FE", "MN_FE")
HEAVY = oti.Parameters(1.4, 0.42, 20.8, 7.78)


def shuffled(number: int) -> oti.Stars:
    """Copies of embedded stars whose abundances tell nothing: each star has another's."""
    stars, order = copies(embedded_stars(), number), np.random.default_rng(0).permutation(number)
    return replace(stars, abundances={name: values[order] for name, values in stars.abundances.items()})


def another_field(number: int) -> object:
    table = oti.mock(number, 1, footprint="pencil-beams", processes=2)
    return with_field(table, "exponential", tuple(LABELS))


SYNTHETIC: dict[str, Callable[[], object]] = {
    "300-stars": lambda: embedded_stars()[:300],
    "embedded": embedded_stars,
    "shuffled": lambda: shuffled(6000),
    "heavy-disk": lambda: oti.mock(10_000, 2, HEAVY, THREE, processes=2),
    "mock": lambda: oti.mock(56_324, 0, processes=2),
    "another-field": lambda: another_field(56_324),
}
KEPLER = ["--column", "radial_velocity=rv", "--column", "MG_FE_ERR=MG_H_ERR", "--zero-point", "-0.05"]
REAL = {
    "kepler": ("kepler_apokasc2_gaiadr2.fits", [*KEPLER, "--elements", "MG_FE,FE_H,ALPHA_FE"]),
    "k2": ("apok2_both_sides.fits", ["--elements", "ALPHA_M,FE_H"]),
}


def made(name: str, folder: Path) -> Path:
    """The file of synthetic stars, made where there is none."""
    file = folder / f"{name}.fits"
    if not file.exists():
        stars = SYNTHETIC[name]()
        oti.write_table(stars.to_table() if isinstance(stars, oti.Stars) else stars, file)
    return file


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--folder", type=Path, default=Path("posterior-suite"))
@click.option("--survey-data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", type=click.Choice([*SYNTHETIC, *REAL]))
def run(folder: Path, survey_data: Path | None, only: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in [only] if only else [*SYNTHETIC, *REAL]:
        output = folder / f"{name}.nc"
        if output.exists():
            continue
        if name in SYNTHETIC:
            arguments = [made(name, folder)]
        elif survey_data:
            file, options = REAL[name]
            arguments = [survey_data / file, *options]
        else:
            click.echo(f"{name}: left out, because its stars need --survey-data")
            continue
        command = [sys.executable, "-m", "otibayes.cli", "sample", *arguments, "--seed", "0", "--output", output]
        start = time.perf_counter()
        with (folder / f"{name}.log").open("w") as log:
            environment = os.environ | {"OTIBAYES_CACHE": "off"}
            done = subprocess.run(list(map(str, command)), stdout=log, stderr=log, env=environment, check=False)
        seconds = time.perf_counter() - start
        write_whole(folder / f"{name}.json", lambda part, s=seconds: part.write_text(json.dumps({"seconds": s})))
        click.echo(f"{name}: {seconds:.0f} s" + ("" if done.returncode == 0 else f", failed: see {name}.log"))


def row(file: Path) -> dict[str, object]:
    """Size, time of each kind of stage [s], and quality of one result."""
    tree = oti.load(file)
    timings = tree["timings"].dataset.to_dataframe().seconds
    stage = timings.groupby(lambda name: name.split(",")[0]).sum()
    posterior = tree["posterior"].dataset
    about = {"stars": tree.attrs["stars"], "elements": posterior.sizes["element"]}
    about |= {"total": json.loads(file.with_suffix(".json").read_text())["seconds"]} | stage.to_dict()
    about |= {name: tree["surface"].attrs[name] for name in ("attempts", "degree", "combinations")}
    about |= {"R-hat": tree.attrs["max_r_hat"], "ESS": tree.attrs["min_ess_bulk"]}
    return about | {name: f"{posterior[name].mean():.2f} +- {posterior[name].std():.2f}" for name in ("m_disk", "h_z")}


@main.command()
@click.option("--folder", type=Path, default=Path("posterior-suite"))
@click.option("--markdown", is_flag=True)
def table(folder: Path, markdown: bool) -> None:
    shown = pd.DataFrame({file.stem: row(file) for file in sorted(folder.glob("*.nc"))})
    whole = shown.map(lambda value: f"{value:.3f}" if isinstance(value, float) and value < 2 else value)
    whole = whole.map(lambda value: f"{value:.0f}" if isinstance(value, float) else value)
    click.echo(whole.to_markdown() if markdown else whole.to_string())


if __name__ == "__main__":
    main()
