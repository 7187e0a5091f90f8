"""NUTS over a flat vector: numpyro's kernel, advanced a few steps at a time, chains on as many cores as there are.

One program serves all chains: numpyro's own vectorised chains wait for the longest trajectory among them and compile
three times as long; its parallel ones need the user to set a number of devices before JAX starts.
"""

import functools
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS
from numpyro.infer.util import ParamInfo
from threadpoolctl import threadpool_limits

from ..base.parallel import cores
from ..base.progress import progress
from ..base.store import Store
from .unconstrained import slope_of

__all__ = ["Chains", "sample_nuts"]

_LEAST_DRAWS = 4  # of a chain: with fewer nothing can be said of its convergence
_STEPS = 10  # iterations of a chain between two looks at it
_TARGET_ACCEPT = 0.8


class Chains(NamedTuple):
    """How C chains run: from `starts` (C, P), in the metric of a `covariance` (P, P), `warmup` iterations to adapt the
    step (and, with `adapt`, the metric too), `draws` that are kept of each, and the `seed` of all."""

    starts: np.ndarray
    covariance: np.ndarray
    warmup: int
    draws: int
    seed: int
    adapt: bool = False


@functools.lru_cache(maxsize=1)  # a pilot and the run after it share them
def _programs(potential: Callable[[Any, Any], Any], warmup: int, adapt: bool) -> tuple[Callable, Callable]:
    """begin(context, key, start) -> state, and advance(context, state) -> state, what `_STEPS` iterations made.

    Context is that of the potential with the metric.
    """

    def kernel(context: Any) -> NUTS:
        of_potential, covariance = context
        return NUTS(
            potential_fn=lambda flat: potential(flat, of_potential),
            inverse_mass_matrix=covariance,
            dense_mass=True,
            adapt_mass_matrix=adapt,
            target_accept_prob=_TARGET_ACCEPT,
        )

    def begin(context: Any, key: Any, start: Any) -> Any:
        return at(context, key, ParamInfo(start, *slope_of(potential)(start, context[0])))

    @jax.jit
    def at(context: Any, key: Any, start: ParamInfo) -> Any:
        return kernel(context).init(key, warmup, start, (), {})

    @jax.jit
    def advance(context: Any, state: Any) -> tuple[Any, Any]:
        stepper = kernel(context)
        here = ParamInfo(state.z, state.potential_energy, state.z_grad)
        stepper.init(state.rng_key, warmup, here, (), {})  # its result is not used, but its side effects are

        def step(state: Any, _: Any) -> tuple[Any, Any]:
            state = stepper.sample(state, (), {})
            statistics = {
                "lp": -state.potential_energy,
                "diverging": state.diverging,
                "n_steps": state.num_steps,
                "tree_depth": jnp.log2(state.num_steps).astype(int) + 1,
                "acceptance_rate": state.accept_prob,
                "energy": state.energy,
                "step_size": state.adapt_state.step_size,
            }
            return state, (state.z, statistics)

        return jax.lax.scan(step, state, length=_STEPS)

    return begin, advance


# The sampler's matrices are small: BLAS threads would spend many times its work in waiting for one another.
@threadpool_limits.wrap(limits=1, user_api="blas")
def sample_nuts(
    potential: Callable[[Any, Any], Any],
    context: Any,
    chains: Chains,
    name: str = "NUTS",
    store: Store = Store(),
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draws (chain, draw, P) of exp(-potential(flat, context)), and statistics (chain, draw) by their ArviZ names.

    `context` is any pytree. Every few iterations, of adaptation too, go to the `store` under names that begin with
    `name`, and are taken from there. Interrupted (Ctrl-C) with at least four draws of each chain, it returns
    those; with fewer it raises `KeyboardInterrupt`.
    """
    number, total = len(chains.starts), chains.warmup + chains.draws
    blocks = -(-total // _STEPS)
    begin, advance = _programs(potential, chains.warmup, chains.adapt)
    context = (context, jnp.asarray(chains.covariance))
    keys = jax.random.split(jax.random.PRNGKey(chains.seed), number)
    like = None
    if store.folder is not None:
        like = jax.eval_shape(lambda key, z: advance(context, begin(context, key, z)), keys[0], chains.starts[0])

    def file(chain: int, block: int) -> str:
        return f"{name.replace(', ', '-').replace(' ', '-').lower()}-chain{chain}-{(block + 1) * _STEPS:06d}"

    def resumed(chain: int) -> tuple[Any, list[Any]]:
        """The chain's state, None at its start, and its blocks so far."""
        state: Any = None
        made: list[Any] = []
        while len(made) < blocks and (block := store.get(file(chain, len(made)), like)) is not None:
            state = block[0]
            made.append(block[1])
        return state, made

    def forward(chain: int, state: Any) -> Any:
        if state is None:
            state = jax.tree.map(np.asarray, begin(context, keys[chain], chains.starts[chain]))
        return jax.tree.map(np.asarray, advance(context, state))  # as they come back from a file

    begun = [resumed(chain) for chain in range(number)]
    states, made = [state for state, _ in begun], [blocks for _, blocks in begun]

    def done() -> int:
        return sum(min(len(m) * _STEPS, total) for m in made)

    bar = progress(None, f"{name}, {number} chains", "iteration", number * total, done())
    with ThreadPoolExecutor(cores()) as pool, bar:
        # a chain's next block is begun when its last one is done: none waits for the longest trajectory of another
        running: dict[Future, int] = {}

        def submit(chain: int) -> None:
            if len(made[chain]) < blocks:
                running[pool.submit(forward, chain, states[chain])] = chain

        try:
            for chain in range(number):
                submit(chain)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    chain = running.pop(future)
                    block = future.result()
                    store.put(file(chain, len(made[chain])), block)
                    states[chain] = block[0]
                    made[chain].append(block[1])
                    bar.set_postfix_str(f"{_divergences(made, chains.warmup)} divergences", refresh=False)
                    bar.update(done() - bar.n)
                    submit(chain)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            if min(map(len, made)) * _STEPS - chains.warmup < _LEAST_DRAWS:
                raise
        finally:
            pool.shutdown(cancel_futures=True)
    shown = slice(chains.warmup, min(total, min(map(len, made)) * _STEPS))
    each = [jax.tree.map(lambda *blocks: np.concatenate(blocks)[shown], *blocks) for blocks in made]
    return jax.tree.map(lambda *chains: np.stack(chains), *each)


def _divergences(made: list[list[Any]], warmup: int) -> int:
    """Since adaptation."""
    return sum(int(block[1]["diverging"].sum()) for m in made for block in m[-(-warmup // _STEPS) :])
