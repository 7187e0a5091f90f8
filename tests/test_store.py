"""Finished values: kept on disk and found again, whatever kills the run; the same here and on a cluster."""

import os
import signal
import sys
from collections import namedtuple
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from toy_galaxy import toy, toy_sample

from otibayes.base.cluster import connect
from otibayes.base.errors import InputError
from otibayes.base.store import Store, write_whole
from otibayes.classical.fit import fit
from otibayes.classical.settings import ClassicalSettings
from otibayes.classical.statistic import make_statistic
from otibayes.generative import likelihood_data
from otibayes.generative.basis import make_basis
from otibayes.generative.statistic import Moments
from otibayes.generative.sums import moments_at
from otibayes.stars import embedded_stars
from otibayes.stars.preparation import prepare_stars

Pair = namedtuple("Pair", ["square", "name_length"])
POINTS = [np.array([0.1 * i, 1.0]) for i in range(6)]


class Counted:
    """A function that remembers what it was asked, and may die on the way."""

    def __init__(self, last=np.inf):
        self.asked, self.last = [], last

    def __call__(self, point):
        if len(self.asked) == self.last:
            raise KeyboardInterrupt
        self.asked.append(point)
        return np.outer(point, point)


@pytest.mark.parametrize("threads", [1, 3])
def test_values_in_order(threads):
    values = Store(threads=threads).map(lambda point: 2 * point, POINTS)
    np.testing.assert_array_equal(values, 2 * np.array(POINTS))


def test_a_killed_run_loses_no_finished_value(tmp_path):
    store = Store(tmp_path / "deep" / "store", "data 1")
    dying, second = Counted(last=4), Counted()
    with pytest.raises(KeyboardInterrupt):
        store.map(dying, POINTS)
    values = store.map(second, POINTS)
    np.testing.assert_array_equal(second.asked, POINTS[4:])
    np.testing.assert_array_equal(values, [np.outer(p, p) for p in POINTS])


def test_other_data_kinds_and_points_are_computed_anew(tmp_path):
    store = Store(tmp_path, "data 1")
    store.map(Counted(), POINTS)
    for other in (Store(tmp_path, "data 2"), store.of("minima")):
        again = Counted()
        other.map(again, POINTS)
        assert len(again.asked) == len(POINTS)
    moved = Counted()
    store.map(moved, [*POINTS[:2], POINTS[2] + 1e-15])
    assert len(moved.asked) == 1


def test_a_damaged_file_is_computed_anew(tmp_path):
    store = Store(tmp_path)
    store.map(Counted(), POINTS)
    first, second, *_ = sorted(tmp_path.glob("*.npz"))
    first.write_bytes(first.read_bytes()[:40])
    second.write_bytes(b"")
    again = Counted()
    np.testing.assert_array_equal(store.map(again, POINTS), [np.outer(p, p) for p in POINTS])
    assert len(again.asked) == 2
    store.put("a", np.ones(100))
    path = tmp_path / "a.npz"
    path.write_bytes(path.read_bytes()[:150])
    assert store.get("a") is None
    assert store.keep("a", lambda: np.zeros(2)).size == 2 and store.get("a").size == 2


def test_without_a_folder_nothing_is_kept():
    store = Store()
    store.put("a", np.ones(3))
    assert store.get("a") is None and store.keep("a", lambda: 3) == 3


def test_values_of_several_arrays_and_points_of_several_numbers(tmp_path):
    store = Store(tmp_path)
    make = lambda point: Pair(point[1] ** 2, np.full(3, point[0]))  # noqa: E731
    points = [(1, np.array([2.0])), (2, np.array([2.0]))]
    for values in (store.map(make, points, Pair(0, 0)), store.map(None, points, Pair(0, 0))):  # then nothing is called
        assert [v.square for v in values] == [4, 4]
        np.testing.assert_array_equal(values[1].name_length, [2, 2, 2])


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def dies(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, dies)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_refusals(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        Store(tmp_path / "file").map(Counted(), POINTS)
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        connect("nonsense://nowhere")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'otibayes\[dask\]'"):
        connect("tcp://10.0.0.1:8786")


def squares(point):
    """The first worker that is asked dies in the middle of it, once."""
    seed, victim, marker = point
    if victim and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return np.random.default_rng(seed).normal(size=50) ** 2


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as made,
        distributed.Client(made, set_as_default=False) as client,
    ):
        yield client


