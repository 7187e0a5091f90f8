"""Reading catalogues: what comes out, what is dropped and counted, and one clear line for what cannot be used."""

import dataclasses

import astropy.units as u
import jax
import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from otibayes.base.errors import InputError
from otibayes.stars import Stars, embedded_stars, read_stars, write_table
from otibayes.stars.table import META_KEY

N = 40


def good_table() -> Table:
    rng = np.random.default_rng(1)
    return Table(
        {
            "ra": rng.uniform(0, 360, N),
            "dec": rng.uniform(-80, 80, N),
            "parallax": rng.uniform(0.5, 3, N),
            "parallax_error": np.full(N, 0.02),
            "pmra": rng.normal(0, 5, N),
            "pmdec": rng.normal(0, 5, N),
            "radial_velocity": rng.normal(0, 30, N),
            "FE_H": rng.normal(0, 0.2, N),
            "FE_H_ERR": np.full(N, 0.01),
            "MG_FE": rng.normal(0, 0.1, N),
        }
    )


def read(table, tmp_path, name="stars.ecsv", **options) -> Stars:
    path = tmp_path / name
    table.write(path, overwrite=True)
    return read_stars(path, **options)


@pytest.mark.parametrize("name", ["stars.fits", "stars.ecsv", "stars.csv", "stars.parquet"])
def test_every_format_gives_the_same_stars(tmp_path, name):
    table = good_table()
    stars = read(table, tmp_path, name)
    assert len(stars) == N and list(stars.abundances) == ["FE_H", "MG_FE"] and list(stars.errors) == ["FE_H"]
    np.testing.assert_allclose(stars.distance, 1 / table["parallax"], rtol=1e-14)
    np.testing.assert_allclose(stars.astrometric_errors["distance"], 0.02 / table["parallax"] ** 2, rtol=1e-14)
    np.testing.assert_array_equal(stars.row, np.arange(N))
    assert stars.provenance.rows == N and stars.provenance.source == name and len(stars.provenance.sha256) == 64
    assert "MG_FE has no error column; intrinsic scatter absorbs it" in stars.provenance.notes


def test_units_are_honoured_and_documented_ones_assumed(tmp_path):
    plain, table = good_table(), good_table()
    table["parallax"] = (plain["parallax"] * u.mas).to(u.arcsec)
    table["ra"] = (plain["ra"] * u.deg).to(u.rad)
    table["radial_velocity"] = (plain["radial_velocity"] * u.km / u.s).to(u.m / u.s)
    with_units, without = read(table, tmp_path, "a.ecsv"), read(plain, tmp_path, "b.ecsv")
    for name in ("ra", "distance", "radial_velocity"):
        np.testing.assert_allclose(getattr(with_units, name), getattr(without, name), rtol=1e-12)


def test_distance_in_place_of_a_parallax(tmp_path):
    table = good_table()
    table["distance"] = 1000 / table["parallax"] * u.pc
    table["distance"].name = "dist"
    table.remove_column("parallax")
    stars = read(table, tmp_path, columns={"distance": "dist"})
    np.testing.assert_allclose(stars.distance, good_table()["parallax"] ** -1.0, rtol=1e-14)
    assert stars.provenance.settings == (("column distance", "dist"),)
    with pytest.raises(InputError, match="a parallax zero point of -0.05 mas is given, but there are only distances"):
        read_stars(tmp_path / "stars.ecsv", columns={"distance": "dist"}, parallax_zero_point=-0.05)


def test_what_distances_come_from_is_said_where_there_is_a_choice(tmp_path):
    table = good_table()
    table["distance"] = np.linspace(0.5, 1.5, N)
    stars = read(table, tmp_path)
    np.testing.assert_array_equal(stars.distance, table["distance"])
    assert any("distances are the column distance; parallax is not used" in note for note in stars.provenance.notes)
    for options in ({"columns": {"parallax": "parallax"}}, {"parallax_zero_point": -0.05}):
        stars = read_stars(tmp_path / "stars.ecsv", **options)
        shift = options.get("parallax_zero_point", 0.0)
        np.testing.assert_allclose(stars.distance, 1 / (table["parallax"] - shift), rtol=1e-14)
        assert any("distance is not used" in note for note in stars.provenance.notes)


