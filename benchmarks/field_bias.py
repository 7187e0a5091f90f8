"""How far what the model assumes of the field moves theta, whatever the noise.

    python benchmarks/field_bias.py [--fields saturating,root] [--catalogues 1,2,heavy,beams] [--stars 20000]
                                    [--elements 8] [--noises 0] [--expected-distances] [--folder field-bias]

Of a synthetic catalogue the field is known. With the hyperparameters that are best at the truth, the maximum of ln L,
averaged over the noise, is where posteriors are centred on average (otibayes/generative/pull.py). Its distance from the
truth, by one Newton step and in sigmas of the curvature, is bias: of the prior of the field and of the actions, free of
the luck of one catalogue. Fields other than the catalogue's own (saturating) have the same gradients and amplitudes,
and other shapes. Catalogues: a number is a seed of benchmarks/posterior_recovery.py; heavy has m_disk 1.35 and h_z 0.41
kpc, near the least halo; beams has pencil beams as its footprint; errors-8 has Gaia's errors, and of its stars those to
4 kpc whose parallax is more than 8 times its error; errors-8:104 is the same of another seed.

With --noises, the noise is dealt out to the stars anew so many times, and the posterior of theta at the same
hyperparameters is found by importance sampling on a response surface. It prints how often intervals hold the truth, and
by how much estimates scatter, in sigma, beside the 1 of calibrated answers.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from astropy.table import Table
from catalogues import FIELDS, field_of, held, truth_of
from otibayes.models import joint_abundances
from scipy.special import softmax

import otibayes as oti
from otibayes.base.parallel import cores
from otibayes.base.response_surface import Evaluations, contains
from otibayes.base.store import Store
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import likelihood_data
from otibayes.generative.density import hilbert_log_likelihood
from otibayes.generative.expansion import Run
from otibayes.generative.pull import slope_of_average
from otibayes.generative.statistic import Statistic, condensed
from otibayes.generative.surface import from_surface, packed, passes, region_about
from otibayes.generative.unconstrained import Gaussian, Unconstrained, to_unbounded
from otibayes.stars.labels import LABELS
from otibayes.stars.preparation import prepare_stars

STUDY = 2022  # the catalogues of posterior_recovery.py
# seed, truth, options of `oti.mock`, least parallax over its error
OTHERS: dict[str, tuple[int, oti.Parameters, dict, float]] = {
    "heavy": (101, oti.Parameters(1.35, 0.41, 15.0, 8.5), {}, 0.0),
    "beams": (102, oti.Parameters(1.1, 0.32, 15.0, 8.5), {"footprint": "pencil-beams"}, 0.0),
    **{
        f"errors-{least}": (103, oti.Parameters(1.1, 0.32, 15.0, 8.5), {"gaia_errors": True, "d_max": 6.0}, least)
        for least in (20, 8)
    },
}
FARTHEST = 4.0  # kpc by parallax, of catalogues with errors of parallaxes, whose stars reach farther
SPREAD = 0.3  # of the unbounded hyperparameters for which a basis is made, as in a run
SIGMAS, DEGREE, PROPOSALS = 5.0, 4, 3000  # of the surface for --noises, and draws from a wider Gaussian
WIDER, LEVELS = 1.6, (0.5, 0.68, 0.9)
STEP = np.array([0.02, 0.012, 1.0, 0.05])  # of theta: below a sigma of 20,000 stars


def best_field(data: Any, truth: np.ndarray) -> tuple[Any, Any]:
    """The data on a basis that suits them, and what is assumed of the field where the density is best at the truth."""
    unconstrained = Unconstrained.of(joint_abundances, data)
    flat = unconstrained.prior().mean
    flat[unconstrained.places] = np.asarray(to_unbounded(MILKY_WAY.Parameters(*truth), MILKY_WAY))
    hyper = np.delete(np.arange(flat.size), unconstrained.places)
    spread = np.diag(np.where(np.isin(np.arange(flat.size), hyper), SPREAD**2, 0.0))
    for step in range(3):  # the first bases are for what the prior says of length scales
        density = Run(unconstrained).on_basis(data, Gaussian(flat, spread), None, f"step-{step}", truth[None])
        data, found = density.data, density.statistic(truth)
        likelihood = partial(hilbert_log_likelihood, found=found, basis=data.basis, classes=data.unlike)
        slope = jax.jit(jax.value_and_grad(unconstrained.potential(lambda _, field: likelihood(field))))  # noqa: B023

        def best(z: np.ndarray, slope: Any = slope) -> tuple[float, np.ndarray]:
            at = flat.copy()
            at[hyper] = z
            value, gradient = slope(at)
            return float(value), np.asarray(gradient)[hyper]

        flat[hyper] = scipy.optimize.minimize(best, flat[hyper], jac=True, method="BFGS", options={"gtol": 0.05}).x
    return data, unconstrained.field(unconstrained.constrain(flat))


def bias(data: Any, field: Any, mean: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bias (d,) in sigmas, and the covariance (d, d), where abundances scatter about `mean` (N, E)."""
    slope = slope_of_average(data, field, mean)
    change = [slope(truth + step) - slope(truth - step) for step in np.diag(STEP)]
    covariance = np.linalg.inv(-np.array(change) / (2 * STEP[:, None]))
    covariance = 0.5 * (covariance + covariance.T)
    return covariance @ slope(truth) / np.sqrt(np.diag(covariance)), covariance