def test_a_cluster_gives_the_same_and_a_killed_worker_loses_nothing(cluster, tmp_path):
    marker = str(tmp_path / "died")
    points = [(seed, seed == 5, marker) for seed in range(12)]
    here = Store().map(squares, [(seed, False, marker) for seed in range(12)])
    there = Store(tmp_path / "store", client=cluster).map(squares, points)
    assert os.path.exists(marker)
    np.testing.assert_array_equal(there, here)
    kept = Store(tmp_path / "store").map(None, points)  # every value is on disk: nothing is called
    np.testing.assert_array_equal(kept, here)


class Sums:
    """Of a large array times a number; the first worker that is asked for a negative one dies in the middle."""

    def __init__(self, array, marker=""):
        self.array, self.marker = array, marker

    def __call__(self, point):
        if point < 0 and not os.path.exists(self.marker):
            open(self.marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(self.array).sum(1) * point


def test_large_arrays_travel_to_the_workers_once_and_past_the_scheduler(cluster, tmp_path, monkeypatch):
    from distributed.protocol import dumps

    array = np.random.default_rng(0).normal(size=(4, 1 << 18))  # 8 MiB
    through, send = [0], cluster._send_to_scheduler

    def counted(message):
        through[0] += sum(len(frame) for frame in dumps(message))
        send(message)

    monkeypatch.setattr(cluster, "_send_to_scheduler", counted)
    store = Store(client=cluster)
    for kind, marker in ((np.asarray, ""), (jax.numpy.asarray, str(tmp_path / "died"))):
        points = [1.0, -2.0] if marker else [1.0, 2.0, 3.0]
        there = store.of("sums").map(Sums(kind(array), marker), points)
        np.testing.assert_allclose(there, [array.sum(1) * p for p in points], rtol=1e-12)
    assert os.path.exists(tmp_path / "died")
    large = [name for name, future in store.sent.items() if future.type is np.ndarray]
    assert len(large) == 1 and 0 < through[0] < 100_000


def test_workers_that_lost_what_they_had_get_it_again(cluster):
    store, array = Store(client=cluster), np.arange(1 << 18, dtype=float).reshape(4, -1)
    store.map(Sums(array), [1.0])
    cluster.cancel(list(store.sent.values()))  # as if all workers that held it had died
    np.testing.assert_array_equal(store.map(Sums(array), [3.0])[0], 3 * array.sum(1))


def fails(point):
    raise InputError("method 'galpy' does not solve 3 stars")


def test_errors_come_back_from_a_cluster(cluster):
    with pytest.raises(InputError, match="does not solve 3 stars"):
        Store(client=cluster).map(fails, POINTS)


@pytest.mark.parametrize("surface", [True, False])
def test_a_fit_on_a_cluster_is_the_same(cluster, surface):
    """The passes over the stars, and the plain Nelder-Mead of every bootstrap."""
    stars, labels = toy_sample(90, 3, noise=0.02)
    settings = ClassicalSettings(bootstraps=2, neighbours=16, surface=surface)
    statistic = make_statistic(stars, labels[:, :1], actions=toy, settings=settings)
    here, there = (fit(statistic, Store(client=c), starts=1) for c in (None, cluster))
    np.testing.assert_array_equal(there.replicates, here.replicates)
    np.testing.assert_array_equal(there.coefficients, here.coefficients)
    assert (there.evaluations == here.evaluations).all() and here.converged.any()


def test_passes_of_the_likelihood_on_a_cluster_are_the_same(cluster):
    stars = embedded_stars()[:100]
    data = likelihood_data(prepare_stars(stars, list(stars.abundances), "local", every=False))
    data = replace(data, basis=make_basis(data.extent, np.ones(3), 20))
    thetas = [np.array([m_disk, 0.3, 15.0, 8.0]) for m_disk in (0.9, 1.2)]
    like = Moments(*[0] * len(Moments._fields))
    here, there = (Store(client=c).map(partial(moments_at, data), thetas, like) for c in (None, cluster))
    for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(here[0].cosines - here[1].cosines).max() > 0


def test_connect_finds_the_cluster(cluster):
    with connect(cluster.scheduler.address) as client:
        np.testing.assert_array_equal(
            Store(client=client).map(squares, [(3, False, "")])[0], Store().map(squares, [(3, False, "")])[0]
        )
