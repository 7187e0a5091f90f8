"""The k-step bootstrap against Nelder-Mead on surfaces and on plain coefficients, for the resamples of one element.

    python benchmarks/k_step.py [--stars 4000] [--resamples 64] [--element MG_FE] [--folder DIR]

k-step (Davidson & MacKinnon 1999; Andrews 2002): from the optimum of all stars a resample's optimum follows by one
Gauss-Newton step, with the Jacobian of its coefficients. With the neighbours of every star held, the coefficients are
differentiable; the Jacobian is taken so, by differences of 1e-4 scales. Two more Jacobians are tried: by differences of
0.3 scales, with neighbours found anew, and that of the surface. The step is the shortest one: equation 8 says nothing
along its valley. Compared are the standard deviations over resamples in the three directions that equation 8
determines, relative to those of plain Nelder-Mead from the paper's start, and along the valley. `--folder` keeps
finished plain optimisations.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from otibayes import embedded_stars, prepare_stars
from otibayes.base.store import Store
from otibayes.classical.fit import fit
from otibayes.classical.local_mean import local_mean, nearest
from otibayes.classical.objective import least_squares, scales
from otibayes.classical.settings import ClassicalSettings
from otibayes.classical.statistic import make_statistic

HELD, WIDE = 1e-4, 0.3  # steps of the differences, in scales
LISTED = 160  # neighbours of a star that are held


def held_coefficients(statistic, theta):
    """Coefficients (B, 5) near theta, a function of theta, with the neighbours and their weights as at theta."""
    J, _ = statistic.actions_at(theta)
    index = nearest(cKDTree(J), np.arange(len(J)), LISTED)
    K, y = statistic.settings.neighbours, statistic.labels[:, 0] - statistic.labels[:, 0].mean()

    def coefficients(point):
        J, angle = statistic.actions_at(point)
        x, labels = (J[index] - J[:, None]).transpose(0, 2, 1), y[index][:, None]
        found = []
        for counts in statistic.counts:
            total = np.minimum(np.cumsum(counts[index.T], 0), K)
            weights = np.diff(total, axis=0, prepend=0)[..., None].astype(float)
            found.append(y - local_mean(weights, x, labels)[:, 0, 0])
        return least_squares(angle, np.stack(found)[..., None], statistic.weights.chosen, statistic.counts)[:, 0]

    return coefficients


def slopes(function, theta, step, unit):
    """Jacobian (B, 3, d) of a1, b1, a2 by the parameters in their scales."""
    ends = [[function(theta + sign * shift) for sign in (1, -1)] for shift in step * np.diag(unit)]
    return np.stack([(up - down)[:, 1:4] / (2 * step) for up, down in ends], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=64)
    parser.add_argument("--element", default="MG_FE")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    prepared = prepare_stars(embedded_stars()[: options.stars], [options.element], method="staeckel")
    settings = ClassicalSettings(bootstraps=options.resamples, bins=0)
    measured = prepared.stars, prepared.labels, prepared.errors
    statistic = make_statistic(*measured, actions=prepared.actions, settings=settings)
    unit, cpu = scales(statistic.model.parameters), {}

    def timed(name, function):
        start = time.process_time()
        value = function()
        cpu[name] = time.process_time() - start
        return value

    surfaces = timed("surfaces", lambda: fit(statistic, starts=1))
    plain_settings = replace(statistic, settings=replace(settings, surface=False))
    plain = timed("plain Nelder-Mead", lambda: fit(plain_settings, Store(options.folder), starts=1))
    optimum, jacobian = surfaces.optimum[0], surfaces.valley.jacobian[0]
    at_optimum = statistic(optimum).series[:, 0, 1:4]

    def stepped(jacobians):
        """Optima of the resamples after one step, from that of all stars after the same step."""
        return np.stack([-np.linalg.pinv(J) @ c for J, c in zip(jacobians, at_optimum, strict=True)])[1:]

    held = timed(
        "k-step, neighbours held", lambda: stepped(slopes(held_coefficients(statistic, optimum), optimum, HELD, unit))
    )
    wide = timed(
        "k-step, differences of 0.3",
        lambda: stepped(slopes(lambda t: statistic(t).series[:, 0], optimum, WIDE, unit)),
    )
    of_surface = stepped([jacobian] * len(at_optimum))
    ways = {
        "plain Nelder-Mead": plain.replicates[0] / unit,
        "surfaces": surfaces.replicates[0] / unit,
        "k-step, neighbours held": held,
        "k-step, differences of 0.3": wide,
        "k-step, Jacobian of the surface": of_surface,
    }
    directions = np.linalg.svd(jacobian)[2]
    reference = (ways["plain Nelder-Mead"] @ directions.T).std(0, ddof=1)
    print(
        f"{options.stars} stars, {options.element}, {options.resamples} resamples;"
        f" plain less surface coefficients at random optima: rms {surfaces.report.rms[0]:.2f} sd"
    )
    print(f"{'sd relative to plain Nelder-Mead':34s}{'three directions':>24s}{'valley':>9s}{'CPU s':>9s}")
    for name, replicates in ways.items():
        ratio = (replicates @ directions.T).std(0, ddof=1) / reference
        print(f"{name:34s}" + "".join(f"{r:8.2f}" for r in ratio[:3]) + f"{ratio[3]:9.2f}{cpu.get(name, np.nan):9.0f}")


if __name__ == "__main__":
    main()
