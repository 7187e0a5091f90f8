"""Surveys by their documented columns: GALAH, SDSS-V, APOGEE DR16; joins, distances, and what is odd about either."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from otibayes.base.errors import InputError
from otibayes.stars import read_stars, select, write_table
from otibayes.stars.recipes import book
from otibayes.stars.table import open_table

N = 1500
POLYGON = [(0.6, -0.05), (0.6, 0.04), (0.15, 0.04), (-0.5, 0.13), (-0.9, 0.13), (-1.0, 0.07), (-0.2, -0.1), (0.2, -0.1)]


def inside(x, y) -> bool:
    crossings = 0
    for (x0, y0), (x1, y1) in zip(POLYGON, POLYGON[1:] + POLYGON[:1], strict=True):
        if min(y0, y1) <= y < max(y0, y1) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossings += 1
    return crossings % 2 == 1


def giant(row, *, parallax="parallax", error="parallax_error") -> bool:
    """The cuts that all recipes share, one star at a time, without any of our code."""
    good = 3500 < row["teff"] < 6500 and 1.5 < row["logg"] < 3.4
    return bool(good and row[parallax] > 0.5 and row[parallax] / row[error] > 8)


def best_of(rows, identifier, snr) -> list[int]:
    best = {}
    for i, row in rows:
        if row[identifier] not in best or row[snr] > best[row[identifier]][1]:
            best[row[identifier]] = (i, row[snr])
    return sorted(i for i, _ in best.values())


def spectra(rng, parallax="parallax", error="parallax_error", pmdec="pmdec") -> Table:
    table = Table({"teff": rng.uniform(3300, 6800, N), "logg": rng.uniform(1.2, 3.7, N)})
    table[parallax], table[error] = rng.uniform(0.2, 3, N), rng.uniform(0.01, 0.2, N)
    for name in ("pmra", pmdec):
        table[name] = rng.normal(0, 10, N)
    return table


def flag(rng, share=0.1) -> np.ndarray:
    return (1 << rng.integers(0, 15, N)) * (rng.uniform(size=N) < share)


@pytest.fixture(scope="module")
def galah_dr4(tmp_path_factory):
    """galah_dr4_allstar and its value-added catalogue of Gaia, by the columns of galah-survey.org/dr4/table_schema."""
    rng, folder = np.random.default_rng(4), tmp_path_factory.mktemp("dr4")
    spectrum = spectra(rng)
    star = Table(
        {"sobject_id": rng.permutation(N) + 131116000501001, "tmass_id": [f"{i:08d}+0000000" for i in range(N)]}
    )
    star["tmass_id"][:60] = star["tmass_id"][60:120]
    star["gaiadr3_source_id"] = rng.permutation(N) + 2**61
    for name in ("teff", "logg"):
        star[name] = spectrum[name]
    for name, span in {"ra": (0, 360), "dec": (-80, 10), "rv_comp_1": (-50, 50), "snr_px_ccd3": (10, 200)}.items():
        star[name] = rng.uniform(*span, N)
    star["e_rv_comp_1"] = 0.1
    star["fe_h"], star["mg_fe"], star["si_fe"] = (
        rng.uniform(-0.9, 0.5, N),
        rng.uniform(-0.1, 0.15, N),
        rng.normal(0, 0.1, N),
    )
    for name in ("fe_h", "mg_fe", "si_fe"):
        star[f"e_{name}"] = 0.03
    star["flag_sp"], star["flag_mg_fe"], star["flag_si_fe"] = flag(rng), flag(rng), flag(rng, 0.3)
    star["flag_fe_h"] = 1  # of no meaning in DR4
    star["parallax"], star["parallax_error"] = -9.0, 1.0  # to be replaced by those of the joined table
    star.write(folder / "galah_dr4_allstar_240705.fits")
    gaia = Table({"sobject_id": star["sobject_id"], "source_id": star["gaiadr3_source_id"]})
    gaia["ra"], gaia["dec"], gaia["radial_velocity"] = star["ra"] + 1e-6, star["dec"], 999.0
    for name in ("parallax", "parallax_error", "pmra", "pmdec"):
        gaia[name] = spectrum[name]
    gaia["pmra_error"], gaia["pmdec_error"] = 0.02, 0.02
    gaia["r_med_photogeo"] = 980 / gaia["parallax"]
    gaia["r_lo_photogeo"], gaia["r_hi_photogeo"] = gaia["r_med_photogeo"] - 20, gaia["r_med_photogeo"] + 40
    gaia = gaia[rng.permutation(N)]
    gaia.write(folder / "galah_dr4_vac_wise_tmass_gaiadr3_240705.fits")
    gaia.sort("source_id")
    star = star[np.argsort(star["gaiadr3_source_id"])]
    star["parallax"], star["parallax_error"] = gaia["parallax"], gaia["parallax_error"]
    return folder, star


def test_galah_dr4_with_its_gaia_catalogue(galah_dr4):
    folder, star = galah_dr4
    gaia = folder / "galah_dr4_vac_wise_tmass_gaiadr3_240705.fits"
    chosen, flow = select(folder / "galah_dr4_allstar_240705.fits", "galah-dr4-low-alpha", gaia=gaia)
    good = [
        (i, row)
        for i, row in enumerate(star)
        if row["flag_sp"] == row["flag_mg_fe"] == 0 and row["snr_px_ccd3"] > 30 and giant(row)
        if inside(row["fe_h"], row["mg_fe"])
    ]
    expected = star[best_of(good, "tmass_id", "snr_px_ccd3")]
    assert 20 < len(expected) < len(good) and flow.survey == "galah-dr4" and flow.rows == N and not flow.warnings
    assert sorted(chosen["parallax"]) == sorted(expected["parallax"])
    assert not np.any(chosen["radial_velocity"] == 999.0)  # GALAH's own velocities, Gaia's astrometry
    by_parallax, expected = chosen[np.argsort(chosen["parallax"])], expected[np.argsort(expected["parallax"])]
    np.testing.assert_allclose(by_parallax["ra"], expected["ra"] + 1e-6, rtol=1e-15)
    np.testing.assert_array_equal(np.isnan(by_parallax["SI_FE"]), expected["flag_si_fe"] > 0)
    assert np.isfinite(chosen["FE_H"]).all() and not np.isnan(chosen["MG_FE"]).any()


@pytest.mark.parametrize("on", ["gaiadr3_source_id=source_id", "sobject_id", None])
def test_joined_by_any_of_its_identifiers_the_stars_are_the_same(galah_dr4, on):
    folder, _ = galah_dr4
    star, gaia = folder / "galah_dr4_allstar_240705.fits", folder / "galah_dr4_vac_wise_tmass_gaiadr3_240705.fits"
    expected, _ = select(star, "galah-dr4-low-alpha", gaia=gaia)
    chosen, _ = select(star, "galah-dr4-low-alpha", gaia=gaia, on=on)
    np.testing.assert_array_equal(chosen["parallax"], expected["parallax"])


def test_distances_of_another_maker_and_their_errors(galah_dr4, tmp_path):
    folder, _ = galah_dr4
    gaia = folder / "galah_dr4_vac_wise_tmass_gaiadr3_240705.fits"
    chosen, _ = select(folder / "galah_dr4_allstar_240705.fits", "galah-dr4-low-alpha", gaia=gaia, distance="photogeo")
    write_table(chosen, tmp_path / "stars.fits")
    stars = read_stars(tmp_path / "stars.fits")
    np.testing.assert_allclose(stars.distance, 0.98 / chosen["parallax"], rtol=1e-12)  # pc became kpc
    np.testing.assert_allclose(stars.astrometric_errors["distance"], 0.03, rtol=1e-12)  # half of 16% to 84%
    with pytest.raises(InputError, match="no distance hipparcos; choose from photogeo"):
        select(folder / "galah_dr4_allstar_240705.fits", "galah-dr4-low-alpha", gaia=gaia, distance="hipparcos")
    with pytest.raises(InputError, match=r"distance starhorse needs a column dist50, .*table to be joined"):
        select(folder / "galah_dr4_allstar_240705.fits", "galah-dr4-low-alpha", gaia=gaia, distance="starhorse")
    assert {"photogeo", "starhorse", "astronn"} <= set(book()["distance"])


def test_galah_dr3(tmp_path):
    """By the columns of galah-survey.org/dr3/table_schema, in its mixed case, with Gaia's joined already."""
    rng = np.random.default_rng(3)
    table = spectra(rng)
    table["sobject_id"], table["star_id"] = np.arange(N), [f"{i // 2:08d}+0000000" for i in range(N)]
    for name, span in {
        "ra_dr2": (0, 360),
        "dec_dr2": (-80, 10),
        "rv_galah": (-50, 50),
        "snr_c3_iraf": (10, 200),
    }.items():
        table[name] = rng.uniform(*span, N)
    for name in ("e_rv_galah", "pmra_error", "pmdec_error", "e_fe_h", "e_alpha_fe", "e_Mg_fe", "e_Ba_fe"):
        table[name] = 0.05
    table["fe_h"], table["alpha_fe"] = rng.uniform(-0.9, 0.5, N), rng.uniform(-0.1, 0.15, N)
    table["Mg_fe"], table["Ba_fe"] = rng.normal(0, 0.1, N), rng.normal(0, 0.2, N)
    for name in ("flag_sp", "flag_fe_h", "flag_alpha_fe", "flag_Mg_fe", "flag_Ba_fe"):
        table[name] = flag(rng)
    write_table(table, tmp_path / "GALAH_DR3.fits")
    chosen, flow = select(tmp_path / "GALAH_DR3.fits", "galah-dr3-low-alpha")
    good = [
        (i, row)
        for i, row in enumerate(table)
        if row["flag_sp"] == row["flag_fe_h"] == row["flag_alpha_fe"] == 0 and row["snr_c3_iraf"] > 30 and giant(row)
        if inside(row["fe_h"], row["alpha_fe"])
    ]
    expected = table[best_of(good, "star_id", "snr_c3_iraf")]
    assert 20 < len(chosen) == flow.steps[-1].left
    np.testing.assert_array_equal(chosen["ra"], expected["ra_dr2"])
    np.testing.assert_array_equal(np.isnan(chosen["BA_FE"]), expected["flag_Ba_fe"] > 0)
    assert {"MG_FE_ERR", "BA_FE_ERR", "ALPHA_FE"} <= set(chosen.colnames)


