"""How far the mean over neighbours in action space (PW21, appendix A) moves the coefficients, without any noise.

    python examples/local_mean_bias.py [--seeds 6] [--stars 10000] [--folder DIR]

Synthetic catalogues of known truth, those of objectives_recovery.py. At the truth, coefficients of labels without
scatter or errors should vanish. What is left is the bias of the local mean, in units of the bootstrap sd of the
coefficients of the labels as observed: for labels as they are, and less their polynomial trend in the actions, as
chi^2 has them.
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.table import Table
from catalogues import made, truth_of

import otibayes as oti
from otibayes.classical.local_mean import deviation
from otibayes.classical.objective import least_squares
from otibayes.classical.statistic import resamples
from otibayes.dynamics.trend import detrended
from otibayes.stars.labels import LABELS, mean_labels
from otibayes.stars.preparation import prepare_stars

STUDY = 2023
ELEMENTS = ("MG_FE", "FE_H")
BOOTSTRAPS = 64
SHOWN = ("a1", "b1", "a2", "inner a2", "middle a2", "outer a2")


def coefficients(J: np.ndarray, angle: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(B, E, 6): a1, b1, a2 of all stars, and a2 of each third of them in J_z."""
    found = deviation(J, labels, counts)
    place = np.digitize(J[:, 2], np.quantile(J[:, 2], [1 / 3, 2 / 3]))

    def series(chosen: np.ndarray) -> np.ndarray:
        return least_squares(angle[chosen], found[:, chosen], None, counts[:, chosen])

    thirds = [series(place == q)[..., 3] for q in range(3)]
    return np.concatenate([series(place >= 0)[..., 1:4], np.stack(thirds, -1)], -1)


def bias(seed: int, number: int, folder: Path) -> list[np.ndarray]:
    """(E, 6) in bootstrap sd, of labels as they are and detrended."""
    truth, file = truth_of(seed, STUDY), made(seed, number, folder, STUDY, ELEMENTS)
    problem = prepare_stars(oti.read_stars(file), ELEMENTS, method="staeckel")
    table = Table.read(file)[problem.stars.row]
    torus = {name: np.asarray(table[name], float) for name in ("L_z", "z_max", "r_apo", "r_peri")}
    clean = mean_labels(torus, [LABELS[e] for e in ELEMENTS], False)
    aa = problem.actions(oti.phase_space(problem.stars, truth), truth)
    J, angle = np.stack([np.asarray(a) for a in (aa.J_R, aa.L_z, aa.J_z)], 1), np.asarray(aa.theta_z)
    counts = np.concatenate([np.ones((1, len(J)), int), resamples(len(J), BOOTSTRAPS, seed)])
    found = []
    for way in (lambda labels: labels, lambda labels: detrended(J, labels)):
        sd = coefficients(J, angle, way(problem.labels), counts)[1:].std(0, ddof=1)
        found.append(coefficients(J, angle, way(clean), counts[:1])[0] / sd)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--stars", type=int, default=10000)
    parser.add_argument("--folder", type=Path, default=Path("objectives-recovery"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    every = np.array([bias(seed, options.stars, options.folder) for seed in range(options.seeds)])
    print(f"{options.seeds} catalogues of {options.stars} stars: bias [bootstrap sd], mean and rms over them")
    print(f"{'':18s}" + "".join(f"{name:>16s}" for name in SHOWN))
    for e, element in enumerate(ELEMENTS):
        for way, name in enumerate(("as they are", "detrended")):
            one = every[:, way, e]
            told = [f"{m:+.2f}, {r:.2f}" for m, r in zip(one.mean(0), np.sqrt((one**2).mean(0)), strict=True)]
            print(f"{element:6s} {name:11s}" + "".join(f"{text:>16s}" for text in told))


if __name__ == "__main__":
    main()
