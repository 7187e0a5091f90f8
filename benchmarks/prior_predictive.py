"""What the priors of the joint model say before any star: draws of the field and scatter at the embedded stars.

    python benchmarks/prior_predictive.py [--draws 400] [--stars 300]

Printed are quantiles over the draws, of the field's Gaussian process alone (the trend's priors are so wide that the
first stars settle it), and what the embedded stars have: the residuals about a fit of the trend, in units of the
sample's standard deviation.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.dynamics import MILKY_WAY
from otibayes.dynamics.trend import trend_terms
from otibayes.generative import likelihood_data
from otibayes.generative.basis import even_kernel
from otibayes.generative.sums import inputs_at
from otibayes.stars.preparation import prepare_stars


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--stars", type=int, default=300)
    options = parser.parse_args()
    stars = oti.embedded_stars()[: options.stars]
    data = likelihood_data(prepare_stars(stars, list(stars.abundances), "local", every=False))
    x = inputs_at(MILKY_WAY.Parameters(), data.stars, data.delta, MILKY_WAY)
    order = np.argsort(np.asarray(x[:, 2]))
    low, high = order[: len(order) // 10], order[-len(order) // 10 :]

    @jax.jit
    def one(key):
        sites = handlers.trace(handlers.seed(joint_abundances, key)).get_trace(data)
        k = even_kernel("expsquared", sites["length_scale"]["value"])
        K = jax.vmap(lambda a: jax.vmap(lambda b: k(a, b))(x))(x) + 1e-8 * jnp.eye(len(x))
        noise = jax.random.normal(jax.random.fold_in(key, 1), (len(x), len(data.elements)))
        field = sites["amplitude"]["value"][None] * (jnp.linalg.cholesky(K) @ noise)
        scatter = sites["scatter"]["value"]
        sd = field.std(0)
        rise = field[high].mean(0) - field[low].mean(0)
        return (
            sd,
            jnp.sqrt(sd**2 + scatter**2),
            sd**2 / (sd**2 + scatter**2),
            jnp.abs(rise),
            sites["length_scale"]["value"],
        )

    drawn = [one(key) for key in jax.random.split(jax.random.key(0), options.draws)]
    names = (
        "sd of the field over the stars",
        "sd of abundances, field and scatter",
        "share of the variance that is the field's",
        "|rise| from the lowest to the highest tenth in J_z",
        "length scales",
    )
    terms = np.asarray(trend_terms(x))
    residual = np.asarray(data.Y) - terms @ np.linalg.lstsq(terms, np.asarray(data.Y))[0]
    print(f"{'in units of the sample sd':52s}    5%    25%    50%    75%    95%")
    for name, values in zip(names, zip(*drawn, strict=True), strict=True):
        quantiles = np.quantile(np.concatenate([np.ravel(v) for v in values]), (0.05, 0.25, 0.5, 0.75, 0.95))
        print(f"{name:52s}" + "".join(f"{q:7.2f}" for q in quantiles))
    shown = ", ".join(f"{e} {sd:.2f}" for e, sd in zip(data.elements, residual.std(0), strict=True))
    print(f"embedded stars, sd about a fit of the trend: {shown}")


if __name__ == "__main__":
    main()
