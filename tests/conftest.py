"""Shared by all tests: one core a worker, strict JAX promotion, one cache of compiled programs, the same examples in
every run, and the shared data, if anywhere."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Workers that all had threads for all cores would spend most of their time in waiting for one another.
    all_cores, number = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, {all_cores[number % len(all_cores)]})

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # before JAX: for all workers, and for the commands that tests run
    programs = tempfile.mkdtemp(prefix="otibayes-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    atexit.register(shutil.rmtree, programs, ignore_errors=True)

import jax
import pytest
from hypothesis import settings

import otibayes  # noqa: F401 (switches x64 on)

os.environ["OTIBAYES_CACHE"] = "off"  # commands that tests run leave nothing in the user's cache

jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("same", derandomize=True, database=None, deadline=None)  # the first example compiles
settings.load_profile("same")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """A worker that kept the programs of all modules in memory would need many GiB."""
    yield
    jax.clear_caches()


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of survey data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the survey data in ../shared/data, which are not part of the project")
    return SHARED
