"""Shared by all tests: strict JAX promotion, and where the project's shared data are, if anywhere."""

from pathlib import Path

import jax
import pytest

import otibayes  # noqa: F401 (switches x64 on)

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of survey data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the survey data in ../shared/data, which are not part of the project")
    return SHARED
