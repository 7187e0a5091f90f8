"""The null test: do abundances, given the actions, still depend on the vertical angle? They must not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..base.parallel import threaded
from ..dynamics import MassModel, action_angle, galactocentric
from ..dynamics.trend import TREND_SIZE
from ..generative.model import GaussianField, mass_model_of
from ..generative.prediction import posterior_coefficients
from ..generative.statistic import WIDTH, design
from ..generative.sums import inputs_at
from ..generative.weights import Classes
from .field import basis_of, extra_of, relabelling_of

__all__ = ["COEFFICIENTS", "null_test"]

COEFFICIENTS = ("c0", "a1", "b1", "a2", "b2")
_BLOCK = 20_000  # stars at once
_BINS = 16


def _waves(theta_z: Any) -> Any:
    """cos, sin, cos 2, sin 2 of angles (N,): (N, 4); the constant is in the design already."""
    return jnp.stack([jnp.cos(theta_z), jnp.sin(theta_z), jnp.cos(2 * theta_z), jnp.sin(2 * theta_z)], -1)


def null_test(posterior: xr.DataTree, mass_model: MassModel | None = None, seed: int = 0) -> xr.Dataset:
    """Fourier terms in theta_z of the abundances that the field leaves unexplained, with their posterior uncertainty.

    At every draw of the `field` group, c0 + a1 cos + b1 sin + a2 cos 2 + b2 sin 2 of theta_z (PW21, equation 3) are
    drawn *together with the field*, so that what the field may take of them is accounted for. If the model holds, all
    are zero within their spread. a1, b1 and a2 are those that v_z,sun, z_sun and the mass model can change, and which
    the posterior makes vanish as far as it can; no parameter changes b2, so that b2 (then a2 of single elements) is
    where a broken assumption shows. c0 is the mean residual. Stars weigh as they do in the likelihood: with Student
    weights the plain mean of asymmetric residuals is not zero.

    Returns `amplitude` (chain, draw, coefficient, element) [dex]; `pull` (coefficient, element), the z-score: mean
    over standard deviation; and for a figure `residual`, `residual_sd` (bin, element), means of the stars in bins of
    `theta_z` about the field without the Fourier terms. One pass over the stars a draw.
    """
    model, basis, f = mass_model_of(posterior, mass_model), basis_of(posterior), posterior["field"].dataset
    data, extra = posterior["constant_data"].dataset, extra_of(posterior)
    stars, delta = jnp.asarray(data.heliocentric.values), data.delta.values
    Y = (data.abundances.values - f.centre.values) / f.scale.values
    classes, which = Classes(f.observed.values.astype(bool), f.variance.values), f.member.values
    patterns = classes.observed
    Y, weight = np.nan_to_num(Y), f.weight.values
    lead = (f.sizes["chain"], f.sizes["draw"])
    names = ("lengths", "amplitude", "scatter_cholesky")
    lengths, amplitude, scatter = (f[name].values.reshape(-1, *f[name].shape[2:]) for name in names)
    fields = GaussianField(lengths, amplitude, scatter, f.attrs["kernel"])
    theta = f.theta.values.reshape(-1, f.sizes["parameter"])
    keys = jax.random.split(jax.random.PRNGKey(seed), len(theta))
    first = TREND_SIZE + extra.shape[1]
    phi = jax.jit(lambda x, linear: design(basis, x, linear))
    draw = jax.jit(lambda field, gram, b, key: posterior_coefficients(field, basis, gram, b, classes, key))
    edges = np.linspace(0, 2 * np.pi, _BINS + 1)
    relabelling = relabelling_of(posterior)

    def at(s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parameters = model.Parameters(*theta[s])
        aa = action_angle(galactocentric(stars, parameters), parameters, delta=delta, model=model)
        x = jnp.asarray(inputs_at(theta[s], stars, delta, model))
        if relabelling is not None:
            x = jax.tree.map(lambda leaf: leaf[s], relabelling)(x)
        linear = jnp.concatenate([jnp.asarray(extra), _waves(jnp.asarray(aa.theta_z))], 1)

        def blocks() -> Any:
            for start in range(0, len(Y), _BLOCK):
                part = slice(start, start + _BLOCK)
                yield part, np.asarray(phi(x[part], linear[part]))

        size = first + 4 + basis.vectors.shape[1]
        gram, projection = np.zeros((len(patterns), size, size)), np.zeros((len(patterns), size, Y.shape[1]))
        for part, columns in blocks():
            for c in range(len(patterns)):
                mine = which[part] == c
                weighted = columns[mine].T * weight[part][mine]
                gram[c] += weighted @ columns[mine]
                projection[c] += weighted @ Y[part][mine]
        field = jax.tree.map(lambda leaf: jnp.asarray(leaf[s]), fields)
        B = np.asarray(draw(field, jnp.asarray(gram), jnp.asarray(projection), keys[s]))
        terms = WIDTH * B[first : first + 4]
        without = B.copy()
        without[first : first + 4] = 0
        left, number = np.zeros((_BINS, Y.shape[1])), np.zeros((_BINS, Y.shape[1]))
        c0 = np.zeros(Y.shape[1])
        bins = np.minimum(np.digitize(np.asarray(aa.theta_z), edges) - 1, _BINS - 1)
        for part, columns in blocks():
            w = weight[part, None] * patterns[which[part]]
            c0 += (w * (Y[part] - columns @ B)).sum(0)
            np.add.at(left, bins[part], w * (Y[part] - columns @ without))
            np.add.at(number, bins[part], w)
        return np.concatenate([c0[None] / number.sum(0), terms]), left / np.maximum(number, 1e-9), number

    found = threaded("null test", "draw")(at, range(len(theta)))
    coefficient = np.stack([values for values, _, _ in found]) * f.scale.values
    residual = np.stack([values for _, values, _ in found]) * f.scale.values
    scatter = np.sqrt(np.mean((scatter**2).sum(-1), 0))
    number = np.mean([values for _, _, values in found], 0)
    noise = scatter * f.scale.values / np.sqrt(np.maximum(number, 1))
    return xr.Dataset(
        {
            "amplitude": (
                ("chain", "draw", "coefficient", "element"),
                coefficient.reshape(*lead, *coefficient.shape[1:]),
                {"units": "dex"},
            ),
            "pull": (("coefficient", "element"), coefficient.mean(0) / coefficient.std(0)),
            "residual": (("theta_z", "element"), residual.mean(0), {"units": "dex"}),
            "residual_sd": (("theta_z", "element"), np.hypot(residual.std(0), noise), {"units": "dex"}),
        },
        {
            "coefficient": list(COEFFICIENTS),
            "element": f.element.values,
            "draw": f.draw.values,
            "theta_z": ("theta_z", 0.5 * (edges[1:] + edges[:-1]), {"units": "rad"}),
        },
    )
