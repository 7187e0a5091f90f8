"""How far what the model assumes of the field moves theta, whatever the noise.

    python benchmarks/field_bias.py [--fields saturating,root] [--seeds 0,1,2] [--stars 20000] [--noises 32]
                                  [--folder DIR] [--linear]

Of a synthetic catalogue the field is known. Its stars get scatter and errors of the same covariance anew, many times
and each time with both signs, and ln L of each is expanded about the truth, at the hyperparameters that are best there
on average. The maximum of the mean of ln L is where posteriors are centred on average: its distance from the truth, in
sigmas of the curvature there, is bias, of the prior of the field and of the actions, free of the luck of one catalogue.
Told besides are the scatter of the noises' maxima in the same sigmas, 1 where the sigmas are right, and the mean of
twice ln L at a noise's maximum less at the truth, 4 where bias and sigmas are. Fields other than the catalogue's own
(saturating) have the same gradients and amplitudes, and other shapes.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from astropy.table import Table
from catalogues import FIELDS, field_of, made, truth_of
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.base.parallel import threaded
from otibayes.base.surface import Evaluations, evaluate, reader
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import likelihood_data
from otibayes.generative import statistic as sums_of
from otibayes.generative.density import hilbert_log_likelihood
from otibayes.generative.expansion import Run
from otibayes.generative.model import GaussianField
from otibayes.generative.statistic import Statistic, condensed
from otibayes.generative.sums import moments_at
from otibayes.generative.surface import region_about
from otibayes.generative.unconstrained import Unconstrained, to_unbounded
from otibayes.stars.labels import LABELS
from otibayes.stars.preparation import prepare_stars

STUDY = 2022  # the catalogues of posterior_recovery.py
SDS, TIE = np.array([0.055, 0.033, 2.6, 0.14]), 0.9  # of the posterior of 20,000 stars, and corr(m_disk, h_z)
SCALE = np.diag(SDS**2)
SCALE[0, 1] = SCALE[1, 0] = TIE * SDS[0] * SDS[1]
root = np.linalg.cholesky(SCALE)
CLOSELY = {"initial_simplex": np.eye(5, 4), "xatol": 1e-3, "fatol": 1e-4, "maxiter": 4000}
REACH = 5.0  # of these sigmas


def each(data: Any, field: GaussianField, found: Statistic) -> Any:
    """ln L (S,) of every noise: `found` has a leading axis (S,) in projection and square."""

    def one(projection: Any, square: Any) -> Any:
        of_noise = Statistic(found.factor, projection, square, found.count)
        return hilbert_log_likelihood(field, of_noise, data.basis, data.classes)

    return jax.vmap(one)(found.projection, found.square)


class Found(NamedTuple):
    """Functions of the basis; bias (d,) in sigmas of the mean's curvature; scatter (d,) of the noises' maxima in the
    same; of each noise, twice ln L at its maximum less at the truth; the sigmas (d,)."""

    functions: int
    bias: np.ndarray
    scatter: np.ndarray
    ratio: np.ndarray
    sds: np.ndarray


def linear_terms(x: Any) -> Any:
    return jnp.stack([jnp.ones_like(x[..., 0]), x[..., 0] ** 2, x[..., 1], x[..., 2] ** 2], -1)


def noisy(data: Any, field: np.ndarray, covariance: np.ndarray, noises: int) -> Any:
    """The data with columns of abundances (N, 2 noises E): the field with each noise added, and subtracted."""
    drawn = np.random.default_rng(0).multivariate_normal(np.zeros(len(covariance)), covariance, (noises, len(field)))
    return replace(data, Y=jnp.asarray(np.concatenate([field + sign * n for n in drawn for sign in (1, -1)], 1)))


def averaged(data: Any, many: Any, theta: np.ndarray) -> Statistic:
    """Of one pass over the stars, the statistics of every noise."""
    E, columns = len(data.elements), many.Y.shape[1]
    found = condensed(data.basis, moments_at(many, theta), columns)
    projection = found.projection.reshape(len(found.factor), -1, E).transpose(1, 0, 2)
    square = jnp.einsum("iaib->iab", found.square.reshape(columns // E, E, columns // E, E))
    return Statistic(found.factor, projection, square, found.count)


def of_noises(data: Any, field: np.ndarray, covariance: np.ndarray, noises: int, truth: Any) -> Found:
    """Where the mean of ln L is largest, and ln L of each noise."""
    flat_model = Unconstrained.of(joint_abundances, data)
    flat = flat_model.prior().mean
    flat[flat_model.places] = np.asarray(to_unbounded(truth, MILKY_WAY))
    hyper = np.setdiff1d(np.arange(flat.size), flat_model.places)

    def potential(flat: Any, data: Any, found: Statistic) -> Any:
        return flat_model.potential(lambda _, field: jnp.mean(each(data, field, found)))(flat)

    for step in range(3):  # the first bases are for what the prior says of length scales
        data = Run(flat_model).resolving(data, flat, np.tile(flat, (8, 1)), np.array(truth)[None], None, f"step-{step}")
        many = noisy(data, field, covariance, noises)
        found = averaged(data, many, np.array(truth))
        slope = jax.jit(jax.value_and_grad(partial(potential, data=data, found=found)))

        def best(z: np.ndarray, slope: Any = slope) -> tuple[float, np.ndarray]:
            value, gradient = slope(jnp.asarray(flat).at[hyper].set(z))
            return float(value), np.asarray(gradient)[hyper]

        flat[hyper] = scipy.optimize.minimize(best, flat[hyper], jac=True, method="BFGS", options={"gtol": 0.05}).x
    of_field = flat_model.field(flat_model.constrain(flat))
    value = jax.jit(lambda found: each(data, of_field, found))
    region = region_about(np.array(truth), SCALE, REACH, MILKY_WAY)
    passes = threaded("mean of ln L", "pass")
    known = Evaluations(lambda thetas: passes(lambda theta: np.asarray(value(averaged(data, many, theta))), thetas))
    known.cover(region, 4)
    surface = known.surface(region, 4)
    read = reader(region, 4, surface.coefficients)

    def highest(of: Any) -> tuple[np.ndarray, float]:
        def lower(z: np.ndarray) -> float:
            return float(np.nan_to_num(-of(read(np.array(truth) + root @ z)), nan=1e9))

        found = scipy.optimize.minimize(lower, np.zeros(4), method="Nelder-Mead", options=CLOSELY)
        return found.x, 2 * (lower(np.zeros(4)) - found.fun)

    top, _ = highest(np.mean)
    mean = lambda z: jnp.mean(evaluate(surface, np.array(truth) + root @ z))  # noqa: E731
    sds = np.sqrt(np.diag(root @ np.linalg.inv(-jax.hessian(mean)(top)) @ root.T))
    maxima = [highest(lambda values, i=i: values[i]) for i in range(2 * noises)]
    return Found(
        data.basis.size,
        root @ top / sds,
        np.std([root @ z for z, _ in maxima], 0) / sds,
        np.array([ratio for _, ratio in maxima]),
        sds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", default="saturating,exponential,logarithmic,root", help=", ".join(FIELDS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--stars", type=int, default=20000)
    parser.add_argument("--linear", action="store_true", help="As trend the terms linear in the actions alone.")
    parser.add_argument("--noises", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path("posterior-recovery"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.linear:
        sums_of.trend_terms = linear_terms
    print(
        "field        seed functions  bias [sigma]: m_disk, h_z, z_sun, vz_sun  scatter of maxima"
        "         ratio, of 4     sigmas [-, kpc, pc, km/s]"
    )
    for seed in map(int, options.seeds.split(",")):
        truth = truth_of(seed, STUDY)
        file = made(seed, options.stars, options.folder, STUDY)
        stars, table = oti.read_stars(file), Table.read(file)
        noise = np.stack(list(stars.abundances.values()), 1) - field_of(table, "saturating")
        for shape in options.fields.split(","):
            field = field_of(table, shape)
            stars = replace(stars, abundances=dict(zip(LABELS, (field + noise).T, strict=True)))
            data = likelihood_data(prepare_stars(stars, list(LABELS), every=False))
            field, covariance = (field[data.kept] - data.centre) / data.scale, np.cov((noise[data.kept] / data.scale).T)
            found = of_noises(data, field, covariance, options.noises, truth)
            row = "  ".join(" ".join(f"{value:+5.2f}" for value in values) for values in (found.bias, found.scatter))
            error = found.ratio.std() / len(found.ratio) ** 0.5
            print(
                f"{shape:12s} {seed:4d} {found.functions:9d}  {row}   {found.ratio.mean():5.2f} +- {error:.2f}"
                f"   {' '.join(f'{sd:.4f}' for sd in found.sds)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
