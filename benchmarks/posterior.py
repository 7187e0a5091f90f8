"""What a pass over the stars, a gradient on the surface, and a whole posterior cost.

Run from the checkout: python benchmarks/posterior.py [--stars 5000,56324,500000], or with --sample FILE, e.g. one that
`otibayes mock --stars 56324` made, for a posterior from the file to the result, stage by stage; --repeat M makes M
stars of those in the file, by moving copies a little.
"""

import argparse
import json
import resource
import time
from dataclasses import replace

import jax
import numpy as np
from otibayes.models import joint_abundances
from threadpoolctl import threadpool_limits

import otibayes as oti
from otibayes.base.parallel import cores
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import likelihood_data
from otibayes.generative.expansion import Run
from otibayes.generative.surface import region_about
from otibayes.generative.unconstrained import Unconstrained
from otibayes.stars import embedded_stars
from otibayes.stars.preparation import prepare_stars

ELEMENTS = 8


def copies(stars, number, seed=0):
    """So many stars: copies moved by 1% in distance, motion and abundance."""
    rng = np.random.default_rng(seed)
    chosen = stars[rng.integers(len(stars), size=number)] if number > len(stars) else stars[:number]

    def moved(values):
        return np.asarray(values) * (1 + 0.01 * rng.normal(size=number))

    names = ("distance", "pmra", "pmdec", "radial_velocity")
    abundances = {e: values + 0.01 * rng.normal(size=number) for e, values in chosen.abundances.items()}
    return replace(chosen, **{name: moved(getattr(chosen, name)) for name in names}, abundances=abundances)


def eight_elements(stars, seed=1):
    """Mixtures of the two that the embedded stars have, and scatter."""
    rng = np.random.default_rng(seed)
    two = np.stack(list(stars.abundances.values()), 1)
    values = two @ rng.normal(size=(2, ELEMENTS)) + 0.05 * rng.normal(size=(len(stars), ELEMENTS))
    return replace(stars, abundances={f"E{i}_FE": values[:, i] for i in range(ELEMENTS)}, errors={})


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def clock(function, repeats):
    function()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def gradients(number, basis_size):
    """Time of a pass over the stars and of a gradient on a surface of them, about the fiducial theta."""
    stars = eight_elements(copies(embedded_stars(), number))
    data = likelihood_data(prepare_stars(stars, list(stars.abundances), every=False))
    flat_model = Unconstrained.of(joint_abundances, data)
    prior, theta = flat_model.prior(), np.array(MILKY_WAY.Parameters())
    plain = Run(flat_model).on_basis(data, prior, basis_size, "prior", theta[None])
    data = plain.data
    size = (len(data.basis.degrees), data.basis.size)

    before = memory()
    passed = clock(lambda: plain.statistic(theta), 3)
    peak = memory()
    region = region_about(theta, np.diag([0.1, 0.03, 10.0, 0.5]) ** 2 * 4000 / number, 6.0, MILKY_WAY)
    plain.known.cover(region, 4)
    context = plain.context(plain.known.surface(region, 4).lean())
    slope = jax.jit(jax.value_and_grad(plain.on_surface))
    with threadpool_limits(1):
        read = clock(lambda: jax.block_until_ready(slope(prior.mean, context)), 200)
    print(
        f"{number:8d} stars x {ELEMENTS}, {size[0]} cosines, {size[1]} combinations: pass {passed:.3f} s, value and"
        f" gradient on the surface {1e3 * read:.2f} ms; memory {peak:.2f} GiB (+{peak - before:.2f})",
        flush=True,
    )
    return number, passed, read


def figure(rows, file):
    """Time against the number of stars."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    number, passed, read = np.array(rows).T
    shown, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.loglog(number, passed, "s-", color="C0", label="one pass (a node of the surface)")
    axes.loglog(number, read, "^-", color="C1", label="value and gradient, on the surface")
    axes.set(xlabel="stars", ylabel="time [s]", title=f"{ELEMENTS} elements, {cores()} cores")
    shown.legend(frameon=False, loc="outside lower center")
    shown.savefig(file, dpi=150)


def whole(file, repeat, error_classes, null_test):
    """A posterior, from the file to the result."""
    start = time.perf_counter()
    stars = oti.read_stars(file)
    if repeat:
        stars = copies(stars, repeat)
    print(f"{len(stars)} stars x {len(stars.abundances)}: read in {time.perf_counter() - start:.1f} s")
    tree = oti.sample(stars, seed=0, error_classes=error_classes)
    total = time.perf_counter() - start
    statistics, surface, timings = tree["sample_stats"], tree["surface"].attrs, tree["timings"].dataset
    for stage, seconds in zip(timings.stage.values, timings.seconds.values, strict=True):
        print(f"  {stage:24s} {seconds:7.1f} s")
    print(f"total {total:.1f} s, peak memory {memory():.2f} GiB")
    print({name: round(float(value), 4) for name, value in surface.items() if np.isscalar(value)})
    for name in ("m_disk", "h_z", "z_sun", "vz_sun"):
        values = tree["posterior"][name]
        print(f"{name:8s} {float(values.mean()):9.4f} +- {float(values.std()):.4f}")
    if truth := json.loads(tree.attrs["truth"]):
        names = oti.Parameters._fields
        draws = np.stack([tree["posterior"][name].values.ravel() for name in names])
        off = draws.mean(1) - [truth[name] for name in names]
        print(f"the truth is at a squared distance of {off @ np.linalg.solve(np.cov(draws), off):.2f}, of {len(off)}")
    print({name: tree.attrs[name] for name in ("max_r_hat", "min_ess_bulk", "min_ess_tail", "divergences")})
    print(f"tree depth {float(statistics['tree_depth'].mean()):.2f}, steps {float(statistics['n_steps'].mean()):.1f}")
    if null_test:
        start = time.perf_counter()
        pull = np.abs(oti.null_test(tree).pull).max("element")
        print(f"null test: {time.perf_counter() - start:.1f} s, largest pulls", end=" ")
        print(dict(zip(pull.coefficient.values.tolist(), pull.values.round(1).tolist(), strict=True)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", default="5000,56324,500000")
    parser.add_argument("--basis-size", type=int, default=None, help="cosines; default: what all of the prior asks for")
    parser.add_argument("--figure", metavar="FILE")
    parser.add_argument("--sample", metavar="FILE")
    parser.add_argument("--repeat", type=int, default=0, metavar="M")
    parser.add_argument("--error-classes", type=int, default=0, metavar="N", help="with --sample: as `otibayes sample`")
    parser.add_argument("--null-test", action="store_true", help="with --sample: and the null test")
    options = parser.parse_args()
    if options.sample:
        whole(options.sample, options.repeat, options.error_classes, options.null_test)
    else:
        rows = [gradients(number, options.basis_size) for number in map(int, options.stars.split(","))]
        if options.figure:
            figure(rows, options.figure)


if __name__ == "__main__":
    main()
