"""Shared by all tests: strict JAX promotion, the same examples in every run, and the shared data, if anywhere."""

import os
from pathlib import Path

import jax
import pytest
from hypothesis import settings

import otibayes  # noqa: F401 (switches x64 on)

os.environ["OTIBAYES_CACHE"] = "off"  # commands that tests run leave nothing in the user's cache

jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("same", derandomize=True, database=None, deadline=None)  # the first example compiles
settings.load_profile("same")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of survey data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the survey data in ../shared/data, which are not part of the project")
    return SHARED
