"""Recipes: each cut against a plain count, the cut flow, overrides, joins, and what cannot be used."""

import dataclasses
import json

import numpy as np
import pytest
from astropy.table import Table

from otibayes.analysis.plot import plot_selection
from otibayes.base.errors import InputError
from otibayes.cli.stars import parse_override
from otibayes.stars import read_stars, select, write_table
from otibayes.stars.recipes import bits_unset, book, highest, in_polygon, recipe, red_clump
from otibayes.stars.table import META_KEY, open_table

N = 4000
BITS = {
    "ASPCAPFLAG": (7, 23),
    "APOGEE_TARGET1": (9, 18, 24, 26),
    "APOGEE_TARGET2": (10, 18),
    "APOGEE2_TARGET1": (9, 18, 20, 21, 22, 23, 24, 26),
    "APOGEE2_TARGET2": (10,),
    "APOGEE2_TARGET3": (5, 14, 15),
}


@pytest.fixture(scope="module")
def survey() -> Table:
    """A table with the names and sentinels of APOGEE DR17, in which every cut has something to do."""
    rng = np.random.default_rng(0)
    table = Table({"APOGEE_ID": [f"2M{i:08d}" for i in rng.integers(0, 3500, N)]})
    for name, scale in {"RA": 360.0, "DEC": 80.0}.items():
        table[name] = rng.uniform(0, scale, N)
    for name in BITS:
        table[name] = (1 << rng.integers(0, 31, N)) * (rng.uniform(size=N) < 0.3)
    table["TEFF"] = rng.uniform(3300, 6800, N)
    table["LOGG"] = rng.uniform(1.2, 3.7, N)
    table["SNR"] = rng.uniform(5, 200, N)
    table["M_H"], table["ALPHA_M"] = rng.uniform(-1.1, 0.7, N), rng.uniform(-0.15, 0.25, N)
    table["GAIAEDR3_PARALLAX"] = rng.uniform(0.2, 3, N)
    table["GAIAEDR3_PARALLAX_ERROR"] = rng.uniform(0.01, 0.3, N)
    for name in ("GAIAEDR3_PMRA", "GAIAEDR3_PMDEC", "VHELIO_AVG"):
        table[name] = rng.normal(0, 10, N)
    for name in ("GAIAEDR3_PMRA_ERROR", "GAIAEDR3_PMDEC_ERROR", "VERR"):
        table[name] = np.full(N, 0.02)
    table["FE_H"], table["FE_H_ERR"] = table["M_H"] + 0.01, 0.01
    table["MG_FE"], table["MG_FE_ERR"] = table["ALPHA_M"] + 0.01, 0.02
    table["J"], table["K"], table["AK_TARG"] = rng.uniform(8, 9, N), rng.uniform(7.4, 8.2, N), rng.uniform(0, 0.1, N)
    for name in ("TEFF", "LOGG", "M_H", "GAIAEDR3_PARALLAX", "FE_H"):
        table[name][rng.integers(0, N, 40)] = np.nan
    table["MG_FE"][rng.integers(0, N, 40)] = -9999.99
    return table


@pytest.fixture(scope="module")
def path(survey, tmp_path_factory):
    path = tmp_path_factory.mktemp("survey") / "allStar.fits"
    survey.write(path)
    return path


def plain(row, polygon) -> dict[str, bool]:
    """Section 3 of the paper, one star at a time, without any of our code."""

    def inside(x, y):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            if min(y0, y1) <= y < max(y0, y1) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                crossings += 1
        return crossings % 2 == 1

    names = ("star-bad", "apogee-target1", "apogee-target2", "apogee2-target1", "apogee2-target2", "apogee2-target3")
    passed = {
        name: not any(int(row[column]) >> bit & 1 for bit in bits)
        for name, (column, bits) in zip(names, BITS.items(), strict=True)
    }
    passed["teff"] = 3500 < row["TEFF"] < 6500
    passed["logg"] = 1.5 < row["LOGG"] < 3.4
    passed["snr"] = row["SNR"] > 20
    passed["low-alpha"] = bool(np.isfinite(row["M_H"])) and inside(row["M_H"], row["ALPHA_M"])
    passed["parallax"] = row["GAIAEDR3_PARALLAX"] > 0.5
    passed["parallax-snr"] = row["GAIAEDR3_PARALLAX"] / row["GAIAEDR3_PARALLAX_ERROR"] > 8
    return {name: bool(value) for name, value in passed.items()}