@pytest.mark.parametrize("zero_point", [-17.0, 1.5, np.nan])
def test_a_zero_point_beyond_one_mas_is_refused(tmp_path, zero_point):
    with pytest.raises(InputError, match="it must lie within 1 mas"):
        read(good_table(), tmp_path, parallax_zero_point=zero_point)
    stars = read_stars(tmp_path / "stars.ecsv", parallax_zero_point=-17 * u.uas)
    np.testing.assert_allclose(stars.distance, 1 / (good_table()["parallax"] + 0.017), rtol=1e-14)


def test_the_zero_point_has_gaias_sign(tmp_path):
    stars = read(good_table(), tmp_path, parallax_zero_point=-0.05)
    np.testing.assert_allclose(stars.distance, 1 / (good_table()["parallax"] + 0.05), rtol=1e-14)
    assert ("parallax_zero_point", -0.05) in stars.provenance.settings


def test_dropped_rows_are_counted_once_each_by_their_first_reason(tmp_path):
    table = good_table()
    table["ra"][0] = np.nan
    table["parallax"][:2] = -1.0, np.inf  # row 0 counts under ra
    table["parallax"][2:4] = 0.0, -0.3
    table["pmra"] = MaskedColumn(table["pmra"], mask=np.arange(N) == 4)
    stars = read(table, tmp_path, "stars.fits")
    expected = (("ra missing", 1), ("parallax missing", 1), ("pmra missing", 1), ("parallax <= 0", 2))
    assert stars.provenance.dropped == expected
    np.testing.assert_array_equal(stars.row, np.arange(5, N))


def test_missing_abundances_are_nan_and_with_elements_drops_them(tmp_path):
    table = good_table()
    table["FE_H"][:3] = np.nan, -9999.0, 0.1
    table["FE_H_ERR"][2] = -9999.0
    table["FE_H"][3] = 9.999
    table["MG_FE"][[0, 5]] = np.nan
    stars = read(table, tmp_path)
    assert len(stars) == N and np.isnan(stars.abundances["FE_H"][[0, 1, 3]]).all()
    assert stars.abundances["FE_H"][2] == 0.1 and np.isnan(stars.errors["FE_H"][:4]).all()
    assert "FE_H: 1 values missing: fill values" in stars.provenance.notes
    assert "FE_H: 1 values missing: beyond 5 dex" in stars.provenance.notes
    expected = "FE_H: 1 of 37 values have no usable error (zero, negative or missing)"
    assert expected in stars.provenance.notes
    both = stars.with_elements(["FE_H", "MG_FE"])
    assert both.provenance.dropped == (("FE_H missing", 3), ("MG_FE missing", 1)) and len(both) == N - 4
    assert list(stars.with_elements(["MG_FE"]).abundances) == ["MG_FE"]
    assert list(stars.with_elements(["MG_FE", "FE_H"])[:9].abundances) == ["MG_FE", "FE_H"]


def test_stars_are_a_pytree_that_can_be_indexed_and_jitted(tmp_path):
    stars = read(good_table(), tmp_path)
    picked = stars[stars.distance < 1.0]
    assert len(picked) == np.sum(stars.distance < 1.0) and picked.provenance is stars.provenance
    assert len(stars[3]) == 1 and len(stars[2:7]) == 5 and len(stars[[1, -1]]) == 2
    compiled = jax.jit(lambda s: s.heliocentric)(stars)
    np.testing.assert_allclose(compiled, stars.heliocentric, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(stars.heliocentric[:, :3], axis=1), stars.distance, rtol=1e-12)
    assert hash(stars.provenance) and dataclasses.asdict(stars.provenance)["rows"] == N


