"""Against every assumption of Price-Whelan et al. (2021), section 6: how far each broken assumption moves the answer.

    python benchmarks/stress.py run [--stars 20000] [--seed 1] [--folder stress] [--jobs 1] [--only posterior|classical]
                                    [--stress NAME]...
    python benchmarks/stress.py table [--folder stress] [--output FILE.csv] [--figure FILE.png]
    python benchmarks/stress.py table --rows benchmarks/stress.csv

Each stress, at two or three strengths, changes one synthetic catalogue of two elements. `run` keeps one JSON file for
each stress and path, and skips what it has. `table` prints how far each parameter is from the answer for the same
stars without the stress, or, where a stress has stars of its own, from the truth; in sigma, and in percent for m_disk;
the error bars; and what the null test (b2, and the largest of the others) says. Rows that were made once are in
benchmarks/stress.csv.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
from astropy.table import Table
from catalogues import run_in_processes

import otibayes as oti
from otibayes.base.store import write_whole
from otibayes.stars.labels import LABELS, mean_labels

ELEMENTS = ("FE_H", "MG_FE")
TRUTH = oti.Parameters(m_disk=1.1, h_z=0.3, z_sun=15.0, vz_sun=8.5)
PARAMETERS = oti.Parameters._fields

Change = Callable[[Table, np.random.Generator], Table]


def torus_of(table: Table) -> dict[str, np.ndarray]:
    return {name: np.asarray(table[name]) for name in ("L_z", "z_max", "r_apo", "r_peri")}


def parallax_cut(least: float) -> Change:
    def change(table: Table, rng: np.random.Generator) -> Table:
        return table[np.asarray(table["parallax"]) > least * np.asarray(table["parallax_error"])]

    return change


def flat_gradients(share: float) -> Change:
    """Mean abundances shrunk to a share of themselves; the scatter stays."""

    def change(table: Table, rng: np.random.Generator) -> Table:
        mean = mean_labels(torus_of(table), [LABELS[e] for e in ELEMENTS])
        for column, element in zip(mean.T, ELEMENTS, strict=True):
            table[element] = np.asarray(table[element]) - (1 - share) * (column - column.mean())
        return table

    return change


def zero_point(slope: float, of: str) -> Change:
    """Abundances off by `slope` dex per kpc of distance, or per dex of surface gravity, which follows distance."""

    def change(table: Table, rng: np.random.Generator) -> Table:
        distance = 1 / np.asarray(table["parallax"])
        gravity = 2.5 - 1.2 * distance + 0.3 * rng.normal(size=len(table))
        table["LOGG"] = gravity
        off = {"distance": distance - distance.mean(), "gravity": gravity - gravity.mean()}[of]
        for element in ELEMENTS:
            table[element] = np.asarray(table[element]) + slope * off
        return table

    return change


def alpha_rich(share: float) -> Change:
    """A share of the stars, more of them on high orbits, gets the abundances of an alpha-rich population."""

    def change(table: Table, rng: np.random.Generator) -> Table:
        height = np.asarray(table["z_max"])
        odds = np.exp(height / 0.8)
        chosen = rng.random(len(table)) < np.clip(share * odds / odds.mean(), 0, 1)
        table["FE_H"] = np.where(chosen, np.asarray(table["FE_H"]) - 0.25, np.asarray(table["FE_H"]))
        table["MG_FE"] = np.where(chosen, np.asarray(table["MG_FE"]) + 0.20, np.asarray(table["MG_FE"]))
        return table

    return change


def scatter_growth(factor: float) -> Change:
    """Scatter that grows from the plane to z_max = 1 kpc by this factor."""

    def change(table: Table, rng: np.random.Generator) -> Table:
        mean = mean_labels(torus_of(table), [LABELS[e] for e in ELEMENTS])
        height = np.minimum(np.asarray(table["z_max"]), 1.5)
        for column, element in zip(mean.T, ELEMENTS, strict=True):
            table[element] = column + (1 + (factor - 1) * height) * (np.asarray(table[element]) - column)
        return table

    return change


def nothing(table: Table, rng: np.random.Generator) -> Table:
    return table


# name: options of `oti.mock`, and a change of its table
STRESSES: dict[str, tuple[dict, Change]] = {
    "none": ({}, nothing),
    "phase spiral, kick 10 km/s": ({"kick": 10.0}, nothing),
    "phase spiral, kick 20 km/s": ({"kick": 20.0}, nothing),
    "disk growth, 10%": ({"growth": 0.1}, nothing),
    "disk growth, 30%": ({"growth": 0.3}, nothing),
    "abundance selection, 1 per dex kpc": ({"abundance_selection": 1.0}, nothing),
    "abundance selection, 4 per dex kpc": ({"abundance_selection": 4.0}, nothing),
    "conical means": ({"conical": True}, nothing),
    "skewed scatter, 0.3": ({"skew": 0.3}, nothing),
    "skewed scatter, 0.8": ({"skew": 0.8}, nothing),
    "pencil beams": ({"footprint": "pencil-beams"}, nothing),
    "magnitude limit": ({"footprint": "magnitude-limit"}, nothing),
    "Gaia errors, S/N > 20, to 4 kpc": ({"gaia_errors": True, "d_max": 4.0}, parallax_cut(20)),
    "Gaia errors, S/N > 8, to 4 kpc": ({"gaia_errors": True, "d_max": 4.0}, parallax_cut(8)),
    "Gaia errors, S/N > 5, to 4 kpc": ({"gaia_errors": True, "d_max": 4.0}, parallax_cut(5)),
    "gradients x 0.3": ({}, flat_gradients(0.3)),
    "gradients x 0.1": ({}, flat_gradients(0.1)),
    "zero point, 0.02 dex/kpc of distance": ({}, zero_point(0.02, "distance")),
    "zero point, 0.02 dex per dex of gravity": ({}, zero_point(0.02, "gravity")),
    "zero point, 0.05 dex per dex of gravity": ({}, zero_point(0.05, "gravity")),
    "alpha-rich stars, 5%": ({}, alpha_rich(0.05)),
    "alpha-rich stars, 20%": ({}, alpha_rich(0.20)),
    "scatter grows by 1.5": ({}, scatter_growth(1.5)),
    "scatter grows by 2": ({}, scatter_growth(2.0)),
}
# models of ours that take account of a stress
CURES = {
    "zero point, 0.05 dex per dex of gravity": "calibrated_abundances",
    "skewed scatter, 0.8": "heavy_tails",
    "alpha-rich stars, 20%": "heavy_tails",
}


def stars_of(stress: str, number: int, seed: int, folder: Path) -> oti.Stars:
    options, change = STRESSES[stress]
    file = folder / f"{list(STRESSES).index(stress)}-{number}-{seed}.fits"
    if not file.exists():
        table = oti.mock(number, seed, TRUTH, ELEMENTS, progress=False, **options)
        oti.write_table(change(table, np.random.default_rng([seed, 0x737472])), file)
    if "gravity" not in stress:
        return oti.read_stars(file)
    stars = oti.read_stars(file, extra=["LOGG"])
    gravity, rng = stars.extra["LOGG"], np.random.default_rng([seed, 0x54454646])
    temperature = 4800 + 300 * (gravity - gravity.mean()) + rng.normal(0, 100, len(stars))  # of giants: it follows logg
    return replace(stars, extra={"LOGG": gravity, "TEFF": temperature})


def posterior(stars: oti.Stars, seed: int, model: str = "joint_abundances") -> dict:
    tree = oti.sample(stars, ELEMENTS, seed=seed, model=model)
    draws = np.stack([np.ravel(tree["posterior"][name]) for name in PARAMETERS], 1)
    pull = np.abs(oti.null_test(tree).pull)
    return {
        "mean": draws.mean(0).tolist(),
        "sd": draws.std(0).tolist(),
        "b2": float(pull.sel(coefficient="b2").max()),
        "others": float(pull.drop_sel(coefficient="b2").max()),
        "converged": int(tree.attrs["converged"]),
    }


def chi2(stars: oti.Stars, seed: int) -> dict:
    tree = oti.fit_classical(stars, ELEMENTS, bootstraps=64, seed=seed)
    joint = tree["joint"].dataset.sel(combination="chi2")
    p_value = float(tree["chi2"].dataset.p_value.min())
    sd = np.sqrt(np.diag(joint.covariance.values))
    return {"mean": joint["mean"].values.tolist(), "sd": sd.tolist(), "p_value": p_value}


def case(stress: str, way: str, number: int, seed: int, folder: Path) -> None:
    stars, start = stars_of(stress, number, seed, folder), time.perf_counter()
    try:
        if way == "classical":
            found = chi2(stars, seed)
        else:
            found = posterior(stars, seed, CURES[stress] if way == "cure" else "joint_abundances")
    except oti.InputError as error:
        found = {"refused": str(error)}
    described = {"stress": stress, "way": way, "stars": len(stars), "seconds": time.perf_counter() - start}
    text = json.dumps(described | found)
    write_whole(Path(f"{name_of(stress, way, number, seed, folder)}.json"), lambda part: part.write_text(text))


def name_of(stress: str, way: str, number: int, seed: int, folder: Path) -> Path:
    return folder / f"{way}-{list(STRESSES).index(stress)}-{number}-{seed}"


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--stars", "number", default=20_000)
@click.option("--seed", default=1)
@click.option("--folder", type=Path, default=Path("stress"))
@click.option("--jobs", default=1, help="Stresses at once, each in a process of its own.")
@click.option("--only", type=click.Choice(["posterior", "classical"]))
@click.option("--stress", "chosen", type=click.Choice([*STRESSES]), multiple=True, help="Only this one, and so on.")
def run(number: int, seed: int, folder: Path, jobs: int, only: str | None, chosen: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ways = [only] if only else ["posterior", "classical"]
    tasks = [(stress, way) for way in ways for stress in chosen or STRESSES]
    tasks += [(stress, "cure") for stress in CURES if stress in (chosen or CURES)] if "posterior" in ways else []
    commands = {}
    for stress, way in tasks:
        given = [stress, way, str(number), str(seed), str(folder)]
        commands[name_of(stress, way, number, seed, folder)] = [__file__, "one", *given]
    run_in_processes(commands, jobs)


@main.command("one", hidden=True)
@click.argument("stress")
@click.argument("way")
@click.argument("number", type=int)
@click.argument("seed", type=int)
@click.argument("folder", type=Path)
def single(stress: str, way: str, number: int, seed: int, folder: Path) -> None:
    case(stress, way, number, seed, folder)


WAYS = {"posterior": "posterior", "cure": "posterior, model that accounts for it", "classical": "chi^2"}


def rows(folder: Path) -> pd.DataFrame:
    """One row for each stress and way: means, sds, and what notices."""
    made = []
    for file in folder.glob("*.json"):
        found = json.loads(file.read_text())
        for key in ("mean", "sd"):
            found |= {f"{key}_{name}": x for name, x in zip(PARAMETERS, found.pop(key, [None] * 4), strict=True)}
        made.append(found)
    order = {stress: number for number, stress in enumerate(STRESSES)}
    table = pd.DataFrame(made)
    return table.sort_values(["way", "stress"], key=lambda c: c.map(order | dict(zip(WAYS, range(3), strict=True))))


def shifts(table: pd.DataFrame) -> pd.DataFrame:
    """Distances of the means, in the sigma with the stress: from those of the same stars without it; where a stress has
    stars of its own, from the truth, because a difference would have the noise of two catalogues."""
    unstressed = table[table.stress == "none"].set_index("way")

    def distances(row: pd.Series) -> pd.Series:
        same = not STRESSES[row.stress][0]
        base = "classical" if row.way == "classical" else "posterior"
        if same and base not in unstressed.index:
            return pd.Series({"same": same})
        before = {n: unstressed.loc[base, f"mean_{n}"] if same else getattr(TRUTH, n) for n in PARAMETERS}
        moved = {f"shift_{n}": (row[f"mean_{n}"] - before[n]) / row[f"sd_{n}"] for n in PARAMETERS}
        percent = 100 * (row.mean_m_disk / before["m_disk"] - 1)
        return pd.Series({"same": same, "percent": percent} | moved)

    table = table[table.stress != "none"]
    return pd.concat([table, table.apply(distances, axis=1)], axis=1)


def lines(table: pd.DataFrame) -> list[str]:
    made = []
    title = {
        True: "the same stars, distance from the answer without the stress",
        False: "other stars, distance from the truth",
    }
    for (way, label), same in itertools.product(WAYS.items(), (True, False)):
        here = table[(table.way == way) & (table.same == same)]
        if here.empty:
            continue
        made += [
            f"{label}: {title[same]}",
            f"{'':42s} m_disk    h_z  z_sun vz_sun [sigma]   m_disk [%]     sd  notices",
        ]
        for row in here.itertuples():
            if isinstance(getattr(row, "refused", None), str):
                made.append(f"  {row.stress:40s} refused: {row.refused[:70]}")
                continue
            moved = " ".join(f"{getattr(row, f'shift_{name}'):+6.1f}" for name in PARAMETERS)
            notice = f"p {row.p_value:.3f}" if way == "classical" else f"b2 {row.b2:.1f}, others {row.others:.1f} sigma"
            made.append(f"  {row.stress:40s} {moved}              {row.percent:+6.1f} {row.sd_m_disk:6.3f}  {notice}")
    return made


@main.command("table")
@click.option("--folder", type=Path, default=Path("stress"))
@click.option("--rows", "given", type=click.Path(exists=True, path_type=Path), help="CSV file, in place of a folder.")
@click.option("--output", type=Path, help="CSV file for the rows, one a stress and way.")
@click.option("--figure", type=Path, help="PNG file for the shifts of m_disk.")
def show(folder: Path, given: Path | None, output: Path | None, figure: Path | None) -> None:
    table = rows(folder) if given is None else pd.read_csv(given)
    click.echo("\n".join(lines(shifts(table))))
    if output is not None:
        write_whole(output, lambda part: table.round(5).to_csv(part, index=False))
    if figure is not None:
        draw(shifts(table), figure)


def draw(table: pd.DataFrame, file: Path) -> None:
    import matplotlib.pyplot as plt

    table = table[(table.stress != "none") & table.percent.notna()]
    names = [stress for stress in STRESSES if stress in set(table.stress)][::-1]
    drawn, axes = plt.subplots(figsize=(7, 0.3 * len(names) + 1), layout="constrained")
    for offset, (way, label) in enumerate(WAYS.items()):
        here = table[table.way == way].set_index("stress").reindex(names)
        if here.percent.notna().any():
            error = 100 * here.sd_m_disk / here.mean_m_disk
            axes.errorbar(here.percent, np.arange(len(names)) - 0.2 * offset, xerr=error, fmt="o", ms=4, label=label)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.axvline(0, color="0.6", zorder=0)
    axes.set_xlabel("shift of m_disk [%]")
    axes.legend(fontsize=8)
    write_whole(file, lambda part: drawn.savefig(part, dpi=120, format="png"))


if __name__ == "__main__":
    sys.exit(main())