def test_the_papers_recipe_agrees_with_a_plain_count(survey, path):
    chosen, flow = select(path, "pw21-low-alpha")
    polygon = [tuple(v) for v in recipe("pw21-low-alpha")[1]["low-alpha"]["vertices"]]
    assert len(polygon) == 8 and polygon[0] == (0.6, -0.05) and polygon[-1] == (0.2, -0.1)
    passed = [plain(row, polygon) for row in survey]
    left = [i for i in range(N) if all(passed[i].values())]
    best = {}
    for i in left:
        star = survey["APOGEE_ID"][i]
        if star not in best or survey["SNR"][i] > survey["SNR"][best[star]]:
            best[star] = i
    rows = sorted(best.values())
    assert 5 < len(rows) == len(chosen) == flow.steps[-1].left and len(rows) < len(left)
    np.testing.assert_array_equal(chosen["ra"], survey["RA"][rows])
    keep = np.ones(N, bool)
    for step in flow.steps[:-1]:
        keep &= [p[step.cut] for p in passed]
        assert step.left == keep.sum()
    for step in flow.steps[:-1]:
        alone = sum(not p[step.cut] and all(v for k, v in p.items() if k != step.cut) for p in passed)
        # The cut that keeps one row per star tells rows apart only among those that pass all others.
        assert step.lost_alone == alone
    assert flow.steps[-1].cut == "one-per-star" and flow.steps[-1].lost_alone == len(left) - len(rows)
    assert flow.rows == N and "low-alpha" in str(flow) and flow.warnings == ()


def test_the_selection_can_be_read_as_stars_with_its_record(path, tmp_path):
    chosen, flow = select(path, "pw21-low-alpha")
    write_table(chosen, tmp_path / "stars.fits")
    stars = read_stars(tmp_path / "stars.fits", extra=["LOGG", "TEFF"])
    assert len(stars) == len(chosen) and {"FE_H", "MG_FE"} <= set(stars.errors)
    assert np.all((stars.extra["LOGG"] > 1.5) & (stars.extra["TEFF"] < 6500))
    assert set(stars.astrometric_errors) == {"distance", "pmra", "pmdec", "radial_velocity"}
    assert any("selected by pw21-low-alpha" in note for note in stars.provenance.notes)
    record = json.loads(chosen.meta[META_KEY])["selection"]
    assert record["cuts"]["snr"]["min"] == 20.0 and len(record["steps"]) == len(flow.steps)
    assert dataclasses.asdict(stars.provenance)["rows"] == len(chosen)


def test_cuts_can_be_overridden_one_by_one(path):
    _, base = select(path, "pw21-low-alpha")
    override = parse_override(["snr.min=100", "logg=off", "parallax.min=1"])
    assert override == {"snr": {"min": 100}, "logg": "off", "parallax": {"min": 1}}
    _, changed = select(path, "pw21-low-alpha", override)
    assert "logg" not in [s.cut for s in changed.steps] and len(changed.steps) == len(base.steps) - 1
    _, emptied = select(path, "pw21-low-alpha", {"snr": {"min": 1e9}})
    assert emptied.warnings[0] == f"cut snr removes every one of {N} rows on its own"
    for text in ("snr", "snr.min", "snr.min=[", "snr=on"):
        with pytest.raises(InputError, match="cannot read the cut"):
            parse_override([text])
    with pytest.raises(InputError, match="has no cut snrr"):
        select(path, "pw21-low-alpha", {"snrr": {"min": 1}})


