"""Recovery of the disk's mass by the zero crossing of a2, over independent synthetic catalogues of known truth.

python benchmarks/classical_recovery.py [--seeds 100] [--stars 5000] [--folder DIR], half a minute
a seed. Each catalogue has a truth of its own, drawn from its seed; its stars and labels come from gala's
orbits and not from our action code. h_z and the Sun's height and velocity are known; m_disk is scanned from 0.4 to 1.8
as in PW21's Figure 6. The error is that of the paper, by interpolation of the bootstrap error bars; beside it that of
the resamples' own crossings. Finished seeds are kept.
"""

import argparse
from pathlib import Path

import numpy as np
from catalogues import over_seeds, passing, truth_of

from otibayes import Parameters
from otibayes.analysis.scan import scan
from otibayes.classical.settings import ClassicalSettings
from otibayes.classical.statistic import make_statistic
from otibayes.dynamics import SampleActions, focal_length, phase_space

STUDY = 2021
ELEMENTS = ("MG_FE", "FE_H")
GRID = np.arange(0.4, 1.81, 0.1)


def recover(seed: int, stars: int, bootstraps: int, folder: Path) -> dict:
    truth = truth_of(seed, STUDY)
    read = passing(seed, stars, folder, STUDY, ELEMENTS)
    fiducial = Parameters()
    delta = focal_length(phase_space(read, fiducial), fiducial)
    labels, sigma = (np.stack([each[e] for e in ELEMENTS], 1) for each in (read.abundances, read.errors))
    settings = ClassicalSettings(bootstraps=bootstraps, bins=0)
    statistic = make_statistic(read, labels, sigma, actions=SampleActions(delta), settings=settings, seed=seed)
    found = scan(statistic, truth, GRID)
    result = {"seed": seed, "stars": stars, "bootstraps": bootstraps, "truth": truth._asdict()}
    for e, element in enumerate(ELEMENTS):
        crossing = found.crossing(e)
        spread = float(np.nanstd(crossing.bootstrap, ddof=1)) if np.isfinite(crossing.bootstrap).sum() > 1 else np.nan
        result[element] = {"m_disk": crossing.value, "error": crossing.error, "bootstrap_sd": spread}
    return result


def summary(results: list[dict]) -> list[str]:
    lines = ["element  error           catalogues  none   mean deviation     sd of deviations"]
    truth = np.array([r["truth"]["m_disk"] for r in results])
    for element in ELEMENTS:
        for error in ("error", "bootstrap_sd"):
            value, sd = (np.array([r[element][key] for r in results]) for key in ("m_disk", error))
            pulls = (value - truth) / sd
            none, pulls = int((~np.isfinite(pulls)).sum()), pulls[np.isfinite(pulls)]
            n = len(pulls)
            lines.append(
                f"{element:8s} {error:15s} {n:10d} {none:5d}   {pulls.mean():+.3f} +- {pulls.std(ddof=1) / n**0.5:.3f}"
                f"    {pulls.std(ddof=1):.3f} +- {pulls.std(ddof=1) / (2 * n) ** 0.5:.3f}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--stars", type=int, default=5000)
    parser.add_argument("--bootstraps", type=int, default=128)
    parser.add_argument("--folder", type=Path, default=Path("classical-recovery"))
    options = parser.parse_args()
    print("\n".join(summary(over_seeds(recover, options))))


if __name__ == "__main__":
    main()
