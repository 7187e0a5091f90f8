"""Equation 8 of PW21 and chi^2 of binned coefficients, ours, on the same synthetic catalogues of known truth.

Run from the checkout: python examples/objectives_recovery.py [--seeds 20] [--stars 10000] [--folder DIR], some two
minutes a seed. Each catalogue has a truth of its own, drawn from its seed; its stars and labels come from gala's orbits
and not from our action code. All four parameters are fitted, as `otibayes classical --no-polish` does. Told of each
objective and element are the pulls of every parameter, and the squared Mahalanobis distance of the truth, which has a
mean of 4 where the answer is unbiased and its errors are right; of chi^2 also its value at the minimum, whose mean
should be its degrees of freedom. A seed that was done is not done again.
"""

import argparse
from pathlib import Path

import numpy as np
from catalogues import off_truth, over_seeds, truth_of
from scipy.stats import chi2, kstest

import otibayes as oti

STUDY = 2023
ELEMENTS = ("MG_FE", "FE_H")
PARAMETERS = oti.Parameters._fields


def recover(seed: int, number: int, bootstraps: int, folder: Path) -> dict:
    table = folder / f"stars-{seed}.fits"
    oti.write_table(oti.mock(number, seed, truth_of(seed, STUDY), ELEMENTS, progress=False), table)
    tree = oti.fit_classical(oti.read_stars(table), ELEMENTS, bootstraps=bootstraps, seed=seed, polish=False)
    table.unlink()
    replicates = np.stack([tree["posterior"][name].values[0] for name in PARAMETERS], -1)  # (draw, element, parameter)
    found = {"seed": seed, "dof": int(tree["chi2"].attrs["dof"]), "report": float(tree["surface"].attrs["worst"])}
    for e, element in enumerate(ELEMENTS):
        plain, ours = (tree[group].ds.isel(element=e) for group in ("optimum", "chi2"))
        found[element] = {
            "equation 8": {
                "optimum": [float(plain[name]) for name in PARAMETERS],
                "covariance": np.cov(replicates[:, e].T).tolist(),
            },
            "chi^2": {
                "optimum": [float(ours[name]) for name in PARAMETERS],
                "covariance": ours["covariance"].values.tolist(),
                "spread": np.cov(ours["replicates"].values.T).tolist(),
                "value": float(ours["value"]),
                "p_bootstrap": float(ours["p_bootstrap"]),
            },
        }
    return found


def moments(values: np.ndarray) -> str:
    n = len(values)
    return f"{values.mean():+6.2f} +- {values.std(ddof=1) / n**0.5:4.2f}, {values.std(ddof=1):4.2f}"


def summary(results: list[dict]) -> list[str]:
    lines = [f"{len(results)} catalogues; pulls: mean, sd", f"{'':34s}" + "".join(f"{p:>22s}" for p in PARAMETERS)]
    for element in ELEMENTS:
        for way, errors in (("equation 8", "covariance"), ("chi^2", "covariance"), ("chi^2", "spread")):
            found = [(r[element][way]["optimum"], r[element][way][errors], truth_of(r["seed"], STUDY)) for r in results]
            pulls, distance = map(np.array, zip(*(off_truth(*one) for one in found), strict=True))
            shown = {"covariance": "", "spread": "resamples"}[errors]
            lines.append(f"{element:8s} {way:12s} {shown:10s}" + "".join(f"{moments(p):>22s}" for p in pulls.T))
            lines.append(f"{'':20s} distance^2 of the truth, of 4: {moments(distance)}")
        values = np.array([r[element]["chi^2"]["value"] for r in results])
        dof, p = results[0]["dof"], kstest(values, chi2(results[0]["dof"]).cdf).pvalue
        low = np.mean([r[element]["chi^2"]["p_bootstrap"] < 0.05 for r in results])
        lines.append(f"{'':20s} value, of {dof}: {moments(values)}; KS p {p:.2f}; p_bootstrap < 0.05 in {low:.0%}")
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
