"""Synthetic stars: the torus invariants are invariant, the frame is right, the truth is in the metadata."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from otibayes.base.errors import InputError
from otibayes.base.parameters import Parameters
from otibayes.dynamics.frame import phase_space
from otibayes.dynamics.potential import MILKY_WAY
from otibayes.stars import Stars, mock, read_stars, write_table
from otibayes.stars.labels import LABELS, mean_labels, scatter, scatter_covariance
from otibayes.stars.orbits import STEPS, _maximum, footprint_of, icrs, integrate, observe
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
    sky = icrs(np.stack([-w.R * cosine, w.R * sine, w.z, vx, vy, w.vz]), TRUTH)
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
    w, found = observe(np.random.default_rng(0), orbits, TRUTH, 2.0)
    assert found.size == n
    assert abs(np.mean(w[5] > 0) - 0.5) < 0.08 and abs(np.mean(w[2] > 0) - 0.5) < 0.08


def as_stars(table, folder) -> Stars:
    write_table(table, folder / "strained.fits")
    return read_stars(folder / "strained.fits")


def before(stars, theta, past, steps):
    """Phase space of stars so many steps of 2 Myr ago, and their orbits from then on in the mass model `past`.

    Time runs backwards where all velocities are turned round.
    """
    w = phase_space(stars, theta)
    back = integrate(np.asarray(w.R), np.asarray(w.z), -np.stack([w.vR, w.vT, w.vz]), theta, steps)
    R, z, vR, vT, vz = back.at(np.full(len(stars), steps))
    return vz, integrate(R, z, -np.stack([vR, vT, vz]), past)


def test_a_kick_was_given_to_every_star_500_myr_ago(tmp_path):
    strained = mock(150, 3, TRUTH, ["MG_FE"], kick=25.0, progress=False)
    stars = as_stars(strained, tmp_path)
    minus_vz, then = before(stars, TRUTH, TRUTH, 250)
    # Up- and down-going stars were as many before: their mean is the kick.
    assert abs(np.mean(-minus_vz) - 25.0) < 3 * np.std(minus_vz) / np.sqrt(150)
    assert np.median(np.abs(then.z_max - strained["z_max"])) > 0.05  # the torus is that before the kick


def test_a_disk_that_grew_leaves_the_labels_on_the_tori_of_before(tmp_path):
    strained = mock(60, 3, TRUTH, ["MG_FE"], growth=0.3, progress=False)
    stars = as_stars(strained, tmp_path)
    _, then = before(stars, TRUTH, TRUTH._replace(m_disk=0.7 * TRUTH.m_disk), 250)
    error = np.abs(then.z_max / strained["z_max"] - 1)
    assert np.median(error) < 1e-3 and np.quantile(error, 0.9) < 0.02
    _, unchanged = before(stars, TRUTH, TRUTH, 250)
    assert np.median(np.abs(unchanged.z_max / strained["z_max"] - 1)) > 0.02


def test_pencil_beams_are_where_they_were_drawn(tmp_path):
    stars = as_stars(mock(150, 3, TRUTH, ["MG_FE"], footprint="pencil-beams", progress=False), tmp_path)
    beams = footprint_of("pencil-beams", np.random.default_rng(3))
    galactic = np.asarray(stars.heliocentric)[:, :3].T
    direction = np.stack([*galactic]) / np.linalg.norm(galactic, axis=0)
    w = phase_space(stars, TRUTH)
    z_sun = TRUTH.z_sun * 1e-3
    x, y = -np.asarray(w.R * np.cos(w.phi)), np.asarray(w.R * np.sin(w.phi))
    position = np.stack([x + np.sqrt(8.122**2 - z_sun**2), y, np.asarray(w.z) - z_sun])
    assert direction.shape == position.shape and np.all(beams(np.random.default_rng(0), position[:, None, :]))
    everywhere = np.random.default_rng(0).normal(size=(3, 1, 4000))
    assert (
        0.02 < np.mean(beams(np.random.default_rng(0), everywhere)) < 0.08
    )  # 300 fields of 7 square degrees, overlapping


def test_a_magnitude_limit_sees_near_stars_rather():
    near, everywhere = (
        mock(300, 3, TRUTH, ["MG_FE"], footprint=footprint, progress=False)["parallax"]
        for footprint in ("magnitude-limit", "all-sky")
    )
    assert np.median(near) > 1.1 * np.median(everywhere)


def test_selection_by_abundance_keeps_what_it_says(tmp_path):
    """Above the plane the odds of being kept rise with the abundance, and the scatter of those kept is lopsided."""
    strained, plain = (
        mock(300, 3, TRUTH, ["MG_FE"], abundance_selection=odds, scatter_scale=3.0, progress=False)
        for odds in (30.0, 0.0)
    )

    def excess(table):
        height = np.abs(phase_space(as_stars(table, tmp_path), TRUTH).z)
        residual = (table["MG_FE"] - mean_labels(table, [LABELS["MG_FE"]])[:, 0])[height > 0.1]
        return np.mean(residual) / (np.std(residual) / np.sqrt(residual.size))

    assert excess(strained) > 5 and abs(excess(plain)) < 2.5


def test_conical_labels_are_linear_in_height_and_the_others_are_not():
    torus = {
        "L_z": np.full(2, 1860.0),
        "z_max": np.array([0.01, 0.02]),
        "r_apo": np.full(2, 9.0),
        "r_peri": np.full(2, 8.0),
    }
    flat = mean_labels(torus | {"z_max": np.zeros(2)}, [LABELS["MG_FE"]])[0, 0]
    for conical, ratio in ((True, 2.0), (False, 4.0)):
        first, second = mean_labels(torus, [LABELS["MG_FE"]], conical)[:, 0] - flat
        assert second / first == pytest.approx(ratio, rel=0.02)


def test_labels_of_ones_own(table):
    """Two elements of the same scatter, correlated by 0.9; no scatter at all leaves the mean."""
    mine = {
        e: LABELS["MG_FE"]._replace(radial=slope, loadings=(0.9487, 0.0))
        for e, slope in (("A_FE", 0.0), ("B_FE", -0.05))
    }
    made = mock(400, 1, TRUTH, labels=mine, abundance_errors=False, progress=False)
    residual = np.stack([made["A_FE"], made["B_FE"]], 1) - mean_labels(made, list(mine.values()))
    assert np.corrcoef(residual.T)[0, 1] == pytest.approx(0.9, abs=0.04)
    bare = mock(50, 1, TRUTH, labels=mine, abundance_errors=False, scatter_scale=0.0, progress=False)
    np.testing.assert_allclose(bare["B_FE"], mean_labels(bare, [mine["B_FE"]])[:, 0], rtol=1e-12)


def test_errors_of_a_star_are_large_or_small_together(table):
    log = np.log([table[f"{element}_ERR"] for element in LABELS])
    assert np.all(np.corrcoef(log) > 0.75)
    for element, label in LABELS.items():
        assert np.median(table[f"{element}_ERR"]) == pytest.approx(label.error, rel=0.1)


def test_skewed_scatter_keeps_its_mean_and_variance():
    drawn = scatter(np.random.default_rng(0), 20000, [LABELS["MG_FE"]], skew=0.5)[:, 0] / LABELS["MG_FE"].scatter
    assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.05 and np.mean(drawn**3) > 1


@settings(max_examples=50)
@given(st.floats(0.05, 0.3), st.floats(0, 6.28), st.floats(0.01, 10))
def test_maxima_between_samples_are_found(step, phase, amplitude):
    peak = _maximum(amplitude * np.cos(step * np.arange(400) + phase)[:, None])
    assert abs(peak[0] / amplitude - 1) < step**4 / 20 + 1e-12


@pytest.mark.parametrize(
    "options, message",
    [
        ({"elements": ["EU_FE"]}, "no label for element EU_FE; choose from FE_H"),
        ({"stars": 0}, "stars=0 cannot be used; at least 1"),
        ({"scatter_scale": -1.0}, "scatter_scale=-1"),
        ({"growth": 1.0}, "growth=1 cannot be used; 0 to below 1"),
        ({"processes": 0}, "processes=0"),
        ({"footprint": "plane"}, "no footprint plane; choose from all-sky"),
        ({"d_max": 9.0}, "d_max=9 cannot be used; 0.1 to 8 kpc"),
        ({"truth": Parameters(m_disk=1.8, h_z=0.05)}, "leaves no mass for the halo"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        mock(**({"stars": 5, "seed": 0, "progress": False} | options))


def test_labels_do_not_depend_on_galpys_angles_but_at_a_wrong_theta():
    """`benchmarks/check_mock_honesty.py` in small: galpy had no part in making the labels."""
    path = Path(__file__).parents[1] / "benchmarks" / "check_mock_honesty.py"
    spec = importlib.util.spec_from_file_location("check_mock_honesty", path)
    honesty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(honesty)
    table = mock(200, 2, honesty.TRUTH, ["MG_FE", "FE_H"], scatter_scale=0.1, abundance_errors=False, progress=False)
    stars = honesty.stars_of(table)

    def chi_squared(theta):
        found = honesty.by_galpy(phase_space(stars, theta), theta)
        return [honesty.chi_squared(found, values, 3, 6) for values in stars.abundances.values()]

    assert np.all(np.array(chi_squared(honesty.TRUTH)) < 1 + 3 * np.sqrt(2 / 6))
    for change in ({"z_sun": 100.0}, {"vz_sun": 4.0}, {"m_disk": 0.6}):
        assert np.all(np.array(chi_squared(honesty.TRUTH._replace(**change))) > 1 + 3 * np.sqrt(2 / 6))
