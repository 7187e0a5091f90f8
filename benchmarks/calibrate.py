"""Calibration: how often intervals hold the truth, on synthetic catalogues whose truth is not made by our code.

    python benchmarks/calibrate.py run [--seeds 60] [--first 0] [--field exponential] [--stars 10000]
                                       [--folder calibration] [--jobs 1] [--only posterior]
    python benchmarks/calibrate.py table [--folder calibration] [--output FILE.csv]
    python benchmarks/calibrate.py table --rows benchmarks/calibration.csv [--figure FILE.png]

Each catalogue has 3 elements, a truth drawn from its seed (m_disk 0.7-1.4, h_z 0.2-0.45 kpc, z_sun 0-30 pc, vz_sun
6-10 km/s), one of four shapes of the abundance field in turn, and all-sky or pencil-beam fields in turn. Stars and
abundances come from gala's orbits. `run` keeps one JSON file a catalogue and answer, and skips what it has. `table`
prints coverage of the 50, 68, 90 and 95% intervals with binomial errors, mean deviations in sigma with their errors,
and the Mahalanobis distances of the truth against chi^2 of 4 degrees of freedom, for the posterior, chi^2 and
equation 8; of all catalogues, and by shape of the field. Of chi^2, deviations are signed roots of its profiles, and the
distance is its rise at the truth. Rows that were made once are in benchmarks/calibration.csv.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pandas as pd
from catalogues import FIELDS, held, off_truth, run_in_processes, with_field
from scipy.optimize import least_squares
from scipy.stats import binom, chi2, kstest, norm

import otibayes as oti
from otibayes.base.store import write_whole
from otibayes.classical.joint import ElementsChi2, elements_chi2
from otibayes.classical.objective import scales
from otibayes.dynamics import MILKY_WAY

STUDY = 2026
ELEMENTS = ("FE_H", "MG_FE", "MN_FE")
PARAMETERS = oti.Parameters._fields
LOW, HIGH = np.array([[0.7, 1.4], [0.2, 0.45], [0.0, 30.0], [6.0, 10.0]]).T
LOWEST, HIGHEST = np.array([[p.low, p.high] for p in MILKY_WAY.parameters]).T
LEVELS = (0.5, 0.68, 0.9, 0.95)
BOOTSTRAPS = 64
ANSWERS = ("posterior", "chi^2", "equation 8")


def truth_of(seed: int) -> oti.Parameters:
    """The first allowed truth of a seed's random numbers."""
    rng = np.random.default_rng([seed, STUDY])
    while True:
        theta = oti.Parameters(*map(float, rng.uniform(LOW, HIGH)))
        if bool(MILKY_WAY.allowed(theta)):
            return theta


