"""Equation 8 of PW21 and chi^2 of binned coefficients, ours, on the same synthetic catalogues of known truth.

Run from the checkout: python benchmarks/objectives_recovery.py [--seeds 20] [--stars 10000] [--folder DIR], a minute or
two a seed. Each catalogue has a truth of its own, drawn from its seed; its stars and labels come from gala's orbits and
not from our action code. All four parameters are fitted, as `otibayes classical` does.

Printed of equation 8, for each element: deviations of each parameter from the truth, in sigma of the bootstraps, and
the squared Mahalanobis distance of the truth, which has a mean of 4 where the answer is unbiased and its errors are
right. Of chi^2: deviations by the profile's interval on the side of the truth, how often that interval holds the truth
(68%), how much chi^2 at the truth is above its minimum (chi^2 of 4; of the catalogues whose surface reaches the truth),
and its value at the minimum (p uniform from 0 to 1). Finished seeds are kept.
"""

import argparse
from pathlib import Path

import numpy as np
from catalogues import off_truth, over_seeds, passing, truth_of
from scipy.stats import chi2, kstest

import otibayes as oti

STUDY = 2023
ELEMENTS = ("MG_FE", "FE_H")
PARAMETERS = oti.Parameters._fields


def recover(seed: int, number: int, bootstraps: int, folder: Path) -> dict:
    stars = passing(seed, number, folder, STUDY, ELEMENTS)
    tree = oti.fit_classical(stars, ELEMENTS, bootstraps=bootstraps, seed=seed)
    rise = oti.chi2_rise(tree, truth_of(seed, STUDY))
    replicates = np.stack([tree["posterior"][name].values[0] for name in PARAMETERS], -1)  # (draw, element, parameter)
    found = {"seed": seed, "dof": int(tree["chi2"].attrs["dof"]), "report": float(tree["surface"].ds["rms"].max())}
    for e, element in enumerate(ELEMENTS):
        plain, ours = (tree[group].ds.isel(element=e) for group in ("optimum", "chi2"))
        found[element] = {
            "equation 8": {
                "optimum": [float(plain[name]) for name in PARAMETERS],
                "covariance": np.cov(replicates[:, e].T).tolist(),
            },
            "chi^2": {
                "optimum": [float(ours[name]) for name in PARAMETERS],
                "interval": ours["interval"].values.tolist(),
                "rise": float(rise[e]),
                "value": float(ours["value"]),
                "p_value": float(ours["p_value"]),
                "p_bootstrap": float(ours["p_bootstrap"]),
            },
        }
    return found


def moments(values: np.ndarray) -> str:
    n = len(values)
    return f"{values.mean():+6.2f} +- {values.std(ddof=1) / n**0.5:4.2f}, {values.std(ddof=1):4.2f}"


def summary(results: list[dict]) -> list[str]:
    lines = [
        f"{len(results)} catalogues; deviations [sigma]: mean, sd",
        f"{'':34s}" + "".join(f"{p:>22s}" for p in PARAMETERS),
    ]
    for element in ELEMENTS:
        truth = np.array([truth_of(r["seed"], STUDY) for r in results])
        plain = [r[element]["equation 8"] for r in results]
        far = [off_truth(one["optimum"], one["covariance"], t) for one, t in zip(plain, truth, strict=True)]
        pulls, distance = map(np.array, zip(*far, strict=True))
        lines.append(f"{element:8s} {'equation 8':16s}" + "".join(f"{moments(p):>22s}" for p in pulls.T))
        lines.append(f"{'':20s} distance^2 of the truth, of 4: {moments(distance)}")

        ours = [r[element]["chi^2"] for r in results]
        off = np.array([one["optimum"] for one in ours]) - truth
        low, high = np.array([one["interval"] for one in ours]).transpose(2, 0, 1) - truth - off
        pulls = off / np.where(off > 0, -low, high)  # NaN where that side is open
        lines.append(f"{element:8s} {'chi^2':16s}" + "".join(f"{moments(p[np.isfinite(p)]):>22s}" for p in pulls.T))
        held = [f"{np.mean(~(np.abs(p) > 1)):.0%}, {np.isnan(p).sum()} open" for p in pulls.T]
        lines.append(f"{'':20s} in 68%:  " + "".join(f"{h:>22s}" for h in held))
        rise = np.array([one["rise"] for one in ours])
        rise = rise[np.isfinite(rise)]
        p = kstest(rise, chi2(len(PARAMETERS)).cdf).pvalue
        lines.append(f"{'':20s} rise at the truth, of 4: {moments(rise)}; KS p {p:.2f}; {len(rise)} catalogues")
        values = np.array([r[element]["chi^2"]["value"] for r in results])
        ps = [[r[element]["chi^2"][way] for r in results] for way in ("p_value", "p_bootstrap")]
        told = [f"KS p {kstest(p, 'uniform').pvalue:.2f}, below 0.05 in {np.mean(np.less(p, 0.05)):.0%}" for p in ps]
        lines.append(
            f"{'':20s} value, of {results[0]['dof']}: {moments(values)}; p_value: {told[0]}; of resamples: {told[1]}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--stars", type=int, default=10000)
    parser.add_argument("--bootstraps", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=Path("objectives-recovery"))
    options = parser.parse_args()
    print("\n".join(summary(over_seeds(recover, options))))


if __name__ == "__main__":
    main()
