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
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ..base.parallel import cores
from .checkpoint import FORGETFUL, Checkpoint

__all__ = ["LEAST_DRAWS", "Settings", "sample_nuts"]

LEAST_DRAWS = 4  # of a chain: with fewer nothing can be said of its convergence
_STEPS = 10  # iterations of a chain between two looks at it
_TARGET_ACCEPT = 0.8


class Settings(NamedTuple):
    """Chains, iterations of adaptation, draws kept of each chain, and the seed of all."""

    chains: int = 4
    warmup: int = 200
    draws: int = 850
    seed: int = 0

    def kept(self, iterations: int) -> int:
        """How many of the first so many iterations are draws to keep."""
        return min(max(iterations - self.warmup, 0), self.draws)


@functools.lru_cache(maxsize=1)  # a pilot and the run after it share them
def _programs(potential: Callable[[Any, Any], Any], warmup: int, adapt: bool) -> tuple[Callable, Callable]:
    """begin(context, key, start) -> state, and advance(context, state) -> state, what `_STEPS` iterations made.

    Context is that of the potential with the metric.
    """

    def kernel(context: Any) -> NUTS:
        given, covariance = context
        return NUTS(
            potential_fn=lambda flat: potential(flat, given),
            inverse_mass_matrix=covariance,
            dense_mass=True,
            adapt_mass_matrix=adapt,
            target_accept_prob=_TARGET_ACCEPT,
        )

    @jax.jit
    def begin(context: Any, key: Any, start: Any) -> Any:
        return kernel(context).init(key, warmup, start, (), {})

    @jax.jit
    def advance(context: Any, state: Any) -> tuple[Any, Any]:
        stepper = kernel(context)
        stepper.init(state.rng_key, warmup, state.z, (), {})  # what it makes is not used, but it must be made

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
    centre: np.ndarray,
    covariance: np.ndarray,
    settings: Settings,
    description: str = "NUTS",
    checkpoint: Checkpoint = FORGETFUL,
    adapt: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draws (chain, draw, P) of exp(-potential(flat, context)), and statistics (chain, draw) by their ArviZ names.

    `context` is any pytree. Chains start at draws of the Gaussian of this centre (P,) and covariance (P, P), which is
    also the first metric; without `adapt` it is the only one, and warming up adapts the step. Every few iterations, of
    adaptation too, go to the `checkpoint` under names that begin with the description, and are taken from there.
    Interrupted (Ctrl-C) with at least `LEAST_DRAWS` draws of each chain, it returns those; with fewer it raises
    `KeyboardInterrupt`.
    """
    total = settings.warmup + settings.draws
    blocks = -(-total // _STEPS)

    begin, advance = _programs(potential, settings.warmup, adapt)
    context = (context, jnp.asarray(covariance))

    rng = np.random.default_rng([settings.seed, 0x6E757473])
    starts = centre + rng.standard_normal((settings.chains, centre.size)) @ np.linalg.cholesky(covariance).T
    keys = jax.random.split(jax.random.PRNGKey(settings.seed), settings.chains)
    like = None
    if checkpoint.folder is not None:
        like = jax.eval_shape(lambda key, start: advance(context, begin(context, key, start)), keys[0], starts[0])

    def name(chain: int, block: int) -> str:
        return f"{description.replace(', ', '-').lower()}-chain{chain}-{(block + 1) * _STEPS:06d}"

    def kept(chain: int) -> tuple[Any, list[Any]]:
        """The chain's state, None at its start, and what it made so far."""
        state: Any = None
        made: list[Any] = []
        while (block := checkpoint.get(name(chain, len(made)), like)) is not None:
            state = block[0]
            made.append(block[1])
        return state, made

    def forward(chain: int, state: Any) -> Any:
        if state is None:
            state = jax.tree.map(np.asarray, begin(context, keys[chain], starts[chain]))
        return jax.tree.map(np.asarray, advance(context, state))  # as they come back from a file

    begun = [kept(chain) for chain in range(settings.chains)]
    states, made = [state for state, _ in begun], [made for _, made in begun]
    with ThreadPoolExecutor(cores()) as pool, _Bar(description, settings, made) as bar:
        # a chain's next block is begun when its last one is done: none waits for the longest trajectory of another
        running: dict[Future, int] = {}

        def submit(chain: int) -> None:
            if len(made[chain]) < blocks:
                running[pool.submit(forward, chain, states[chain])] = chain

        try:
            for chain in range(settings.chains):
                submit(chain)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    chain = running.pop(future)
                    block = future.result()
                    checkpoint.put(name(chain, len(made[chain])), block)
                    states[chain] = block[0]
                    made[chain].append(block[1])
                    bar.show()
                    submit(chain)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            if settings.kept(min(map(len, made)) * _STEPS) < LEAST_DRAWS:
                raise
        finally:
            pool.shutdown(cancel_futures=True)
    shown = slice(settings.warmup, min(total, min(map(len, made)) * _STEPS))
    chains = [jax.tree.map(lambda *blocks: np.concatenate(blocks)[shown], *blocks) for blocks in made]
    return jax.tree.map(lambda *chains: np.stack(chains), *chains)


class _Bar:
    """Progress over all chains: iterations done, time left, and divergences since adaptation."""

    def __init__(self, description: str, settings: Settings, made: list[list[Any]]) -> None:
        self.settings, self.made = settings, made
        total = settings.chains * (settings.warmup + settings.draws)
        name = f"{description}, {settings.chains} chains"
        self.bar = tqdm(total=total, initial=self._done(), desc=name, unit="iteration", disable=None)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()

    def _done(self) -> int:
        return sum(min(len(m) * _STEPS, self.settings.warmup + self.settings.draws) for m in self.made)

    def show(self) -> None:
        self.bar.update(self._done() - self.bar.n)
        if self.bar.disable:
            return
        adapting = sum(len(m) * _STEPS < self.settings.warmup for m in self.made)
        after = [np.concatenate([b[1]["diverging"] for b in m])[self.settings.warmup :].sum() for m in self.made if m]
        told = f"{adapting} adapting, " if adapting else ""
        self.bar.set_postfix_str(f"{told}{int(sum(after))} divergences")
