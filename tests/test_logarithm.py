"""The logarithm by arithmetic against the C library's in extended precision, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from otibayes.dynamics.logarithm import log1p


@pytest.mark.parametrize("sign", [1, -1])
def test_log1p_to_rounding(sign):
    size = 10.0 ** np.random.default_rng(0).uniform(-15, 6 if sign > 0 else 0, 100_000)
    x = sign * size[size < 0.999999] if sign < 0 else size
    exact = np.log1p(x.astype(np.longdouble))
    np.testing.assert_array_less(np.abs(np.asarray(jax.jit(log1p)(x)) / exact - 1).astype(float), 1e-15)


def test_log1p_across_powers_of_two():
    """Where the exponent steps, and where 1 + x loses the last digits of x."""
    powers = 2.0 ** np.arange(61)[:, None]
    steps = np.sqrt(0.5) * powers * (1 + np.arange(-3, 4) * 1e-15) - 1
    x = np.concatenate([steps[steps > 0], 1 / powers[:, 0]])
    np.testing.assert_allclose(log1p(jnp.asarray(x)), np.log1p(x), rtol=1e-15)


def test_log1p_of_zero_and_derivatives():
    assert log1p(jnp.asarray(0.0)) == 0
    check_grads(log1p, (jnp.asarray([1e-3, 0.7, 40.0]),), order=3, modes=("fwd", "rev"), rtol=1e-6)