def test_embedded_stars_carry_their_truth():
    stars = embedded_stars()
    assert dict(stars.provenance.truth) == {"m_disk": 1.1, "h_z": 0.32, "z_sun": 15.0, "vz_sun": 8.5}
    assert len(stars) == 4000 and set(stars.abundances) == set(stars.errors) == {"MG_FE", "FE_H"}
    assert stars.provenance.dropped == () and stars.provenance.notes == ()


def without(*names):
    table = good_table()
    table.remove_columns(names)
    return table


def changed(**values):
    table = good_table()
    for name, value in values.items():
        table[name] = value
    return table


BAD_TABLES = {
    "velocities absent": (without("radial_velocity"), {}, "no column radial_velocity"),
    "similar column": (
        (lambda t: t.rename_column("radial_velocity", "rv") or t)(good_table()),
        {},
        "similar columns: rv; map one",
    ),
    "near miss": ((lambda t: t.rename_column("pmra", "PM_RA") or t)(good_table()), {}, "similar columns: PM_RA"),
    "mapped to nothing": (good_table(), {"columns": {"pmra": "PMRAA"}}, "no column PMRAA .given for pmra.*pmra"),
    "unknown element": (good_table(), {"elements": ["MG_FA"]}, "no column MG_FA; similar columns: MG_FE"),
    "element all masked": (changed(MG_FE=np.nan), {"elements": ["MG_FE"]}, "MG_FE has no usable value in any of 40"),
    "all velocities masked": (changed(radial_velocity=np.nan), {}, "none of its 40 .* 40 with radial_velocity missing"),
    "all velocities filled": (changed(radial_velocity=-999.0), {}, "none .* 40 with radial_velocity is a fill value"),
    "all parallaxes negative": (changed(parallax=-1.0), {}, "none of its 40 rows .* 40 with parallax <= 0"),
    "parallax in arcsec": (changed(parallax=0.001), {}, "median parallax is 0.001 .* looks like arcsec"),
    "distance in pc": (changed(distance=800.0), {}, "median distance is 800 kpc: it looks like pc"),
    "parallax in microarcsec": (changed(parallax=800.0), {}, "median parallax is 800 mas: it looks like microarcsec"),
    "distance in Mpc": (changed(distance=8e-4), {}, "median distance is 0.0008 kpc: it looks like Mpc"),
    "proper motion in arcsec": (changed(pmra=0.004, pmdec=0.003), {}, "proper motion is .* looks like arcsec/yr"),
    "proper motion in microarcsec": (changed(pmra=8e3), {}, "proper motion is .* looks like microarcsec/yr"),
    "velocity in m/s": (changed(radial_velocity=2.5e4), {}, r"2.5e\+04 km/s: it looks like m/s"),
    "declination outside": (changed(dec=120.0), {}, "ra or dec lie outside the sphere"),
    "wrong unit": (changed(pmra=np.ones(N) * u.km), {}, "column pmra: its unit 'km' cannot be converted to mas / yr"),
    "text": (changed(pmra=["fast"] * N), {}, "column pmra: holds text, 'fast' in row 0, where numbers are needed"),
    "a vector column": (changed(pmra=np.ones((N, 3))), {"name": "t.fits"}, r"column pmra: has shape \(40, 3\)"),
    "empty": (good_table()[:0], {}, "the table is empty"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_give_one_clear_line(tmp_path, case):
    table, options, message = BAD_TABLES[case]
    with pytest.raises(InputError, match=message) as raised:
        read(table, tmp_path, **options)
    assert "\n" not in str(raised.value)


def test_bad_files_give_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_stars(tmp_path / "absent.fits")
    with pytest.raises(InputError, match="is a folder"):
        read_stars(tmp_path)
    for name, message in [
        ("a.fits", "cannot be read as fits"),
        ("a.parquet", "cannot be read"),
        ("a.doc", "suffix"),
        ("a.txt", "suffix"),
    ]:
        (tmp_path / name).write_bytes(b"not a table\n" * 400)
        with pytest.raises(InputError, match=message) as raised:
            read_stars(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("missing", [1, 1000, 5000])
def test_truncated_fits_is_refused(tmp_path, missing):
    path = tmp_path / "stars.fits"
    good_table().write(path)
    whole = path.read_bytes()
    data = whole.rstrip(b"\0")  # without padding, which nobody needs
    path.write_bytes(data)
    assert len(read_stars(path)) == N
    path.write_bytes(data[:-missing])
    with pytest.raises(InputError, match="cannot be read as fits") as raised:
        read_stars(path)
    assert "\n" not in str(raised.value)


def test_errors_of_with_elements(tmp_path):
    stars = read(changed(MG_FE=np.where(np.arange(N) < 20, np.nan, 0.0)), tmp_path)
    with pytest.raises(InputError, match="element MGFE is not in the catalogue; found: MG_FE"):
        stars.with_elements(["MGFE"])
    half = stars[:20]
    with pytest.raises(InputError, match="no star has all of FE_H, MG_FE: 20 with MG_FE missing"):
        half.with_elements(["FE_H", "MG_FE"])


def test_odd_rows_are_told(tmp_path):
    table = good_table()
    table["ra"][1], table["dec"][1] = table["ra"][0], table["dec"][0]
    table["parallax"][2], table["radial_velocity"][3], table["pmra"][4] = 500.0, 2000.0, 4000.0
    table["source_id"] = np.arange(N)
    table["source_id"][9] = 8
    table["ref_epoch"] = 2015.5
    table["ref_epoch"][5] = 2016.0
    notes = read(table, tmp_path).provenance.notes
    for text in (
        "1 rows repeat the position",
        "1 rows repeat the source_id",
        "1 rows are nearer than 10 pc",
        "1 rows have |radial_velocity| > 1000 km/s",
        "1 rows move across the sky at > 1000 km/s",
        "2 epochs (2015.5 to 2016)",
    ):
        assert any(text in note for note in notes)


def test_nothing_is_told_of_good_stars_and_few_may_stand_still(tmp_path):
    assert read(good_table(), tmp_path).provenance.notes == (
        "MG_FE has no error column; intrinsic scatter absorbs it",
        "elements, by the names of the columns: FE_H, MG_FE",
    )
    still = good_table()[:5]
    still["pmra"] = still["pmdec"] = 0.0
    assert len(read(still, tmp_path, "still.fits")) == 5


@pytest.mark.parametrize("name", ["t.fits", "t.ecsv", "t.parquet"])
def test_metadata_survive_writing(tmp_path, name):
    table = good_table()
    table.meta[META_KEY] = '{"truth": {"m_disk": 1.1}, "long": "' + "x y" * 60 + '"}'
    write_table(table, tmp_path / name)
    assert read_stars(tmp_path / name).provenance.truth == (("m_disk", 1.1),)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_write_table_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        write_table(good_table(), tmp_path / "absent" / "t.fits")
    with pytest.raises(InputError, match=r"suffix '\.xyz' is not understood"):
        write_table(good_table(), tmp_path / "t.xyz")


def test_kepler_stars_agree_with_their_published_positions(shared_data):
    path = shared_data / "kepler_apokasc2_gaiadr2.fits"
    columns = {"radial_velocity": "rv", "MG_FE_ERR": "MG_H_ERR"}
    stars = read_stars(path, columns, ["MG_FE", "FE_H", "ALPHA_FE"], parallax_zero_point=-0.05)
    assert set(stars.errors) == {"MG_FE", "FE_H", "ALPHA_FE"}
    assert len(stars) + sum(count for _, count in stars.provenance.dropped) == stars.provenance.rows == 4376
    expected = Table.read(path)["dist"][stars.row]
    np.testing.assert_allclose(stars.distance, expected, rtol=1e-5)
