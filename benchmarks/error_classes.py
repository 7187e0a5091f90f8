"""What it changes in ln L to give stars the errors of their class in place of their own.

    python benchmarks/error_classes.py STARS [--stars 4000] [--classes 1,4,16] [--draws 30]

For stars whose abundance errors differ, e.g. of `otibayes mock`. At draws of the Gaussian approximation to the
posterior the likelihood by classes is compared with that in which every star has its own errors, a sum over stars of
products of its basis values and its weights. Told are the rms of the difference over the draws, its mean apart (a
constant changes no posterior), and how far it moves the mean of a parameter of the mass model, to first order, in its
sigmas.
"""

import argparse
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.dynamics import MILKY_WAY
from otibayes.dynamics.trend import inputs, trend_terms
from otibayes.generative import Likelihood, prepare
from otibayes.generative.basis import prior_covariance
from otibayes.generative.statistic import design
from otibayes.generative.unconstrained import peak, space_of
from otibayes.stars.preparation import prepare_stars

WIDE = trend_terms(jnp.zeros(3)).size


def by_star(data):
    """ln L of hyperparameters where every star has its own errors, `data.variance`, and all elements."""

    def density(x, kernel, lengths, amplitude, scatter_cholesky):
        phi = design(data.basis, x)
        K, E = phi.shape[1], len(data.elements)
        root = jax.scipy.linalg.block_diag(
            jnp.eye(WIDE), jnp.linalg.cholesky(prior_covariance(data.basis, kernel, lengths))
        )
        Sigma = scatter_cholesky @ scatter_cholesky.T
        noise = jnp.linalg.cholesky(Sigma[None] + jnp.asarray(data.variance)[:, :, None] * jnp.eye(E)[None])
        half = jax.vmap(lambda L: jax.scipy.linalg.solve_triangular(L, jnp.eye(E), lower=True))(noise)
        weight = jnp.einsum("nij,nik->njk", half, half)
        phi = phi @ root
        pairs = (phi[:, :, None] * phi[:, None, :]).reshape(len(phi), -1)
        precision = (pairs.T @ weight.reshape(len(phi), -1)).reshape(K, K, E, E).transpose(0, 2, 1, 3)
        # prior of the coefficients: wide for the wide terms, in units of Sigma; independent for the process
        wide = jnp.linalg.inv(Sigma)
        first = (jnp.arange(K) < WIDE)[:, None, None]
        own = jnp.where(first, wide[None], jnp.diag(1 / amplitude**2)[None])
        prior = jax.vmap(lambda k: jnp.zeros((K, E, E)).at[k].set(own[k]), out_axes=0)(jnp.arange(K))
        total = precision + prior.transpose(0, 2, 1, 3)
        b = jnp.einsum("nk,nef,nf->ke", phi, weight, data.Y).reshape(-1)
        factor = jnp.linalg.cholesky(total.reshape(K * E, K * E))
        solution = jax.scipy.linalg.solve_triangular(factor, b, lower=True)
        log_prior = WIDE * jnp.linalg.slogdet(wide)[1] - 2 * (K - WIDE) * jnp.sum(jnp.log(amplitude))
        value = 0.5 * solution @ solution - jnp.sum(jnp.log(jnp.diagonal(factor))) + 0.5 * log_prior
        residual = jnp.einsum("ne,nef,nf->", data.Y, weight, data.Y)
        log_noise = jnp.sum(jnp.log(jnp.diagonal(noise, axis1=1, axis2=2)))
        volume = 0.5 * E * jnp.linalg.slogdet(jnp.eye(WIDE) + phi[:, :WIDE].T @ phi[:, :WIDE])[1]
        return value + volume - 0.5 * residual - log_noise - 0.5 * data.Y.size * jnp.log(2 * jnp.pi)

    return density


class Own(Likelihood):
    """The likelihood by star."""

    def __call__(self, theta, kernel, lengths, amplitude, scatter_cholesky):
        return by_star(self.data)(inputs(self.data.actions(theta)), kernel, lengths, amplitude, scatter_cholesky)


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
    common = prepare(prepare_stars(stars, elements, delta, every=False))
    space = space_of(joint_abundances, common)
    start, width = space.prior(common)
    rng = np.random.default_rng(0)
    theta = np.array(MILKY_WAY.Parameters())[None]
    common = space.resolving(common, rng.multivariate_normal(start, width, 200), theta)
    draws = rng.multivariate_normal(*peak(space.exact(common).slope, start, width), options.draws)
    parameters = np.asarray(space.parameters(draws, MILKY_WAY))

    def log_density(likelihood):
        potential = jax.jit(space.potential(likelihood))
        return -np.array([float(potential(flat)) for flat in draws])

    def with_classes(number):
        data = prepare(prepare_stars(stars, elements, delta, every=False), error_classes=number)
        return replace(data, basis=common.basis, finer=common.finer)

    exact = log_density(Own(with_classes(1)))
    print(f"{len(common)} stars, {len(elements)} elements, {common.basis.vectors.shape[1]} combinations")
    print("classes of error   rms of the difference in ln L   moves a mean by [sigma]")
    for number in map(int, options.classes.split(",")):
        change = exact - log_density(Likelihood(with_classes(number)))
        change -= change.mean()
        moved = np.mean((parameters - parameters.mean(0)) * change[:, None], 0) / parameters.std(0)
        print(f"{number:<18d} {change.std():12.3f}               {np.abs(moved).max():12.3f}", flush=True)


if __name__ == "__main__":
    main()
