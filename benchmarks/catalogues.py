"""What the scripts share that try a method on synthetic catalogues of known truth, a seed each."""

import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from tqdm import tqdm

from otibayes import Parameters, Stars, mock, read_stars, write_table
from otibayes.base.constants import R0, V_CIRC
from otibayes.base.store import write_whole
from otibayes.stars.labels import LABELS, mean_labels


def truth_of(seed: int, study: int) -> Parameters:
    """The truth of a seed's catalogue; each `study` has its own."""
    rng = np.random.default_rng([seed, study])
    return Parameters(rng.uniform(0.7, 1.3), rng.uniform(0.22, 0.36), rng.uniform(0, 30), rng.uniform(6, 10))


def made(seed: int, number: int, folder: Path, study: int, elements: Sequence[str] | None = None) -> Path:
    """The file of a seed's catalogue of so many stars with `elements` (None: all), made where there is none."""
    file = folder / f"stars-{seed}-{number}.fits"
    if not file.exists():
        write_table(mock(number, seed, truth_of(seed, study), elements), file)
    return file


def passing(seed: int, number: int, folder: Path, study: int, elements: Sequence[str]) -> Stars:
    """The stars of such a catalogue, as read from a file that is not kept."""
    file = folder / f"stars-{seed}.fits"
    write_table(mock(number, seed, truth_of(seed, study), elements, progress=False), file)
    stars = read_stars(file)
    file.unlink()
    return stars


def kept(file: Path, compute: Callable[[], Any]) -> Any:
    """What was found before, or is found now and kept as JSON."""
    if not file.exists():
        found = json.dumps(compute())
        write_whole(file, lambda part: part.write_text(found))
    return json.loads(file.read_text())


def over_seeds(recover: Callable[..., dict], options: Any) -> list[dict]:
    """`recover(seed, stars, bootstraps, folder)` of every seed, but for those that the folder has; the parser's options
    say which, how many, and where."""
    options.folder.mkdir(parents=True, exist_ok=True)
    given = (options.stars, options.bootstraps)

    def one(seed: int) -> dict:
        file = options.folder / f"{options.stars}-{options.bootstraps}-{seed}.json"
        return kept(file, lambda: recover(seed, *given, options.folder))

    return [one(seed) for seed in tqdm(range(options.seeds), desc="catalogues")]


def off_truth(mean: Any, covariance: Any, truth: Parameters) -> tuple[np.ndarray, float]:
    """Deviations in sigma (4,) and the squared Mahalanobis distance of the truth from a Gaussian answer."""
    off, covariance = np.array(mean) - np.array(truth), np.array(covariance)
    return off / np.sqrt(np.diag(covariance)), float(off @ np.linalg.solve(covariance, off))


def held(rank: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """The share of catalogues whose central interval of each of the `levels` holds the truth, by the share `rank` (n,)
    of each posterior below the truth."""
    return np.mean(np.abs(2 * rank - 1)[:, None] < np.asarray(levels), 0)


# Shapes of the abundance field: functions of z_max and of r_apo - r_peri [kpc]; None is the mock's own shape.
FIELDS = {
    "saturating": None,
    "exponential": (lambda z: 1 - np.exp(-(z**2) / 1.28), lambda e: 1 - np.exp(-(e**2) / 18)),
    "logarithmic": (lambda z: 0.35 * np.log1p(z**2 / 0.09), lambda e: 0.35 * np.log1p(e**2 / 2)),
    "root": (lambda z: 0.4 * (np.sqrt(1 + z**2 / 0.25) - 1), lambda e: 0.3 * (np.sqrt(1 + e**2 / 4) - 1)),
}
TORUS = ("L_z", "z_max", "r_apo", "r_peri")


def field_of(table: Table, shape: str, elements: Sequence[str] = tuple(LABELS)) -> np.ndarray:
    """Mean abundances (N, E) [dex] on the stars' tori, in a field of that shape."""
    torus, labels = {name: np.asarray(table[name]) for name in TORUS}, [LABELS[element] for element in elements]
    if FIELDS[shape] is None:
        return mean_labels(torus, labels)
    of_z, of_e = FIELDS[shape]
    L_z, eccentric = torus["L_z"] / V_CIRC - R0, torus["r_apo"] - torus["r_peri"]
    terms = np.stack([np.ones_like(L_z), L_z + 0.05 * L_z**2, of_z(torus["z_max"]), of_e(eccentric)])
    return terms.T @ np.array([label[:4] for label in labels]).T


def with_field(table: Table, shape: str, elements: Sequence[str]) -> Table:
    """The table with the same scatter and errors about a field of another shape."""
    change = field_of(table, shape, elements) - field_of(table, "saturating", elements)
    for column, element in zip(change.T, elements, strict=True):
        table[element] = np.asarray(table[element]) + column
    return table


def run_in_processes(commands: Mapping[Path, Sequence[str]], jobs: int) -> None:
    """Run Python scripts, so many at once, each on its share of the cores; skip those whose NAME.json exists.

    `commands` maps NAME to a script and its arguments. Output goes to NAME.log.
    """
    share = max(1, (os.cpu_count() or 1) // jobs)
    places: queue.Queue[int] = queue.Queue()
    for place in range(jobs):
        places.put(place)

    def process(item: tuple[Path, Sequence[str]]) -> None:
        name, arguments = item
        if Path(f"{name}.json").exists():
            return
        place = places.get()
        pinned = ["taskset", "-c", f"{place * share}-{(place + 1) * share - 1}"] if jobs > 1 else []
        with Path(f"{name}.log").open("w") as log:
            command = [*pinned, sys.executable, *arguments]
            done = subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            tqdm.write(f"failed: see {name}.log")
        places.put(place)

    with ThreadPoolExecutor(jobs) as pool:
        list(tqdm(pool.map(process, commands.items()), total=len(commands), desc="runs"))
