"""How far ln L with errors by class is from that in which each star has its own errors.

    python benchmarks/error_classes.py STARS [--stars 4000] [--classes 1,4,16] [--draws 30]

For stars whose abundance errors differ, e.g. of `otibayes mock`. At draws of the Gaussian about the maximum the
likelihood by classes is compared with that in which every star has its own errors, a sum over stars of products of its
basis values and its weights. Printed are the rms of the difference over the draws, less its mean (a constant changes no
posterior), and how far it moves the mean of a parameter of the mass model, to first order, in its sigmas.
"""

import argparse
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.dynamics import MILKY_WAY
from otibayes.dynamics.trend import TREND_SIZE
from otibayes.generative import likelihood_data
from otibayes.generative.basis import prior_covariance
from otibayes.generative.expansion import Run
from otibayes.generative.posterior import FAR, gaussian_about_maximum
from otibayes.generative.statistic import condensed, design
from otibayes.generative.sums import all_inputs, all_moments
from otibayes.generative.surface import given, shift
from otibayes.generative.unconstrained import Unconstrained
from otibayes.stars.preparation import prepare_stars


def by_star(data):
    """ln L where every star has its own errors, `data.variance`, and all elements."""

    def density(theta, field):
        phi, amplitude = design(data.basis, all_inputs(data, jnp.stack([*theta]))), field.amplitude
        K, E = phi.shape[1], len(data.elements)
        root = jax.scipy.linalg.block_diag(
            jnp.eye(TREND_SIZE), jnp.linalg.cholesky(prior_covariance(data.basis, field.kernel, field.lengths))
        )
        Sigma = field.scatter_cholesky @ field.scatter_cholesky.T
        noise = jnp.linalg.cholesky(Sigma[None] + jnp.asarray(data.variance)[:, :, None] * jnp.eye(E)[None])
        half = jax.vmap(lambda L: jax.scipy.linalg.solve_triangular(L, jnp.eye(E), lower=True))(noise)
        weight = jnp.einsum("nij,nik->njk", half, half)
        phi = phi @ root
        pairs = (phi[:, :, None] * phi[:, None, :]).reshape(len(phi), -1)
        precision = (pairs.T @ weight.reshape(len(phi), -1)).reshape(K, K, E, E).transpose(0, 2, 1, 3)
        # prior of the coefficients: in units of Sigma for the trend; independent for the process
        trend = jnp.linalg.inv(Sigma)
        first = (jnp.arange(K) < TREND_SIZE)[:, None, None]
        own = jnp.where(first, trend[None], jnp.diag(1 / amplitude**2)[None])
        prior = jax.vmap(lambda k: jnp.zeros((K, E, E)).at[k].set(own[k]), out_axes=0)(jnp.arange(K))
        total = precision + prior.transpose(0, 2, 1, 3)
        b = jnp.einsum("nk,nef,nf->ke", phi, weight, data.Y).reshape(-1)
        factor = jnp.linalg.cholesky(total.reshape(K * E, K * E))
        solution = jax.scipy.linalg.solve_triangular(factor, b, lower=True)
        log_prior = TREND_SIZE * jnp.linalg.slogdet(trend)[1] - 2 * (K - TREND_SIZE) * jnp.sum(jnp.log(amplitude))
        value = 0.5 * solution @ solution - jnp.sum(jnp.log(jnp.diagonal(factor))) + 0.5 * log_prior
        residual = jnp.einsum("ne,nef,nf->", data.Y, weight, data.Y)
        log_noise = jnp.sum(jnp.log(jnp.diagonal(noise, axis1=1, axis2=2)))
        volume = 0.5 * E * jnp.linalg.slogdet(jnp.eye(TREND_SIZE) + phi[:, :TREND_SIZE].T @ phi[:, :TREND_SIZE])[1]
        return value + volume - 0.5 * residual - log_noise - 0.5 * data.Y.size * jnp.log(2 * jnp.pi)

    return density


def by_class(data):
    """ln L where every star has the mean errors of its class."""

    def density(theta, field):
        found = condensed(data.basis, all_moments(data, jnp.stack([*theta])), len(data.elements))
        return given(field, found, data.basis, data.unlike)

    return density


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="STARS")
    parser.add_argument("--stars", type=int, default=4000)
    parser.add_argument("--classes", default="1,4,16")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--elements", default=None)
    options = parser.parse_args()
    stars = oti.read_stars(options.file)[: options.stars]
    elements = options.elements.split(",") if options.elements else list(stars.abundances)
    delta = oti.focal_length(oti.phase_space(stars, oti.Parameters()), oti.Parameters())
    prepared = prepare_stars(stars, elements, delta, every=False)
    common = likelihood_data(prepared)
    flat_model = Unconstrained.of(joint_abundances, common)
    prior, fiducial = flat_model.prior(), np.array(MILKY_WAY.Parameters())
    run = Run(flat_model)
    plain = run.on_basis(common, prior, None, "prior", fiducial[None])
    common = plain.data
    peak, _ = gaussian_about_maximum(run, plain, prior, FAR)
    draws = peak.draws(np.random.default_rng(0), options.draws)

    def log_density(density):
        potential = jax.jit(flat_model.potential(density))
        return -np.array([float(potential(flat)) for flat in draws])

    def with_classes(number):
        return replace(likelihood_data(prepared, number), basis=common.basis, finer=common.finer)

    exact = log_density(by_star(with_classes(1)))
    print(f"{len(common)} stars, {len(elements)} elements, {common.basis.size} combinations")
    print("classes of error   rms of the difference in ln L   moves a mean by [sigma]")
    for number in map(int, options.classes.split(",")):
        change = exact - log_density(by_class(with_classes(number)))
        moved = shift(plain.theta(draws), change)
        print(f"{number:<18d} {change.std():12.3f}               {moved:12.3f}", flush=True)


if __name__ == "__main__":
    main()
