"""NUTS over a flat vector: numpyro's kernel, advanced a few steps at a time, chains on as many cores as there are.

One program serves all chains: numpyro's own vectorised chains wait for the longest trajectory among them and compile
three times as long; its parallel ones need the user to set a number of devices before JAX starts.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ..parallel import cores

__all__ = ["Settings", "sample_nuts"]

_STEPS = 25  # iterations between two looks at the chains
_TARGET_ACCEPT = 0.8


class Settings(NamedTuple):
    """Chains, iterations of adaptation, draws kept of each chain, and the seed of all."""

    chains: int = 4
    warmup: int = 200
    draws: int = 850
    seed: int = 0


# The sampler's matrices are small: BLAS threads would spend many times its work in waiting for one another.
@threadpool_limits.wrap(limits=1, user_api="blas")
def sample_nuts(
    potential: Callable[[Any, Any], Any],
    context: Any,
    centre: np.ndarray,
    covariance: np.ndarray,
    settings: Settings,
    description: str = "NUTS",
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draws (chain, draw, P) of exp(-potential(flat, context)), and statistics (chain, draw) by their ArviZ names.

    `context` is any pytree. Chains start at draws of the Gaussian of this centre (P,) and covariance (P, P), which is
    also the first metric.
    """
    total = settings.warmup + settings.draws

    def kernel(context: Any) -> NUTS:
        return NUTS(
            potential_fn=lambda flat: potential(flat, context),
            inverse_mass_matrix=jnp.asarray(covariance),
            dense_mass=True,
            target_accept_prob=_TARGET_ACCEPT,
        )

    @jax.jit
    def begin(context: Any, key: Any, start: Any) -> Any:
        return kernel(context).init(key, settings.warmup, start, (), {})

    @jax.jit
    def advance(context: Any, state: Any) -> tuple[Any, Any]:
        stepper = kernel(context)
        stepper.init(state.rng_key, settings.warmup, state.z, (), {})  # what it makes is not used, but it must be made

        def step(state: Any, _: Any) -> tuple[Any, Any]:
            state = stepper.sample(state, (), {})
            statistics = {
                "lp": -state.potential_energy,
                "diverging": state.diverging,
                "n_steps": state.num_steps,
                "acceptance_rate": state.accept_prob,
                "energy": state.energy,
                "step_size": state.adapt_state.step_size,
            }
            return state, (state.z, statistics)

        return jax.lax.scan(step, state, length=_STEPS)

    rng = np.random.default_rng([settings.seed, 0x6E757473])
    starts = centre + rng.standard_normal((settings.chains, centre.size)) @ np.linalg.cholesky(covariance).T
    keys = jax.random.split(jax.random.key(settings.seed), settings.chains)
    found = []
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(total=settings.chains * total, desc=description, unit="iteration", disable=None) as bar,
    ):
        states = list(pool.map(lambda key, start: begin(context, key, start), keys, jnp.asarray(starts)))

        def forward(state: Any) -> tuple[Any, Any]:
            state, made = advance(context, state)
            made = jax.tree.map(np.asarray, made)
            bar.update(_STEPS)
            return state, made

        for _ in range(-(-total // _STEPS)):
            made = list(pool.map(forward, states))
            states = [state for state, _ in made]
            found.append(jax.tree.map(lambda *chains: np.stack(chains), *(values for _, values in made)))
    kept = slice(settings.warmup, total)
    return jax.tree.map(lambda *rounds: np.concatenate(rounds, 1)[:, kept], *found)