@pytest.fixture(scope="module")
def astra(tmp_path_factory):
    """astraAllStarASPCAP by the SDSS datamodel: an empty table for BOSS first, APOGEE's stars in the second; packed."""
    rng, folder = np.random.default_rng(5), tmp_path_factory.mktemp("astra")
    table = spectra(rng, "plx", "e_plx", "pmde")
    table["sdss_id"], table["gaia_dr3_source_id"] = np.arange(N) // 2 + 54000000, np.arange(N) // 2 + 2**60
    table["sdss4_apogee_id"] = "2M00000000+0000000"
    for name, span in {"ra": (0, 360), "dec": (-80, 80), "v_rad": (-50, 50), "snr": (5, 200)}.items():
        table[name] = rng.uniform(*span, N)
    for name in ("e_pmra", "e_pmde", "e_v_rad", "e_fe_h", "e_mg_h", "e_m_h_atm", "e_alpha_m_atm"):
        table[name] = 0.02
    table["m_h_atm"], table["alpha_m_atm"] = rng.uniform(-0.9, 0.5, N), rng.uniform(-0.1, 0.15, N)
    table["fe_h"], table["mg_h"] = table["m_h_atm"] + 0.01, table["m_h_atm"] + table["alpha_m_atm"]
    table["fe_h_flags"], table["mg_h_flags"] = 0, flag(rng, 0.2)
    table["flag_bad"], table["flag_warn"] = rng.uniform(size=N) < 0.1, rng.uniform(size=N) < 0.2
    for name in ("apogee_target1", "apogee_target2", "apogee2_target1", "apogee2_target2", "apogee2_target3"):
        table[f"sdss4_{name}_flags"] = np.where(rng.uniform(size=N) < 0.1, 1 << 9, 0)
    second = fits.table_to_hdu(table)
    first = fits.BinTableHDU.from_columns(second.columns, nrows=0)
    fits.HDUList([fits.PrimaryHDU(), first, second]).writeto(folder / "astraAllStarASPCAP-0.6.0.fits")
    packed = folder / "astraAllStarASPCAP-0.6.0.fits.gz"
    with (folder / "astraAllStarASPCAP-0.6.0.fits").open("rb") as plain, gzip.open(packed, "wb") as file:
        shutil.copyfileobj(plain, file)
    return packed, table