BAD_CUTS = {
    "star-bad": [
        {"bits": [64]},
        {"bits": [-1]},
        {"bits": [1.5]},
        {"bits": 7},
        {"bits": "all"},
        {"bits": ["a"]},
        {"bits": []},
    ],
    "low-alpha": [{"vertices": 3}, {"vertices": [[0, 0], [1, 1]]}, {"vertices": [[0, 0], [1], [2, 2]]}, {"x": 3}],
    "snr": [{"least": 1}, {"min": "x"}, {"min": True}, {"min": [1]}, {"max": float("nan")}, {"column": ""}],
    "parallax-snr": [{"kind": "ratio"}, {"kind": ["in_polygon"]}, {"kind": "in_polygon"}],
    "new": [{"kind": "between"}, {"kind": "ratio_above", "numerator": "a", "denominator": "b"}],
}


@pytest.mark.parametrize(("cut", "change"), [(cut, change) for cut, changes in BAD_CUTS.items() for change in changes])
def test_arguments_that_a_cut_cannot_use_are_refused_before_anything_is_read(cut, change, tmp_path):
    with pytest.raises(InputError, match=f"cut {cut}") as raised:
        select(tmp_path / "absent.fits", "pw21-low-alpha", {cut: change})
    assert "\n" not in str(raised.value)


def test_low_and_high_alpha_do_not_overlap_and_the_red_clump_is_a_part(path):
    low, high, clump = (select(path, name)[0] for name in ("pw21-low-alpha", "pw21-high-alpha", "red-clump"))
    assert len(high) > 5 and not set(low["ra"]) & set(high["ra"])
    assert len(clump) < len(low)


def test_red_clump_against_the_papers_numbers():
    # A textbook clump star; the same too cool, too blue, too metal-poor for its colour, too luminous.
    star = dict(teff=4750.0, logg=2.45, fe_h=0.0, j=8.65, k=8.0, a_k=0.0)
    assert red_clump(**{k: np.array([v]) for k, v in star.items()})[0]
    for change in ({"teff": 4400.0}, {"j": 8.4}, {"fe_h": -0.9}, {"logg": 1.7}, {"a_k": np.nan}):
        assert not red_clump(**{k: np.array([v]) for k, v in (star | change).items()})[0]


