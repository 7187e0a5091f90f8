"""How fast the action layer is, beside galpy's C code, in one run on the same stars and the same focal lengths.

Run from the checkout, on an otherwise idle machine: python benchmarks/actions.py [--stars N] [--repeats K]. Times are
medians over repeats, A and B in turn, after compilation; both use every core (galpy through OpenMP). --million runs a
million stars through `action_angle` alone, with focal lengths of its own, and prints the time and the peak memory.
"""

import argparse
import resource
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from otibayes.base.constants import R0, V_CIRC
from otibayes.base.parameters import Parameters
from otibayes.dynamics import PhaseSpace, action_angle, focal_length, galactocentric, star_actions
from otibayes.dynamics.reference import galpy_potential

with warnings.catch_warnings():  # galpy says at import which optional extensions it lacks
    warnings.simplefilter("ignore")
    from galpy.actionAngle import actionAngleStaeckel

BLOCK, DELTA, AGAMA = 2048, 3.65, 7.3  # AGAMA 1.0.159: us per star on one core, measured elsewhere (not on PyPI)


def disk_stars(n):
    """Heliocentric positions and velocities (n, 6) of a disk-like sample in the Sun's neighbourhood."""
    rng = np.random.default_rng(0)
    scales, means = (1.5, 1.5, 0.35, 35.0, 25.0, 20.0), (0.0, 0.0, 0.0, -13.0, -26.0, -8.0)
    return np.stack([rng.normal(mean, scale, n) for mean, scale in zip(means, scales, strict=True)], -1)


def blocked(function, stars, theta):
    """A jitted function of blocks (BLOCK, 6) of stars, over all of them, on both cores; and its compile time [s]."""
    blocks = np.pad(stars, ((0, -len(stars) % BLOCK), (0, 0)), mode="edge").reshape(-1, BLOCK, 6)
    start = time.perf_counter()
    compiled = jax.jit(function).lower(blocks[0], theta).compile()
    seconds = time.perf_counter() - start

    def run():
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda block: jax.block_until_ready(compiled(block, theta)), blocks))

    return run, seconds


def medians(tasks, repeats):
    """Median seconds of each task, run in turn."""
    times = {name: [] for name in tasks}
    for run in tasks.values():
        run()
    for _ in range(repeats):
        for name, run in tasks.items():
            time.sleep(0.3)  # OpenMP's threads go on spinning for a while after their work
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def million():
    """Time and peak memory of a million stars."""
    w = PhaseSpace(*map(np.asarray, galactocentric(jnp.asarray(disk_stars(1_000_000)), Parameters())))
    start = time.perf_counter()
    found = action_angle(w, Parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{found.J_R.size} stars: {time.perf_counter() - start:.0f} s, peak memory {peak:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=56_324)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--million", action="store_true")
    options = parser.parse_args()
    if options.million:
        million()
        return
    stars, theta = disk_stars(options.stars), Parameters(*map(jnp.asarray, Parameters()))
    w = PhaseSpace(*map(np.asarray, galactocentric(jnp.asarray(stars), theta)))
    finder = actionAngleStaeckel(pot=galpy_potential(theta), delta=DELTA / R0, c=True)
    galpy_star = (w.R / R0, w.vR / V_CIRC, w.vT / V_CIRC, w.z / R0, w.vz / V_CIRC, w.phi)

    def actions(star, theta):
        return star_actions(galactocentric(star, theta), DELTA, theta)

    def with_tangents(star, theta):
        def push(tangent):
            return jax.jvp(lambda t: actions(star, t), (theta,), (tangent,))

        basis = Parameters(*jnp.eye(4))
        return jax.vmap(push, out_axes=(None, 0))(basis)

    value, value_compile = blocked(jax.vmap(actions, (0, None)), stars, theta)
    tangents, tangent_compile = blocked(jax.vmap(with_tangents, (0, None)), stars, theta)
    start = time.perf_counter()
    action_angle(w, theta, delta=DELTA)
    angles_compile = time.perf_counter() - start
    seconds = medians(
        {
            "actions": value,
            "galpy actions": lambda: finder(*galpy_star[:5]),
            "tangents": tangents,
            "angles": lambda: action_angle(w, theta, delta=DELTA),
            "default": lambda: action_angle(w, theta),
            "Delta": lambda: focal_length(w, theta),
            "galpy angles": lambda: finder.actionsFreqsAngles(*galpy_star),
        },
        options.repeats,
    )
    us = {name: 1e6 * value / options.stars for name, value in seconds.items()}
    angles_ratio, actions_ratio = us["galpy angles"] / us["angles"], us["galpy actions"] / us["actions"]
    print(f"{options.stars} stars, float64, all cores, median of {options.repeats}; us a star")
    print(f"{'':46s}{'otibayes':>9s}{'galpy C':>9s}{'ratio':>8s}   must  hope")
    rows = {"actions": ("actions", "galpy actions", actions_ratio)}
    rows["actions, angles, frequencies"] = ("angles", "galpy angles", angles_ratio)
    for label, (ours, theirs, ratio) in rows.items():
        print(f"{label:46s}{us[ours]:9.2f}{us[theirs]:9.2f}{ratio:8.1f}     10    20")
    print(f"{'the same, with a Delta for each star':46s}{us['default']:9.2f}{'':17s}    3.0")
    print(f"{"Delta of the star's shell":46s}{us['Delta']:9.2f}{'':17s}    1.0")
    cost = us["tangents"] / us["actions"]
    print(f"{'actions and 4 tangents, against actions':46s}{us['tangents']:9.2f}{'':9s}{cost:8.2f}    2.5   1.8")
    print(f"{'compile [s]: actions':46s}{value_compile:9.2f}{'':17s}    5.0   2.0")
    print(f"{'compile [s]: with tangents':46s}{tangent_compile:9.2f}{'':17s}    5.0   2.0")
    print(f"{'first call [s]: actions, angles, frequencies':46s}{angles_compile:9.2f}")
    cores = 2 * us["actions"]
    print(f"{'AGAMA, actions, us a star and core':46s}{cores:9.2f}{AGAMA:9.2f}{AGAMA / cores:8.1f}      1     3")


if __name__ == "__main__":
    main()
