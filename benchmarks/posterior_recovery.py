"""Recovery of the truth by the posterior, over independent synthetic catalogues of eight elements.

    python benchmarks/posterior_recovery.py [--seeds 5] [--stars 20000] [--folder DIR] [--classical]

Each catalogue has a truth of its own, drawn from its seed; its stars and labels come from gala's orbits and not from
our action code. Told are the squared Mahalanobis distances of the truth from the posterior, which should be chi^2 of
4 degrees each, deviations of every parameter in sigma, and how (m_disk, h_z) are tied; with --classical also by
the classical fit of the same stars (GLS joint of all elements). A seed that was done is not done again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from catalogues import kept, made, off_truth, truth_of
from scipy.stats import chi2

import otibayes as oti

STUDY = 2022
PARAMETERS = ("m_disk", "h_z", "z_sun", "vz_sun")


def posterior(stars, seed):
    start = time.perf_counter()
    found = oti.sample(stars, seed=seed)
    draws = np.stack([np.ravel(found["posterior"][name]) for name in PARAMETERS], 1)
    told = ("max_r_hat", "min_ess_bulk", "divergences", "converged")
    surface = {n: float(found["surface"].attrs[n]) for n in ("khat", "shift", "basis_shift", "combinations")}
    return {
        "mean": draws.mean(0).tolist(),
        "covariance": np.cov(draws.T).tolist(),
        "seconds": time.perf_counter() - start,
        "tree_depth": float(found["sample_stats"]["tree_depth"].mean()),
    } | {n: found.attrs[n] for n in told} | surface  # fmt: skip


def classical(stars, seed):
    joint = oti.fit_classical(stars, bootstraps=128, seed=seed)["joint"].ds.sel(combination="gls")
    return {"mean": joint["mean"].values.tolist(), "covariance": joint["covariance"].values.tolist()}


def row(seed, found):
    """The distance, deviations, sds and the correlation of m_disk and h_z, in one line."""
    covariance = np.array(found["covariance"])
    pulls, distance = off_truth(found["mean"], covariance, truth_of(seed, STUDY))
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance[0, 1] / (sd[0] * sd[1])
    shown = " ".join(f"{pull:+5.2f}" for pull in pulls)
    return (
        distance,
        f"{distance:6.2f}   {shown}   {sd[0]:.4f} {sd[1]:.4f} {sd[2]:5.2f} {sd[3]:.3f}   {correlation:+.2f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stars", type=int, default=20000)
    parser.add_argument("--folder", type=Path, default=Path("posterior-recovery"))
    parser.add_argument("--classical", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    ways = {"posterior": posterior} | ({"classical": classical} if options.classical else {})
    print("way        seed  dist^2   m_disk, h_z, z_sun, vz_sun [sigma]   sds [-, kpc, pc, km/s]   corr(m_disk, h_z)")
    for name, way in ways.items():
        distances = []
        for seed in range(options.seeds):
            found = kept(
                options.folder / f"{name}-{seed}-{options.stars}.json",
                lambda way=way, seed=seed: way(oti.read_stars(made(seed, options.stars, options.folder, STUDY)), seed),
            )
            distance, line = row(seed, found)
            distances.append(distance)
            print(f"{name:10s} {seed:4d}  {line}", flush=True)
        total, degrees = sum(distances), 4 * len(distances)
        print(
            f"{name}: sum {total:.1f} of {degrees} degrees, probability of more {chi2.sf(total, degrees):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
