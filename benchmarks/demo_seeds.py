"""The demo's inference over many seeds: is the truth in the 95% intervals as often as it should be?

    python benchmarks/demo_seeds.py [--seeds 20] [--folder demo-seeds] [--stars 4000] [--jobs 2]

Each seed is a catalogue of its own, made like the embedded one (same truth, same elements), and gives both paths.
One JSON file a seed is kept in the folder, so that an interrupted run goes on where it stopped. The interval of
equation 8 is mean +- 1.96 sd of the joint constraint, across its valley only.
"""

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from catalogues import kept
from scipy.stats import binom

import otibayes as oti

TRUTH = oti.Parameters(m_disk=1.1, h_z=0.32, z_sun=15.0, vz_sun=8.5)
ELEMENTS = ["MG_FE", "FE_H"]
PATHS = ("eq. 8", "posterior")


def infer(seed, number, folder):
    """Intervals of every parameter and derived quantity by both paths, and convergence, for one seed."""
    stars_file = folder / f"stars-{seed}.ecsv"
    oti.write_table(oti.mock(number, seed, TRUTH, ELEMENTS), stars_file)
    stars = oti.read_stars(stars_file, elements=ELEMENTS)
    stars_file.unlink()
    classical = oti.fit_classical(stars, bootstraps=32, seed=seed)
    posterior = oti.sample(stars, seed=seed)
    table = oti.compare(classical, posterior)
    rows = {}
    for name, row in table.iterrows():
        half = 1.96 * row.eq8_sd
        rows[name] = {
            "truth": row.truth,
            "eq. 8": [row.eq8_mean - half, row.eq8_mean, row.eq8_mean + half],
            "posterior": [row.low_95, row.posterior_mean, row.high_95],
        }
    kept = ("max_r_hat", "min_ess_bulk", "divergences", "converged")
    return {"rows": rows, "joint": table.attrs["eq8"]} | {n: posterior.attrs[n] for n in kept}


def kept_or_inferred(seed, number, folder):
    """What `infer` found before, or finds now and keeps."""
    return kept(folder / f"seed-{seed}-{number}.json", lambda: infer(seed, number, folder))


def missed(row, path):
    """Whether the truth is outside the interval; None where there is no interval."""
    low, _, high = row[path]
    return None if math.isnan(low) else not low <= row["truth"] <= high


def report(found):
    print("\nmisses of the 95% intervals")
    for seed, result in found.items():
        for name, row in result["rows"].items():
            for path in PATHS:
                if missed(row, path):
                    low, mean, high = row[path]
                    where = f"{low:.4g} to {high:.4g} (mean {mean:.4g}), truth {row['truth']:.4g}"
                    print(f"seed {seed:3d}  {path:9s}  {name:18s}  {where}")
    print(
        "\ntruth inside the 95% interval, of the seeds that gave one; the range that 95% coverage gives 95% of the time"
    )
    for name in next(iter(found.values()))["rows"]:
        line = f"{name:18s}"
        for path in PATHS:
            told = [m for r in found.values() if (m := missed(r["rows"][name], path)) is not None]
            low, high = binom.ppf([0.025, 0.975], len(told), 0.95) if told else (0, 0)
            line += f"   {path} {len(told) - sum(told):2d}/{len(told):2d} ({low:.0f} to {high:.0f})"
        print(line)
    unsure = [seed for seed, result in found.items() if not result["converged"]]
    print(f"\nposteriors that did not converge: {unsure or 'none'}")
    for seed in unsure:
        result = found[seed]
        print(
            f"seed {seed:3d}  R-hat {result['max_r_hat']:.3f}  ESS {result['min_ess_bulk']:.0f}"
            f"  divergences {result['divergences']}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--stars", type=int, default=4000)
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    parser.add_argument("--folder", type=Path, default=Path("demo-seeds"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    seeds, found = range(given.seeds), {}
    # processes of their own: what is sampled in one waits for nothing in another
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        results = pool.map(kept_or_inferred, seeds, [given.stars] * given.seeds, [given.folder] * given.seeds)
        for seed, told in zip(seeds, results, strict=True):
            found[seed] = told
            print(f"seed {seed}: R-hat {told['max_r_hat']:.3f}, {told['divergences']} divergences", flush=True)
    report(found)
