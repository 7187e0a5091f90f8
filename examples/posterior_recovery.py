"""Recovery of the truth by the posterior, over independent synthetic catalogues of eight elements.

    python examples/posterior_recovery.py [--seeds 5] [--stars 20000] [--folder DIR] [--mirrored] [--classical]

Each catalogue has a truth of its own, drawn from its seed; its stars and labels come from gala's orbits and not from
our action code. Told are the squared Mahalanobis distances of the truth from the posterior, which should be chi^2 of
4 degrees each, pulls of every parameter, and how (m_disk, h_z) are tied; with --classical also by the classical fit of
the same stars (GLS joint of all elements). With --mirrored each catalogue is sampled again with its abundances' scatter
and errors of the opposite sign: from the mean of both posteriors that noise cancels to first order, and what is left is
bias, of the actions, the model or its priors. A seed that was done is not done again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from catalogues import kept, off_truth, truth_of
from scipy.stats import chi2

import otibayes as oti
from otibayes.stars.labels import LABELS, mean_labels

STUDY = 2022
PARAMETERS = ("m_disk", "h_z", "z_sun", "vz_sun")


def made(seed, number, folder, mirrored=False):
    file = folder / f"{'mirrored' if mirrored else 'stars'}-{seed}-{number}.fits"
    if not file.exists():
        table = oti.mock(number, seed, truth_of(seed, STUDY))
        means = mean_labels(table, list(LABELS.values()))
        for element, mean in zip(LABELS, means.T, strict=True):
            table[element] = 2 * mean - table[element] if mirrored else table[element]
        oti.write_table(table, file)
    return oti.read_stars(file)


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
    joint = oti.fit_classical(stars, bootstraps=32, seed=seed)["joint"].ds.sel(combination="gls")
    return {"mean": joint["mean"].values.tolist(), "covariance": joint["covariance"].values.tolist()}


def row(seed, found):
    """The distance, pulls, sds and the correlation of m_disk and h_z, in one line."""
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
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("--classical", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    ways = {"posterior": posterior}
    ways |= {"mirrored": posterior} if options.mirrored else {}
    ways |= {"classical": classical} if options.classical else {}
    every = {name: [] for name in ways}
    print("way        seed  dist^2   pulls m_disk, h_z, z_sun, vz_sun   sds [-, kpc, pc, km/s]   corr(m_disk, h_z)")
    for name, way in ways.items():
        distances = []
        for seed in range(options.seeds):
            found = kept(
                options.folder / f"{name}-{seed}-{options.stars}.json",
                lambda name=name, way=way, seed=seed: way(
                    made(seed, options.stars, options.folder, name == "mirrored"), seed
                ),
            )
            every[name].append(found)
            distance, line = row(seed, found)
            distances.append(distance)
            print(f"{name:10s} {seed:4d}  {line}", flush=True)
        total, degrees = sum(distances), 4 * len(distances)
        print(
            f"{name}: sum {total:.1f} of {degrees} degrees, probability of more {chi2.sf(total, degrees):.3f}",
            flush=True,
        )
    if options.mirrored:
        print("bias: the mean of both posteriors, less the truth, in the sigmas of one")
        for seed, pair in enumerate(zip(every["posterior"], every["mirrored"], strict=True)):
            mean = np.mean([found["mean"] for found in pair], 0)
            pulls, _ = off_truth(mean, pair[0]["covariance"], truth_of(seed, STUDY))
            print(f"{'bias':10s} {seed:4d}          " + " ".join(f"{pull:+5.2f}" for pull in pulls), flush=True)


if __name__ == "__main__":
    main()
