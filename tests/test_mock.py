"""Synthetic stars: the torus invariants are invariant, the frame is right, the truth is in the metadata."""

import json
import sys

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from otibayes.dynamics.frame import phase_space
from otibayes.dynamics.potential import MILKY_WAY
from otibayes.errors import InputError
from otibayes.parameters import Parameters
from otibayes.stars import mock, read_stars, write_table
from otibayes.stars.labels import LABELS, mean_labels, scatter, scatter_covariance
from otibayes.stars.mock import _observe, _sky
from otibayes.stars.orbits import STEPS, _maximum, integrate
from otibayes.stars.table import META_KEY

TRUTH = Parameters(m_disk=1.2, h_z=0.35, z_sun=-12.0, vz_sun=6.0)


@pytest.fixture(scope="module")
def table() -> Table:
    return mock(300, 3, TRUTH, progress=False)


@pytest.fixture(scope="module")
def stars(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("mock") / "mock.fits"
    write_table(table, path)
    return read_stars(path)


def test_the_same_seed_gives_the_same_stars(table):
    again = mock(300, 3, TRUTH, progress=False)
    assert again.meta == table.meta and again.colnames == table.colnames
    for name in table.colnames:
        np.testing.assert_array_equal(again[name], table[name])
    assert not np.any(mock(30, 4, TRUTH, progress=False)["ra"] == table["ra"][:30])


def test_processes_change_nothing_but_the_time(monkeypatch):
    alone = mock(250, 7, TRUTH, progress=False, footprint="pencil-beams")
    monkeypatch.setattr(sys.modules[mock.__module__], "_WORTH_PROCESSES", 0)
    together = mock(250, 7, TRUTH, progress=False, footprint="pencil-beams", processes=2)
    assert together.meta == alone.meta
    for name in alone.colnames:
        np.testing.assert_array_equal(together[name], alone[name])


def test_the_truth_and_every_setting_are_in_the_metadata(table, stars):
    meta = json.loads(table.meta[META_KEY])
    assert meta["truth"] == TRUTH._asdict()
    assert meta["settings"]["stars"] == 300 and meta["settings"]["seed"] == 3 and meta["settings"]["d_max"] == 2.0
    assert meta["labels"]["MG_FE"]["vertical"] == LABELS["MG_FE"].vertical
    assert dict(stars.provenance.truth) == TRUTH._asdict() and len(stars) == 300
    assert list(stars.abundances) == list(stars.errors) == list(LABELS)


def test_stars_lie_on_their_tori_within_the_survey(table, stars):
    w = phase_space(stars, TRUTH)
    r = np.hypot(w.R, w.z)
    np.testing.assert_allclose(w.R * w.vT, table["L_z"], rtol=1e-8)
    assert np.all(np.abs(w.z) < table["z_max"] + 1e-4)
    assert np.all((r > table["r_peri"] - 1e-4) & (r < table["r_apo"] + 1e-4))
    assert np.all(stars.distance < 2.0)


def test_sky_and_phase_space_are_each_others_inverse(stars):
    w = phase_space(stars, TRUTH)
    cosine, sine = np.cos(w.phi), np.sin(w.phi)
    vx, vy = -w.vR * cosine + w.vT * sine, w.vR * sine + w.vT * cosine
    sky = _sky(np.stack([-w.R * cosine, w.R * sine, w.z, vx, vy, w.vz]), TRUTH)
    np.testing.assert_allclose(1 / sky.pop("parallax"), stars.distance, rtol=1e-9)
    for name, values in sky.items():
        np.testing.assert_allclose(values, getattr(stars, name), rtol=1e-8, atol=1e-8)


def test_energies_are_those_of_our_mass_model_and_conserved(table, stars):
    assert json.loads(table.meta[META_KEY])["settings"]["energy_drift"] < 1e-6
    w = phase_space(stars[:20], TRUTH)
    orbits = integrate(*(np.asarray(a) for a in (w.R, w.z, np.stack([w.vR, w.vT, w.vz]))), TRUTH, steps=100)
    x, y, z, *v = orbits.w
    energy = 0.5 * np.sum(np.square(v), axis=0) + np.asarray(MILKY_WAY.potential(np.hypot(x, y), z, TRUTH))
    assert np.abs(energy / energy[0] - 1).max() < 1e-6


def test_invariants_do_not_depend_on_where_and_how_long_they_are_measured(table, stars):
    w = phase_space(stars[:40], TRUTH)
    longer = integrate(*(np.asarray(a) for a in (w.R, w.z, np.stack([w.vR, w.vT, w.vz]))), TRUTH, steps=4 * STEPS)
    for name in ("z_max", "r_apo", "r_peri"):
        error = np.abs(getattr(longer, name) / table[name][:40] - 1)
        # Orbits near a resonance fill their torus slowly: few, and no worse than this.
        assert np.median(error) < 2e-4 and np.quantile(error, 0.9) < 3e-3 and error.max() < 0.05


def test_labels_follow_their_means_and_correlate_as_stated():
    few = ["MG_FE", "O_FE", "FE_H"]
    labels = [LABELS[e] for e in few]
    big = mock(450, 5, elements=few, abundance_errors=False, progress=False)
    residual = np.stack([big[e] for e in few], -1) - mean_labels({n: np.asarray(big[n]) for n in big.colnames}, labels)
    expected = scatter_covariance(labels)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(np.cov(residual.T) / scale, expected / scale, atol=0.2)
    assert all(np.all(big[f"{e}_ERR"] == 0) for e in few)
    full = scatter_covariance(list(LABELS.values()))
    assert np.linalg.eigvalsh(full).min() > 0
    correlation = np.corrcoef(residual.T)
    assert correlation[0, 1] > 0.82 and correlation[0, 2] < -0.4


def test_gaia_errors_are_added_and_differ_from_star_to_star(table):
    noisy = mock(300, 3, TRUTH, gaia_errors=True, progress=False)
    for name in ("parallax", "pmra", "pmdec", "radial_velocity"):
        assert np.all(table[f"{name}_error"] == 0) and np.ptp(noisy[f"{name}_error"]) > 0
        pull = (noisy[name] - table[name]) / noisy[f"{name}_error"]
        assert abs(np.mean(pull)) < 0.25 and 0.8 < np.std(pull) < 1.2


def test_observed_phases_follow_position_alone():
    """Around each torus up-going and down-going stars, at any place, are equally many."""
    n = 400
    start = np.full(n, 8.122), np.zeros(n), np.tile([[20.0], [229.0], [25.0]], n)
    orbits = integrate(*start, TRUTH)
    w, found = _observe(np.random.default_rng(0), orbits, TRUTH, 2.0)
    assert found.size == n
    assert abs(np.mean(w[5] > 0) - 0.5) < 0.08 and abs(np.mean(w[2] > 0) - 0.5) < 0.08


@pytest.mark.parametrize(
    "stress",
    [
        {"footprint": "pencil-beams"},
        {"footprint": "magnitude-limit"},
        {"abundance_selection": 20.0},
        {"kick": 15.0},
        {"growth": 0.2},
        {"conical": True, "skew": 0.5},
    ],
)
def test_stresses_do_what_they_say(table, stress):
    strained = mock(100, 3, TRUTH, progress=False, elements=["MG_FE"], **stress)
    assert len(strained) == 100 and np.all(1 / strained["parallax"] < 2.0)
    assert all(json.loads(strained.meta[META_KEY])["settings"][name] == value for name, value in stress.items())
    if "magnitude-limit" in stress.values():
        assert np.median(strained["parallax"]) > 1.1 * np.median(table["parallax"])
    if "abundance_selection" in stress:
        plain = mock(100, 3, TRUTH, progress=False, elements=["MG_FE"])
        assert np.mean(strained["MG_FE"]) > np.mean(plain["MG_FE"])


def test_skewed_scatter_keeps_its_mean_and_variance():
    drawn = scatter(np.random.default_rng(0), 20000, [LABELS["MG_FE"]], skew=0.5)[:, 0] / LABELS["MG_FE"].scatter
    assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.05 and np.mean(drawn**3) > 1


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 0.3), st.floats(0, 6.28), st.floats(0.01, 10))
def test_maxima_between_samples_are_found(step, phase, amplitude):
    peak = _maximum(amplitude * np.cos(step * np.arange(400) + phase)[:, None])
    assert abs(peak[0] / amplitude - 1) < step**4 / 20 + 1e-12


@pytest.mark.parametrize(
    "options, message",
    [
        ({"elements": ["EU_FE"]}, "no label for element EU_FE; choose from FE_H"),
        ({"stars": 0}, "at least one star"),
        ({"footprint": "plane"}, "no footprint plane; choose from all-sky"),
        ({"d_max": 9.0}, "d_max <= 8"),
        ({"truth": Parameters(m_disk=1.8, h_z=0.05)}, "leaves no mass for the halo"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        mock(**({"stars": 5, "seed": 0, "progress": False} | options))