def test_sdss_v_as_published(astra, tmp_path):
    packed, table = astra
    chosen, flow = select(packed, "sdss-v-low-alpha")
    good = [
        (i, row)
        for i, row in enumerate(table)
        if not row["flag_bad"] and not row["flag_warn"] and row["snr"] > 20
        # Of the recipe's bits the ninth is set in the first target lists of APOGEE and APOGEE-2 alone.
        if row["sdss4_apogee_target1_flags"] == row["sdss4_apogee2_target1_flags"] == 0
        if giant(row, parallax="plx", error="e_plx") and inside(row["m_h_atm"], row["alpha_m_atm"])
    ]
    expected = table[best_of(good, "sdss_id", "snr")]
    assert 20 < len(chosen) < len(good) and flow.survey == "sdss-v"
    np.testing.assert_array_equal(chosen["parallax"], expected["plx"])
    np.testing.assert_array_equal(np.isnan(chosen["MG_H"]), expected["mg_h_flags"] > 0)
    write_table(chosen, tmp_path / "stars.fits")
    stars = read_stars(tmp_path / "stars.fits", elements=["FE_H", "MG_H", "M_H", "ALPHA_M"])
    assert set(stars.errors) == set(stars.abundances)
    np.testing.assert_allclose(stars.pmdec, expected["pmde"])


