"""Passes over the stars on a Dask cluster of this machine, with one worker and with two, and without a cluster.

    python benchmarks/cluster.py [--stars 56324] [--passes 32]

Prints passes a second, the bytes that went out through the scheduler, and those of the sums that came back.
"""

import time
from dataclasses import replace
from functools import partial

import click
import numpy as np
from distributed import Client, LocalCluster
from distributed.protocol import dumps
from posterior import copies, eight_elements

from otibayes import embedded_stars
from otibayes.base.store import Store
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import likelihood_data
from otibayes.generative.basis import make_basis
from otibayes.generative.sums import moments_at
from otibayes.stars.preparation import prepare_stars

COSINES = (8, 10, 6)  # degrees, as of a typical basis


def timed(store, function, thetas):
    """Seconds of passes at thetas, after one that compiles on every worker, and their sums."""
    store.map(function, thetas[:4])
    start = time.perf_counter()
    found = store.map(function, thetas)
    return time.perf_counter() - start, found


@click.command(help=__doc__)
@click.option("--stars", "number", default=56_324)
@click.option("--passes", default=32)
def main(number: int, passes: int) -> None:
    stars = eight_elements(copies(embedded_stars(), number))
    data = likelihood_data(prepare_stars(stars, list(stars.abundances), every=False))
    data = data.relabelled(np.array(MILKY_WAY.Parameters()))
    data = replace(data, basis=make_basis(data.extent, np.full(3, 2.0), 200))
    function = partial(moments_at, data, degrees=COSINES)
    thetas = [np.array([1 + 0.01 * i, 0.28, 20.8, 7.78]) for i in range(passes)]
    seconds, here = timed(Store(threads=1), function, thetas)
    print(f"no cluster, one thread: {passes / seconds:.2f} passes a second")
    for workers in (1, 2):
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            through, send = [0], client._send_to_scheduler

            def counted(message, through=through, send=send):
                through[0] += sum(map(len, dumps(message)))
                send(message)

            client._send_to_scheduler = counted
            store = Store(client=client)
            seconds, there = timed(store, function, thetas)
            assert all(np.array_equal(a.cosines, b.cosines) for a, b in zip(here, there, strict=True))
            sums = sum(leaf.nbytes for leaf in there[0] if leaf is not None)
            print(
                f"{workers} workers: {passes / seconds:.2f} passes a second; through the scheduler"
                f" {through[0] / (passes + 4) / 1e3:.1f} kB out and {sums / 1e3:.0f} kB of sums back, a pass"
            )


if __name__ == "__main__":
    main()