def with_other_noises(
    data: Any, field: Any, mean: np.ndarray, truth: np.ndarray, covariance: np.ndarray, noises: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations in sigma (noises, d) of the posterior's mean from the truth, and the shares (noises, d) of the
    posterior below the truth, for permutations of the noise over the stars."""
    rng, elements = np.random.default_rng(0), len(data.elements)
    noise = np.asarray(data.Y) - mean
    other = np.stack([noise[rng.permutation(len(noise))] for _ in range(noises)])
    columns = np.concatenate([mean[None], other]).transpose(1, 0, 2).reshape(len(mean), -1)
    many = replace(data, Y=jnp.asarray(columns))
    condense = jax.jit(partial(condensed, data.basis, elements=columns.shape[1]))

    def statistics(thetas: list[np.ndarray]) -> list[Statistic]:
        found = [condense(sums)._replace(square=np.zeros(1)) for sums in passes(Store(threads=cores()), many, thetas)]
        return packed(found, thetas)  # one square for each noise, below, in place of that of all columns

    region, known = region_about(truth, covariance, SIGMAS, MILKY_WAY), Evaluations(statistics)
    known.cover(region, DEGREE)
    surface = known.surface(region, DEGREE).lean()
    squares = np.stack([(mean + one).T @ (mean + one) for one in other])

    @jax.jit
    def log_likelihoods(theta: Any) -> Any:
        found, beyond = from_surface(surface, theta)
        projections = jnp.moveaxis(found.projection.reshape(len(found.projection), -1, elements), 1, 0)

        def one(projection: Any, square: Any) -> Any:
            noisy = Statistic(found.factor, projection, square, jnp.asarray(float(len(mean))))
            return hilbert_log_likelihood(field, noisy, data.basis)

        return jax.vmap(one)(projections[:1] + projections[1:], squares) + beyond

    z = rng.normal(size=(PROPOSALS, len(truth)))
    theta = truth + WIDER * z @ np.linalg.cholesky(covariance).T
    inside = np.asarray(jax.vmap(partial(contains, region))(theta))
    z, theta = z[inside], theta[inside]
    log_weight = np.array([np.asarray(log_likelihoods(one)) for one in theta]) + 0.5 * (z**2).sum(1)[:, None]
    weight = softmax(log_weight, 0).T
    means = weight @ theta
    sds = np.sqrt(np.stack([one @ (theta - middle) ** 2 for one, middle in zip(weight, means, strict=True)]))
    return (means - truth) / sds, weight @ (theta < truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", default="saturating,exponential,logarithmic,root", help=", ".join(FIELDS))
    parser.add_argument("--catalogues", default="1,2,heavy,beams", help=f"Seeds, or {', '.join(OTHERS)}.")
    parser.add_argument("--stars", type=int, default=20000)
    parser.add_argument("--elements", type=int, default=len(LABELS))
    parser.add_argument("--noises", type=int, default=0)
    parser.add_argument("--expected-distances", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("field-bias"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print("field        catalogue functions  bias [sigma]: m_disk, h_z, z_sun, vz_sun   sigmas [-, kpc, pc, km/s]")
    for name in options.catalogues.split(","):
        kind, _, other = name.partition(":")
        seed, theta, mock, least = OTHERS[kind] if kind in OTHERS else (int(kind), truth_of(int(kind), STUDY), {}, 0.0)
        truth, file = np.array(theta), options.folder / f"stars-{name}-{options.stars}.fits"
        if not file.exists():
            table = oti.mock(options.stars, int(other or seed), theta, **mock)
            if least:
                parallax = np.asarray(table["parallax"])
                table = table[parallax > np.maximum(least * np.asarray(table["parallax_error"]), 1 / FARTHEST)]
            oti.write_table(table, file)
        stars, table = oti.read_stars(file), Table.read(file)
        if options.expected_distances:
            stars = oti.expected_distances(stars)
        names = list(LABELS)[: options.elements]
        noise = np.stack([stars.abundances[name] for name in names], 1) - field_of(table, "saturating", names)
        for shape in options.fields.split(","):
            mean = field_of(table, shape, names)
            stars = replace(stars, abundances=dict(zip(names, (mean + noise).T, strict=True)), errors={})
            data = likelihood_data(prepare_stars(stars, names, every=False))
            data, field = best_field(data, truth)
            mean = (mean[data.kept] - data.centre) / data.scale
            found, covariance = bias(data, field, mean, truth)
            row = " ".join(f"{value:+5.2f}" for value in found)
            sds = " ".join(f"{sd:.4f}" for sd in np.sqrt(np.diag(covariance)))
            print(f"{shape:12s} {name:>9s} {data.basis.size:9d}  {row}      {sds}", flush=True)
            if options.noises:
                off, below = with_other_noises(data, field, mean, truth, covariance, options.noises)
                for i, p in enumerate(MILKY_WAY.parameters):
                    shares = zip(LEVELS, held(below[:, i], LEVELS), strict=True)
                    shown = ", ".join(f"{100 * level:.0f}%: {100 * share:.0f}" for level, share in shares)
                    print(f"    {p.name:7s} {off[:, i].mean():+.2f} (sd {off[:, i].std():.2f}) sigma; held {shown}")


if __name__ == "__main__":
    main()