def settings_of(seed: int) -> tuple[str, str]:
    """Shape of the field and footprint of a seed's catalogue."""
    return list(FIELDS)[seed % len(FIELDS)], ("all-sky", "pencil-beams")[seed // len(FIELDS) % 2]


def stars_of(seed: int, number: int, folder: Path) -> oti.Stars:
    shape, footprint = settings_of(seed)
    file = folder / f"stars-{seed}-{number}.fits"
    if not file.exists():
        table = oti.mock(number, seed, truth_of(seed), ELEMENTS, footprint=footprint, progress=False)
        oti.write_table(with_field(table, shape, ELEMENTS), file)
    return oti.read_stars(file)


def posterior(stars: oti.Stars, seed: int) -> dict:
    """Mean, covariance, and the share of draws below the truth, for every parameter."""
    tree = oti.sample(stars, seed=seed)
    draws = np.stack([np.ravel(tree["posterior"][name]) for name in PARAMETERS], 1)
    return {
        "mean": draws.mean(0).tolist(),
        "covariance": np.cov(draws.T).tolist(),
        "rank": (draws < np.array(truth_of(seed))).mean(0).tolist(),
        "pull": [float(tree["pull"][name]) for name in PARAMETERS],
        **{name: float(tree.attrs[name]) for name in ("max_r_hat", "min_ess_bulk", "divergences", "converged")},
    }


def classical(stars: oti.Stars, seed: int) -> dict:
    """Joint optimum and covariance of equation 8 and of chi^2; of chi^2 also the truth's place in its profiles, and
    each element's interval and rise."""
    tree, truth = oti.fit_classical(stars, bootstraps=BOOTSTRAPS, seed=seed), np.array(truth_of(seed))
    intervals = tree["chi2"].dataset.interval.values
    held = (intervals[..., 0] <= truth) & (truth <= intervals[..., 1])
    found: dict = {"rise": oti.chi2_rise(tree, truth).tolist(), "held_68": held.tolist()}
    joint = tree["joint"].dataset
    for answer, name in {"equation 8": "gls", "chi^2": "chi2"}.items():
        if name in joint.combination.values:
            one = joint.sel(combination=name)
            found[answer] = {"mean": one["mean"].values.tolist(), "covariance": one.covariance.values.tolist()}
    if "chi^2" in found:
        found["chi^2"] |= in_profiles(elements_chi2(tree["chi2"].dataset, MILKY_WAY), truth)
    return found


def in_profiles(found: ElementsChi2, truth: np.ndarray) -> dict:
    """Where the truth lies in the joint chi^2: signed roots of its profiles, which are deviations in sigma also where
    the valley bends, and the rise above the minimum, in units where its mean should be 4."""
    best, unit = found.minimum, scales(MILKY_WAY.parameters)
    roots = []
    for i, axis in enumerate(np.eye(len(truth))):
        free, rise = axis == 0, found.rise(axis)

        def weighted(x: np.ndarray, free: np.ndarray = free) -> np.ndarray:
            theta = truth.copy()
            theta[free] = x * unit[free]
            return found.weighted(theta)

        bounds = (LOWEST / unit)[free], (HIGHEST / unit)[free]
        starts = [np.clip(start / unit, LOWEST / unit, HIGHEST / unit)[free] for start in (best.theta, truth)]
        least = min(2 * least_squares(weighted, start, bounds=bounds).cost for start in starts)
        roots.append(float(np.sign(best.theta[i] - truth[i]) * np.sqrt(max(least - best.value, 0.0) / rise)))
    ratio = np.trace(found.covariance @ np.linalg.inv(best.covariance)) / len(truth)
    return {"roots": roots, "distance2": float((np.sum(found.weighted(truth) ** 2) - best.value) / ratio)}


def one(seed: int, number: int, folder: Path, way: str) -> None:
    file = folder / f"{way}-{seed}-{number}.json"
    if file.exists():
        return
    stars, start = stars_of(seed, number, folder), time.perf_counter()
    try:
        found = {"posterior": posterior, "classical": classical}[way](stars, seed)
    except oti.InputError as error:  # a refusal counts as one, and is shown
        found = {"refused": str(error)}
    text = json.dumps({"seed": seed, "truth": truth_of(seed), "seconds": time.perf_counter() - start} | found)
    write_whole(file, lambda part: part.write_text(text))


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--seeds", default=60, help="Catalogues, of so many seeds in a row.")
@click.option("--first", default=0, help="The first seed.")
@click.option("--field", type=click.Choice(list(FIELDS)), help="Only the catalogues of one shape of the field.")
@click.option("--stars", "number", default=10_000)
@click.option("--folder", type=Path, default=Path("calibration"))
@click.option("--jobs", default=1, help="Catalogues at once, each in a process of its own.")
@click.option("--only", type=click.Choice(["posterior", "classical"]))
def run(seeds: int, first: int, field: str | None, number: int, folder: Path, jobs: int, only: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ways = [only] if only else ["posterior", "classical"]
    given = {
        folder / f"{way}-{seed}-{number}": [__file__, "one", str(seed), str(number), str(folder), way]
        for way in ways
        for seed in range(first, first + seeds)
        if field in (None, settings_of(seed)[0])
    }
    run_in_processes(given, jobs)


@main.command("one", hidden=True)
@click.argument("seed", type=int)
@click.argument("number", type=int)
@click.argument("folder", type=Path)
@click.argument("way")
def single(seed: int, number: int, folder: Path, way: str) -> None:
    one(seed, number, folder, way)


def rows(folder: Path) -> pd.DataFrame:
    """One row for each catalogue and answer: pulls, ranks and the squared distance of the truth."""
    made = []
    for file in folder.glob("*.json"):
        found = json.loads(file.read_text())
        truth = oti.Parameters(*found["truth"])
        shape, footprint = settings_of(found["seed"])
        base = {"seed": found["seed"], "field": shape, "footprint": footprint, "seconds": found["seconds"]}
        base |= {f"true_{name}": value for name, value in truth._asdict().items()}
        answers = {"posterior": found} if "mean" in found else {k: found[k] for k in ANSWERS if k in found}
        if not answers:
            made.append(base | {"answer": file.name.split("-")[0], "refused": found.get("refused", "no joint answer")})
        for answer, given in answers.items():
            pulls, distance = off_truth(given["mean"], given["covariance"], truth)
            pulls, distance = given.get("roots", pulls), given.get("distance2", distance)
            row = base | {"answer": answer, "distance2": distance}
            row |= {f"pull_{name}": pull for name, pull in zip(PARAMETERS, pulls, strict=True)}
            ranks = given.get("rank", [None] * 4)
            row |= {f"rank_{name}": rank for name, rank in zip(PARAMETERS, ranks, strict=True)}
            made.append(row | {name: given[name] for name in ("max_r_hat", "min_ess_bulk") if name in given})
    return pd.DataFrame(made).sort_values(["answer", "seed"], ignore_index=True)


def answers_of(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each answer that there is, without refusals."""
    given = {answer: table[(table.answer == answer) & table.distance2.notna()] for answer in ANSWERS}
    return {answer: here for answer, here in given.items() if len(here)}


def covered(here: pd.DataFrame, name: str, levels: Sequence[float]) -> np.ndarray:
    """`held`, of a parameter."""
    pull, rank = here[f"pull_{name}"].to_numpy(float), here[f"rank_{name}"].to_numpy(float)
    rank = np.where(np.isfinite(rank), rank, norm.cdf(-pull))  # a Gaussian answer's rank of the truth
    return held(rank, levels)


def deviation(here: pd.DataFrame, name: str) -> str:
    pull = here[f"pull_{name}"].to_numpy(float)
    return f"{pull.mean():+.2f} +- {pull.std(ddof=1) / np.sqrt(len(pull)):.2f} (sd {pull.std(ddof=1):.2f})"


def distances(here: pd.DataFrame) -> str:
    total, dof = float(here.distance2.sum()), 4 * len(here)
    return f"squared distances {total:.0f} of {dof}, P(more) {chi2.sf(total, dof):.3f}"


def summary(table: pd.DataFrame) -> list[str]:
    """Coverage, deviations in sigma and distances of every answer; deviations and distances by shape of the field."""
    lines = []
    for answer, here in answers_of(table).items():
        n = len(here)
        lines.append(
            f"{answer}: {n} catalogues; {distances(here)}, KS p {kstest(here.distance2, chi2(4).cdf).pvalue:.2f}"
        )
        for name in PARAMETERS:
            shares = ", ".join(
                f"{100 * level:.0f}%: {100 * share:.0f} +- {100 * np.sqrt(level * (1 - level) / n):.0f}"
                for level, share in zip(LEVELS, covered(here, name, LEVELS), strict=True)
            )
            lines.append(f"  {name:7s} {deviation(here, name)}; held {shares}")
        for field, some in here.groupby("field"):
            off = ", ".join(f"{name} {deviation(some, name)}" for name in ("m_disk", "h_z") if len(some) > 1)
            lines.append(f"  {field:12s} {len(some):3d}: {off}; {distances(some)}")
    return lines


def figure(table: pd.DataFrame, file: Path) -> None:
    """The share of truths that an interval holds, against the share that it claims, of every answer."""
    import matplotlib.pyplot as plt

    answers = answers_of(table)
    shown, panels = plt.subplots(
        1, len(answers), figsize=(3.6 * len(answers), 3.9), layout="constrained", squeeze=False
    )
    levels = np.linspace(0, 1, 101)
    for axes, (answer, here) in zip(panels[0], answers.items(), strict=True):
        low, high = np.array(binom.interval(0.95, len(here), levels)) / len(here)
        axes.fill_between(levels, low, high, color="0.9", label="95% of calibrated answers")
        for name in PARAMETERS:
            axes.plot(levels, covered(here, name, levels), label=name)
        axes.set(title=f"{answer}, {len(here)} catalogues", xlabel="claimed", ylabel="share of truths held", aspect=1)
    panels[0, 0].legend(fontsize="small", loc="lower right")
    shown.savefig(file, dpi=120)


@main.command("table")
@click.option("--folder", type=Path, default=Path("calibration"))
@click.option("--rows", "given", type=click.Path(exists=True, path_type=Path), help="CSV file, in place of a folder.")
@click.option("--first", default=0, help="Only seeds from this one on.")
@click.option("--output", type=Path, help="CSV file for the rows, one a catalogue and answer.")
@click.option("--figure", "drawn", type=Path, help="PNG file for the curves of coverage.")
def show(folder: Path, given: Path | None, first: int, output: Path | None, drawn: Path | None) -> None:
    table = rows(folder) if given is None else pd.read_csv(given)
    table = table[table.seed >= first]
    click.echo("\n".join(summary(table)))
    if output is not None:
        write_whole(output, lambda part: table.round(4).to_csv(part, index=False))
    if drawn is not None:
        figure(table, drawn)


if __name__ == "__main__":
    main()
