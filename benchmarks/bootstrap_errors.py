"""Whether bootstrap errors of the classical coefficients are right, over synthetic catalogues of known truth.

python benchmarks/bootstrap_errors.py [--seeds 100] [--stars 10000] [--folder DIR], a quarter of a
minute a seed. Each catalogue has a truth of its own, drawn from its seed; its stars and labels come from gala's orbits
and not from our action code. At the truth all coefficients should vanish, so that each, in units of its bootstrap
standard deviation, has an rms of 1 over the catalogues; below 1 the bootstrap claims too much error. Beside it
Hotelling's T^2 of the twelve statistics of chi^2, whose p is uniform. No surface is involved. Finished seeds are
kept.
"""

import argparse
from pathlib import Path

import numpy as np
from catalogues import over_seeds, passing, truth_of
from scipy.stats import kstest

from otibayes.classical.chi2 import p_value, statistics
from otibayes.classical.settings import ClassicalSettings
from otibayes.classical.statistic import make_statistic
from otibayes.stars.preparation import prepare_stars

STUDY = 2025
ELEMENTS = ("MG_FE", "FE_H")
BINS = 3


def recover(seed: int, number: int, bootstraps: int, folder: Path) -> dict:
    truth, stars = truth_of(seed, STUDY), passing(seed, number, folder, STUDY, ELEMENTS)
    prepared = prepare_stars(stars, ELEMENTS, method="staeckel")
    settings = ClassicalSettings(bootstraps=bootstraps, bins=BINS)
    measured = prepared.stars, prepared.labels, prepared.errors
    found = make_statistic(*measured, actions=prepared.actions, settings=settings, seed=seed)(np.array(truth))
    result = {}
    for e, element in enumerate(ELEMENTS):
        series, binned = found.series[:, e, 1:4], statistics(found.binned[:, e])
        pulls = [every[0] / every[1:].std(0, ddof=1) for every in (series, binned)]
        T2 = binned[0] @ np.linalg.solve(np.cov(binned[1:].T), binned[0])
        result[element] = {"series": pulls[0].tolist(), "binned": pulls[1].tolist(), "T2": float(T2)}
    return result


def rms(pulls: np.ndarray) -> str:
    """Of coefficients in bootstrap sd (n, coefficients), with what a scatter over the catalogues makes of its error."""
    each = (pulls**2).mean(1)
    value = np.sqrt(each.mean())
    return f"{value:.3f} +- {each.std(ddof=1) / len(each) ** 0.5 / (2 * value):.3f}"


def summary(results: list[dict], bootstraps: int) -> list[str]:
    lines = [f"{len(results)} catalogues; rms of the coefficients at the truth, in bootstrap sd"]
    for element in ELEMENTS:
        series, binned = (np.array([r[element][which] for r in results]) for which in ("series", "binned"))
        T2, p = np.array([r[element]["T2"] for r in results]), binned.shape[1]
        expected = p * (bootstraps - 1) / (bootstraps - p - 2)
        chance = p_value(T2 / expected * p, bootstraps, p)
        means = ", ".join(f"{m:+.2f}" for m in series.mean(0))
        lines += [
            f"{element:6s} a1, b1, a2 {rms(series)} (means {means}); in bins {rms(binned)}",
            f"{'':6s} T^2 {T2.mean():.2f} +- {T2.std(ddof=1) / len(T2) ** 0.5:.2f}, expected {expected:.2f};"
            f" KS p {kstest(chance, 'uniform').pvalue:.2f}",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--stars", type=int, default=10000)
    parser.add_argument("--bootstraps", type=int, default=128)
    parser.add_argument("--folder", type=Path, default=Path("bootstrap-errors"))
    options = parser.parse_args()
    print("\n".join(summary(over_seeds(recover, options), options.bootstraps)))


if __name__ == "__main__":
    main()
