"""One evaluation of the classical objective against the paper's recipe written out with galpy and SciPy.

Run from the checkout: python benchmarks/classical.py [--stars N] [--bootstraps B]. Both see the same stars, focal
lengths and resamples. The recipe does what the paper's procedure box says for one element and one resample at a time;
its steps 1 to 3 are left out of its time.
"""

import argparse
import functools
import time
import warnings

import numpy as np
from scipy.spatial import cKDTree

from otibayes.classical.bootstrap import resamples
from otibayes.classical.objective import coefficients
from otibayes.constants import R0, V_CIRC
from otibayes.dynamics.actions import action_angle, focal_length
from otibayes.dynamics.frame import phase_space
from otibayes.dynamics.reference import galpy_potential
from otibayes.parameters import Parameters
from otibayes.stars.catalogue import embedded_stars

with warnings.catch_warnings():  # galpy says at import which optional extensions it lacks
    warnings.simplefilter("ignore")
    from galpy.actionAngle import actionAngleStaeckel

ELEMENTS = 8


def recipe(theta, w, delta, label, draws, K=64):
    """Steps 4 to 6 for one element and one resample: as the text reads, on the resampled catalogue itself."""
    fudge = actionAngleStaeckel(pot=galpy_potential(theta), delta=delta[draws] / R0, c=True, order=20)
    R, phi, z, vR, vT, vz = (np.asarray(column)[draws] for column in w)
    J_R, L_z, J_z, *_, theta_z = fudge.actionsFreqsAngles(R / R0, vR / V_CIRC, vT / V_CIRC, z / R0, vz / V_CIRC, phi)
    J, y = np.stack([J_R, L_z, J_z], -1) * R0 * V_CIRC, label[draws]
    copies = np.unique(draws, return_counts=True)[1].max()
    index = cKDTree(J).query(J, k=K + copies)[1]
    mean = np.empty(len(y))
    for n in range(len(y)):
        near = index[n][draws[index[n]] != draws[n]][:K]  # a star's copies are not its neighbours
        xi = (J[near] - J[n]) @ (J[near].mean(0) - J[n])
        weights = xi * xi.sum() - (xi**2).sum()
        mean[n] = weights @ y[near] / weights.sum()
    M = np.stack(
        [np.ones_like(theta_z), np.cos(theta_z), np.sin(theta_z), np.cos(2 * theta_z), np.sin(2 * theta_z)], -1
    )
    return np.linalg.lstsq(M, y - mean)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=4000)
    parser.add_argument("--bootstraps", type=int, default=32)
    options = parser.parse_args()
    stars = embedded_stars()[: options.stars]
    N, theta = len(stars), Parameters()
    rng = np.random.default_rng(1)
    labels = np.stack(list(stars.abundances.values()), -1) @ rng.normal(size=(2, ELEMENTS))
    w = phase_space(stars, theta)
    delta = focal_length(w, theta)
    actions = functools.partial(action_angle, delta=delta)
    counts = np.concatenate([np.ones((1, N), int), resamples(N, options.bootstraps, seed=0)])
    coefficients(theta, stars, labels, None, None, actions)  # compiles

    start = time.perf_counter()
    one = coefficients(theta, stars, labels, None, None, actions)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    every = coefficients(theta, stars, labels, None, counts, actions)
    ours_all = time.perf_counter() - start
    start = time.perf_counter()
    theirs = recipe(theta, w, delta, labels[:, 0], np.arange(N))
    plain = time.perf_counter() - start
    resampled = recipe(theta, w, delta, labels[:, 1], np.repeat(np.arange(N), counts[1]))

    pairs = ELEMENTS * (options.bootstraps + 1)
    print(f"{N} stars, {ELEMENTS} elements, {options.bootstraps} bootstraps")
    print(f"recipe, one element, one resample      {plain:9.3f} s")
    print(f"recipe, {ELEMENTS} elements                     {plain * ELEMENTS:9.3f} s")
    print(f"otibayes, {ELEMENTS} elements                   {ours:9.3f} s   {plain * ELEMENTS / ours:9.1f} x")
    print(f"otibayes, {pairs} (element, resample)     {ours_all:9.3f} s   {plain * pairs / ours_all:9.1f} x")
    print(
        f"coefficients differ by at most {np.abs(one[0, 0] - theirs).max():.1e} on all stars, "
        f"{np.abs(every[1, 1] - resampled).max():.1e} on a resample"
    )
    passes, evaluations = 110, 120  # over the stars for the surface of a fit; of a Nelder-Mead by the recipe
    print(f"whole fit, recipe, {evaluations} evaluations a pair    {plain * pairs * evaluations / 3600:9.2f} h")
    print(
        f"whole fit, otibayes, {passes} passes         {ours_all * passes / 3600:9.2f} h"
        f"   {plain * pairs * evaluations / (ours_all * passes):9.1f} x"
    )


if __name__ == "__main__":
    main()
