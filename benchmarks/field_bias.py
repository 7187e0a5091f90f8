"""How far what the model assumes of the field moves theta, whatever the noise.

    python benchmarks/field_bias.py [--fields saturating,root] [--catalogues 1,2,heavy,beams] [--stars 20000]
                                    [--folder field-bias]

Of a synthetic catalogue the field is known. With the hyperparameters that are best at the truth, the maximum of ln L,
averaged over the noise, is where posteriors are centred on average (otibayes/generative/pull.py). Its distance from the
truth, by one Newton step and in sigmas of the curvature, is bias: of the prior of the field and of the actions, free of
the luck of one catalogue. Fields other than the catalogue's own (saturating) have the same gradients and amplitudes,
and other shapes. Catalogues: a number is a seed of benchmarks/posterior_recovery.py; heavy has m_disk 1.35 and h_z 0.41
kpc, near the least halo; beams has pencil beams as its footprint.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.optimize
from astropy.table import Table
from catalogues import FIELDS, field_of, truth_of
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import likelihood_data
from otibayes.generative.density import hilbert_log_likelihood
from otibayes.generative.expansion import Run
from otibayes.generative.pull import slope_of_average
from otibayes.generative.unconstrained import Gaussian, Unconstrained, to_unbounded
from otibayes.stars.labels import LABELS
from otibayes.stars.preparation import prepare_stars

STUDY = 2022  # the catalogues of posterior_recovery.py
OTHERS = {
    "heavy": (101, oti.Parameters(1.35, 0.41, 15.0, 8.5), "all-sky"),
    "beams": (102, oti.Parameters(1.1, 0.32, 15.0, 8.5), "pencil-beams"),
}
SPREAD = 0.3  # of the unbounded hyperparameters for which a basis is made, as in a run
STEP = np.array([0.02, 0.012, 1.0, 0.05])  # of theta: below a sigma of 20,000 stars


def bias(data: Any, mean: np.ndarray, truth: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Functions of the basis, bias (d,) in sigmas, and the sigmas (d,), of `data` whose abundances scatter about `mean`
    (N, E)."""
    unconstrained = Unconstrained.of(joint_abundances, data)
    flat = unconstrained.prior().mean
    flat[unconstrained.places] = np.asarray(to_unbounded(MILKY_WAY.Parameters(*truth), MILKY_WAY))
    hyper = np.delete(np.arange(flat.size), unconstrained.places)
    spread = np.diag(np.where(np.isin(np.arange(flat.size), hyper), SPREAD**2, 0.0))
    for step in range(3):  # the first bases are for what the prior says of length scales
        density = Run(unconstrained).on_basis(data, Gaussian(flat, spread), None, f"step-{step}", truth[None])
        data, found = density.data, density.statistic(truth)
        likelihood = partial(hilbert_log_likelihood, found=found, basis=data.basis, classes=data.classes)
        slope = jax.jit(jax.value_and_grad(unconstrained.potential(lambda _, field: likelihood(field))))  # noqa: B023

        def best(z: np.ndarray, slope: Any = slope) -> tuple[float, np.ndarray]:
            at = flat.copy()
            at[hyper] = z
            value, gradient = slope(at)
            return float(value), np.asarray(gradient)[hyper]

        flat[hyper] = scipy.optimize.minimize(best, flat[hyper], jac=True, method="BFGS", options={"gtol": 0.05}).x
    field = unconstrained.field(unconstrained.constrain(flat))
    slope = slope_of_average(data, field, mean)
    change = [slope(truth + step) - slope(truth - step) for step in np.diag(STEP)]
    covariance = np.linalg.inv(-np.array(change) / (2 * STEP[:, None]))
    sds = np.sqrt(np.diag(covariance))
    return data.basis.size, 0.5 * (covariance + covariance.T) @ slope(truth) / sds, sds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", default="saturating,exponential,logarithmic,root", help=", ".join(FIELDS))
    parser.add_argument("--catalogues", default="1,2,heavy,beams")
    parser.add_argument("--stars", type=int, default=20000)
    parser.add_argument("--folder", type=Path, default=Path("field-bias"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print("field        catalogue functions  bias [sigma]: m_disk, h_z, z_sun, vz_sun   sigmas [-, kpc, pc, km/s]")
    for name in options.catalogues.split(","):
        seed, theta, footprint = OTHERS[name] if name in OTHERS else (int(name), truth_of(int(name), STUDY), "all-sky")
        truth, file = np.array(theta), options.folder / f"stars-{name}-{options.stars}.fits"
        if not file.exists():
            oti.write_table(oti.mock(options.stars, seed, theta, footprint=footprint), file)
        stars, table = oti.read_stars(file), Table.read(file)
        noise = np.stack(list(stars.abundances.values()), 1) - field_of(table, "saturating")
        for shape in options.fields.split(","):
            mean = field_of(table, shape)
            stars = replace(stars, abundances=dict(zip(LABELS, (mean + noise).T, strict=True)))
            data = likelihood_data(prepare_stars(stars, list(LABELS), every=False))
            functions, found, sds = bias(data, (mean[data.kept] - data.centre) / data.scale, truth)
            row = " ".join(f"{value:+5.2f}" for value in found), " ".join(f"{sd:.4f}" for sd in sds)
            print(f"{shape:12s} {name:>9s} {functions:9d}  {'      '.join(row)}", flush=True)


if __name__ == "__main__":
    main()