def test_small_cuts():
    np.testing.assert_array_equal(bits_unset(np.array([0, 128, 1 << 23, 1, np.nan]), [7, 23]), [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(bits_unset(np.array([0.0, 2.0]), "any"), [True, False])
    square = [[0, 0], [1, 0], [1, 1], [0, 1]]
    x, y = np.array([0.5, 1.5, np.nan, -0.1]), np.array([0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(in_polygon(x, y, square), [1, 0, 0, 0])
    names, among = np.array(["a", "b", "a", "a"]), np.array([True, True, True, False])
    np.testing.assert_array_equal(highest(np.array([1.0, 5.0, 3.0, 9.0]), names, among), [0, 1, 1, 1])


def test_a_gaia_table_can_be_joined(survey, path, tmp_path):
    rng = np.random.default_rng(5)
    stars, first = np.unique(survey["APOGEE_ID"], return_index=True)
    shuffled = rng.permutation(len(stars))[: len(stars) - 100]
    gaia = Table({"tmass": stars[shuffled], "parallax": survey["GAIAEDR3_PARALLAX"][first][shuffled] + 5.0})
    gaia["radial_velocity"] = 999.0
    write_table(gaia, tmp_path / "gaia.ecsv")
    chosen, _ = select(path, "pw21-low-alpha", gaia=tmp_path / "gaia.ecsv", on="APOGEE_ID=tmass")
    assert np.all(chosen["parallax"] > 5) and not np.any(chosen["radial_velocity"] == 999.0)
    assert set(chosen["APOGEE_ID"]) <= set(gaia["tmass"])
    with pytest.raises(InputError, match="no column APOGEEID to join on; similar: APOGEE_ID"):
        select(path, "pw21-low-alpha", gaia=tmp_path / "gaia.ecsv", on="APOGEEID=tmass")


def test_what_cannot_be_selected_is_said_in_one_line(survey, path, tmp_path):
    with pytest.raises(InputError, match="no recipe pw21; choose from pw21-low-alpha"):
        select(path, "pw21")
    with pytest.raises(InputError, match="no such file"):
        select(tmp_path / "absent.fits", "pw21-low-alpha")
    with pytest.raises(InputError, match=r"needs the columns of galah-dr4; absent: .*rv_comp_1"):
        select(path, "galah-dr4-low-alpha")
    short = tmp_path / "short.fits"
    short.write_bytes(path.read_bytes()[:200_000])
    (tmp_path / "text.fits").write_text("no table")
    for bad in (short, tmp_path / "text.fits"):
        with pytest.raises(InputError, match="cannot be read as fits"):
            select(bad, "pw21-low-alpha")


def test_everything_in_the_book_has_a_source():
    for kind in ("recipe", "survey", "distance"):
        assert all(entry["about"] and entry["source"] for entry in book()[kind].values())
    for name in book()["recipe"]:
        surveys, cuts = recipe(name)
        assert cuts and set(surveys) <= set(book()["survey"])


def test_figure_of_a_selection(path, tmp_path):
    chosen, _ = select(path, "pw21-low-alpha", {"one-per-star": "off"})
    write_table(chosen, tmp_path / "stars.fits")
    stars, cuts = read_stars(tmp_path / "stars.fits"), recipe("pw21-low-alpha")[1]
    chemistry, plane, vertical = plot_selection(stars, cuts).axes[:3]
    assert chemistry.get_xlabel() == r"$[\mathrm{M}/\mathrm{H}]$ [dex]" and r"\alpha" in chemistry.get_ylabel()
    corners = chemistry.patches[0].get_xy()[:-1]
    np.testing.assert_array_equal(corners, cuts["low-alpha"]["vertices"])
    counted = chemistry.collections[0].get_array().sum()
    assert 0.9 * len(stars) < counted <= len(stars)
    assert plane.get_aspect() == 1 and "v_z" in vertical.get_ylabel()
    bare = plot_selection(dataclasses.replace(stars, abundances={}, errors={}))
    assert "no FE_H and MG_FE" in bare.axes[0].texts[0].get_text()
    with pytest.raises(InputError, match="there are none"):
        plot_selection(stars[:0])


def test_fits_columns_are_read_alone_and_in_parts(survey, path, monkeypatch):
    monkeypatch.setattr("otibayes.stars.table._BYTES_AT_ONCE", 20_000)
    part = open_table(path)[0]
    some = part.read(["SNR", "APOGEE_ID"])
    assert some.colnames == ["SNR", "APOGEE_ID"] and part.names == survey.colnames
    np.testing.assert_array_equal(some["SNR"], survey["SNR"])
    np.testing.assert_array_equal(some["APOGEE_ID"], survey["APOGEE_ID"])


def test_the_real_allstar_columns(shared_data):
    """95 halo stars: the flags agree with the survey's own words, and the recipe finds its columns."""
    path = shared_data / "apogee_dr17_allstar_columns.fits"
    words = open_table(path)[0].read(["ASPCAPFLAG", "ASPCAPFLAGS"])
    expected = ["STAR_WARN" not in text and "STAR_BAD" not in text for text in words["ASPCAPFLAGS"].astype(str)]
    np.testing.assert_array_equal(bits_unset(np.asarray(words["ASPCAPFLAG"]), [7, 23]), expected)
    chosen, flow = select(path, "pw21-low-alpha")
    assert flow.rows == 95 and flow.steps[0].left == sum(expected) and len(chosen) == flow.steps[-1].left
    # Nearly all are halo stars: without the cuts there are some, at Bailer-Jones distances as their parallaxes say.
    every = dict.fromkeys((step.cut for step in flow.steps if step.cut != "parallax-snr"), "off")
    near, _ = select(path, "pw21-low-alpha", every, distance="photogeo")
    assert len(near) > 20
    pull = (1 / near["distance"] - near["parallax"]) / np.hypot(
        near["parallax_error"], near["distance_error"] / near["distance"] ** 2
    )
    assert np.median(np.abs(np.asarray(pull))) < 1.5 and np.all(near["distance_error"] > 0)
