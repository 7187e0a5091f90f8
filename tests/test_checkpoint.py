"""Runs that are killed or interrupted at any moment, and go on to the draws of an uninterrupted one, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

import otibayes as oti
from otibayes.base.errors import InputError
from otibayes.base.store import Store
from otibayes.results.provenance import open_checkpoint

PLAIN = ["--no-surface", "--delta", "local", "--chains", "2", "--warmup", "30", "--draws", "30", "--basis-size", "8"]


def command(stars, output, *options):
    line = [sys.executable, "-m", "otibayes.cli", "sample", stars, "--elements", "MG_FE", "--output", output, *options]
    # what one process compiled serves the next
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(stars.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        list(map(str, line)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | cache
    )


def finished(process):
    said = process.communicate(timeout=3600)[0].decode()
    assert process.returncode == 0, said
    return said


def signalled(process, number, folder, block):
    """Send a signal as soon as the checkpoint has this block, and say what came of it."""
    deadline = time.monotonic() + 3600
    while not any(folder.glob(block)):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline, list(folder.glob("*"))
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate(timeout=3600)[0].decode()


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    path = tmp_path_factory.mktemp("stars") / "stars.ecsv"
    oti.write_table(oti.mock(60, seed=4, elements=["MG_FE"], progress=False), path)
    return path


def assert_same(one, two):
    one, two = oti.load(one), oti.load(two)
    assert set(one.children) == set(two.children)
    for name in set(one.children) - {"timings"}:
        xr.testing.assert_identical(one[name].dataset, two[name].dataset)  # NaN equals NaN; otherwise every bit counts


def test_killed_twice_and_interrupted_it_ends_as_if_it_never_was(stars, tmp_path):
    whole, output = tmp_path / "whole.nc", tmp_path / "killed.nc"
    finished(command(stars, whole, *PLAIN))
    folder = tmp_path / "killed.nc.checkpoint"
    signalled(command(stars, output, *PLAIN), signal.SIGKILL, folder, "nuts-chain?-000010.npz")  # adapting
    before = sorted(path.name for path in folder.glob("nuts*"))
    signalled(command(stars, output, *PLAIN, "--resume"), signal.SIGKILL, folder, "nuts-chain?-000040.npz")  # sampling
    assert before and set(before) < {path.name for path in folder.glob("nuts*")} and not output.exists()
    process = command(stars, output, *PLAIN, "--resume")
    said = signalled(process, signal.SIGINT, folder, "nuts-chain1-000050.npz")
    if process.returncode != 0:  # it may have been done before the signal came
        assert process.returncode == 130 and "--resume goes on" in said, said
    said = finished(command(stars, output, *PLAIN, "--resume"))
    assert not folder.exists(), said
    assert_same(whole, output)
    assert "kept" in finished(command(stars, output, *PLAIN, "--resume"))
    tree = oti.load(whole)  # without a surface
    assert "surface" not in tree.children
    assert tree["timings"].stage.values.tolist()[-4:] == ["NUTS", "pull", "draws", "predictions"]


@pytest.mark.slow
def test_killed_on_the_surface(stars, tmp_path):
    """The same with pilot and surface; 300 stars."""
    path = tmp_path / "stars.ecsv"
    oti.write_table(oti.mock(300, seed=5, elements=["MG_FE"], progress=False), path)
    short = ["--warmup", "50", "--draws", "60"]
    finished(command(path, tmp_path / "whole.nc", *short))
    output, folder = tmp_path / "killed.nc", tmp_path / "killed.nc.checkpoint"
    resume: list[str] = []
    for block in (
        "basis-maximum.npz",
        "nuts-pilot-chain?-000020.npz",
        "nuts-chain?-000020.npz",
        "nuts-chain?-000090.npz",
    ):
        signalled(command(path, output, *short, *resume), signal.SIGKILL, folder, block)
        resume = ["--resume"]
    finished(command(path, output, *short, "--resume"))
    assert_same(tmp_path / "whole.nc", output)


# ---- what belongs to another run


INPUTS = {"stars": "ab", "seed": 0, "elements": ["FE_H"], "basis_size": None}


def test_a_checkpoint_of_other_inputs_is_refused_with_the_reason(tmp_path):
    folder, like = tmp_path / "checkpoint", (0, 0)
    store = Store(open_checkpoint(folder, INPUTS, resume=True))  # nothing to resume: made
    store.put("maximum", (np.arange(3.0), np.eye(2)))
    mode, covariance = Store(open_checkpoint(folder, INPUTS, resume=True)).get("maximum", like)
    np.testing.assert_array_equal(mode, [0, 1, 2])
    np.testing.assert_array_equal(covariance, np.eye(2))
    with pytest.raises(InputError, match="seed was 0, is 1; basis_size was absent, is 64; start anew"):
        open_checkpoint(folder, INPUTS | {"seed": 1, "basis_size": 64}, resume=True)
    assert Store(open_checkpoint(folder, INPUTS, resume=True)).get("maximum", like) is not None
    assert Store(open_checkpoint(folder, INPUTS | {"seed": 1}, resume=False)).get("maximum", like) is None
    assert json.loads((folder / "inputs.json").read_text())["seed"] == 1


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    for resume in (True, False):
        with pytest.raises(InputError, match="left alone"):
            open_checkpoint(tmp_path / "thesis", INPUTS, resume=resume)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()