def test_high_alpha_is_the_complement_above(galah_dr4, astra):
    folder, _ = galah_dr4
    gaia = folder / "galah_dr4_vac_wise_tmass_gaiadr3_240705.fits"
    for path, survey, beside in (
        (folder / "galah_dr4_allstar_240705.fits", "galah-dr4", {"gaia": gaia}),
        (astra[0], "sdss-v", {}),
    ):
        low, high = (select(path, f"{survey}-{side}-alpha", **beside)[0]["parallax"] for side in ("low", "high"))
        assert len(high) > 5 and not set(low) & set(high)


def test_a_table_after_an_empty_one_packed_or_not(astra):
    packed, table = astra
    for path in (packed, packed.with_suffix("")):
        part = open_table(path)[0]
        assert part.names == table.colnames
        np.testing.assert_array_equal(part.read(["snr"])["snr"], table["snr"])
    (packed.parent / "cut.fits.gz").write_bytes(packed.read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"cut\.fits\.gz: cannot be") as raised:
        open_table(packed.parent / "cut.fits.gz")
    assert "\n" not in str(raised.value)


def apogee(rng, n, gaia="GAIA") -> Table:
    table = Table({"APOGEE_ID": [f"2M{i:08d}+0000000" for i in range(n)], f"{gaia}_SOURCE_ID": np.arange(n) + 2**60})
    for name in (
        "ASPCAPFLAG",
        "APOGEE_TARGET1",
        "APOGEE_TARGET2",
        "APOGEE2_TARGET1",
        "APOGEE2_TARGET2",
        "APOGEE2_TARGET3",
    ):
        table[name] = 0
    for name, value in {"TEFF": 4800.0, "LOGG": 2.5, "SNR": 100.0, "M_H": 0.0, "ALPHA_M": 0.0, "VERR": 0.02}.items():
        table[name] = value
    for name, span in {"RA": (0, 360), "DEC": (-80, 80), "VHELIO_AVG": (-50, 50)}.items():
        table[name] = rng.uniform(*span, n)
    table[f"{gaia}_PARALLAX"], table[f"{gaia}_PARALLAX_ERROR"] = rng.uniform(0.6, 3, n), 0.03
    for name in ("PMRA", "PMDEC"):
        table[f"{gaia}_{name}"], table[f"{gaia}_{name}_ERROR"] = rng.normal(0, 10, n), 0.03
    table["FE_H"], table["FE_H_ERR"] = rng.normal(0, 0.1, n), 0.01
    return table


def test_apogee_dr16_is_told_from_dr17_by_its_columns(tmp_path):
    rng = np.random.default_rng(1)
    for gaia, survey in (("GAIA", "apogee-dr16"), ("GAIAEDR3", "apogee-dr17")):
        table = apogee(rng, 30, gaia)
        table.write(tmp_path / f"{survey}.fits")
        chosen, flow = select(tmp_path / f"{survey}.fits", "pw21-low-alpha")
        assert flow.survey == survey and len(chosen) == 30
        np.testing.assert_array_equal(chosen["pmdec"], table[f"{gaia}_PMDEC"])


def test_gaia_dr3_takes_the_place_of_dr2_in_dr16(tmp_path):
    rng = np.random.default_rng(1)
    survey = apogee(rng, 30)
    survey.write(tmp_path / "allStar.fits")
    gaia = Table({"source_id": survey["GAIA_SOURCE_ID"][::-1]})
    for name in ("ra", "dec", "parallax", "parallax_error", "pmra", "pmra_error", "pmdec", "pmdec_error"):
        gaia[name] = survey[name.upper() if name in ("ra", "dec") else f"GAIA_{name.upper()}"][::-1]
    gaia["parallax"] += 0.02
    gaia["ref_epoch"] = 2016.0
    gaia.write(tmp_path / "gaia.parquet")
    chosen, flow = select(tmp_path / "allStar.fits", "pw21-low-alpha", gaia=tmp_path / "gaia.parquet")
    assert flow.survey == "apogee-dr16" and not flow.warnings
    np.testing.assert_allclose(chosen["parallax"], survey["GAIA_PARALLAX"] + 0.02)
    assert np.all(chosen["ref_epoch"] == 2016.0)


