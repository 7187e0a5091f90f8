"""What the scripts share that try a method on synthetic catalogues of known truth, a seed each."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otibayes import Parameters, Stars, mock, read_stars, write_table
from otibayes.base.progress import progress
from otibayes.base.store import write_whole


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

    return [one(seed) for seed in progress(range(options.seeds), "catalogues", "catalogue")]


def off_truth(mean: Any, covariance: Any, truth: Parameters) -> tuple[np.ndarray, float]:
    """Pulls (4,) and the squared Mahalanobis distance of the truth from a Gaussian answer."""
    off, covariance = np.array(mean) - np.array(truth), np.array(covariance)
    return off / np.sqrt(np.diag(covariance)), float(off @ np.linalg.solve(covariance, off))