def test_bailer_jones_distances_inside_dr16(tmp_path):
    table = apogee(np.random.default_rng(1), 30)
    table["GAIA_R_EST"], table["GAIA_R_LO"], table["GAIA_R_HI"] = 900.0, 880.0, 930.0
    table.write(tmp_path / "allStar.fits")
    chosen, _ = select(tmp_path / "allStar.fits", "pw21-low-alpha", distance="bailer-jones-dr2")
    assert np.allclose(chosen["distance"], 0.9) and np.allclose(chosen["distance_error"], 0.025)
    assert str(chosen["distance"].unit) == "kpc"


def test_joined_by_2mass_with_and_without_prefix_and_told_of_what_is_odd(tmp_path):
    rng = np.random.default_rng(2)
    survey = apogee(rng, 40)
    survey["APOGEE_ID"][0] = ""  # not a star without name that matches another
    survey.write(tmp_path / "allStar.fits")
    other = Table({"original_ext_source_id": [str(name)[2:] for name in survey["APOGEE_ID"][:35]]})
    other["weighted_dist"], other["weighted_dist_error"] = rng.uniform(500, 1500, 35), 30.0
    other = other[np.r_[np.arange(35), 7]]  # one twice
    other["weighted_dist"][-1] = 1.0
    other.write(tmp_path / "other.fits")
    chosen, flow = select(tmp_path / "allStar.fits", "pw21-low-alpha", gaia=tmp_path / "other.fits", distance="astronn")
    assert "6 of 40 rows have no match in other.fits (APOGEE_ID=original_ext_source_id)" in flow.warnings
    assert "other.fits repeats original_ext_source_id in 1 rows: the first of each is used" in flow.warnings
    matched = np.isin(chosen["APOGEE_ID"], survey["APOGEE_ID"][1:35])
    np.testing.assert_allclose(chosen["distance"][matched], other["weighted_dist"][1:35] / 1000)
    assert np.isnan(chosen["distance"][~matched]).all()
    write_table(chosen, tmp_path / "stars.fits")
    stars = read_stars(tmp_path / "stars.fits")
    assert len(stars) == 34 and ("distance missing", 6) in stars.provenance.dropped
    assert any("no match in other.fits" in note for note in stars.provenance.notes)


def test_joins_that_cannot_be_made(tmp_path):
    rng = np.random.default_rng(2)
    apogee(rng, 40).write(tmp_path / "allStar.fits")

    def joined(table, message, **options):
        table.write(tmp_path / "other.fits", overwrite=True)
        with pytest.raises(InputError, match=message) as raised:
            select(tmp_path / "allStar.fits", "pw21-low-alpha", gaia=tmp_path / "other.fits", **options)
        assert "\n" not in str(raised.value)

    parallax = np.ones(3)
    joined(
        Table({"name": ["a", "b", "c"], "parallax": parallax}), "cannot be joined with allStar.fits by any of APOGEE_ID"
    )
    joined(Table({"source_id": np.arange(3) + 2.0**60, "parallax": parallax}), "floating-point number")
    joined(
        Table({"APOGEE_ID": ["a", "b", "c"], "parallax": parallax}),
        "none of its APOGEE_ID=APOGEE_ID is in allStar.fits",
    )
    joined(
        Table({"source_id": [1, 2, 3]}), "no column source to join on; similar: source_id", on="GAIA_SOURCE_ID=source"
    )


def test_missing_identifiers_match_nothing(tmp_path):
    rng = np.random.default_rng(2)
    survey = apogee(rng, 20)
    survey["GAIA_SOURCE_ID"] = MaskedColumn(survey["GAIA_SOURCE_ID"], mask=np.arange(20) < 5)
    survey["GAIA_SOURCE_ID"][5:7] = [0, -1]
    survey.write(tmp_path / "allStar.fits")
    gaia = Table({"source_id": [*np.asarray(survey["GAIA_SOURCE_ID"].data[5:]), 0], "parallax": np.full(16, 2.0)})
    gaia.write(tmp_path / "gaia.fits")
    chosen, flow = select(tmp_path / "allStar.fits", "pw21-low-alpha", gaia=tmp_path / "gaia.fits")
    assert len(chosen) == 13 and any("7 of 20 rows have no match" in warning for warning in flow.warnings)


def test_a_star_there_twice_is_told(tmp_path):
    survey = apogee(np.random.default_rng(2), 20)
    survey["APOGEE_ID"][3] = survey["APOGEE_ID"][4]
    survey.write(tmp_path / "allStar.fits")
    chosen, flow = select(tmp_path / "allStar.fits", "pw21-low-alpha", {"one-per-star": "off"})
    assert flow.warnings == ("1 of the rows left repeat the APOGEE_ID of another",) and len(chosen) == 20
