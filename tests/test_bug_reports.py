"""Inputs that once went wrong, each after a public report of a user of another tool: one test for each kind.

The tables in data/bugs are synthetic. What a test of a kind tries besides the table that was reported are its siblings:
other columns, fill values and formats.
"""

import gzip
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.time import Time
from click.testing import CliRunner

import otibayes as oti
from otibayes.base.errors import InputError
from otibayes.cli import main
from otibayes.cli.options import stars_used
from otibayes.dynamics import MILKY_WAY, Status
from otibayes.results.schema import as_tree

BUGS = Path(__file__).parent / "data" / "bugs"
SKY = ("ra", "dec", "parallax", "pmra", "pmdec", "radial_velocity")
QUICK = ["--bootstraps", "2", "--neighbours", "24", "--bins", "0", "--delta", "4"]
SHORT = ["--no-surface", "--chains", "2", "--warmup", "5", "--draws", "5", "--basis-size", "8", "--delta", "4"]
FILLS = [
    -9999.0,
    -9999.99,
    9999.0,
    9999.99,
    99999.0,
    999999.0,
    -999.0,
    999.0,
    -99.0,
    99.99,
    1e20,
    -1e30,
    np.inf,
    np.nan,
]


def run(*arguments, code=0):
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    if code == 2:
        assert done.stderr.startswith("Error: ") and len(done.stderr.splitlines()) == 1, done.stderr
    return done.output


def dropped(stars):
    return dict(stars.provenance.dropped)


def told(stars, text):
    return any(text in note for note in stars.provenance.notes)


@pytest.fixture
def table():
    """150 good stars."""
    return Table.read(BUGS / "r00.fits")


@pytest.fixture
def read(tmp_path):
    """A table, written in a format and read again."""

    def read(table, suffix=".fits", **options):
        table.write(tmp_path / f"stars{suffix}", overwrite=True)
        return oti.read_stars(tmp_path / f"stars{suffix}", **options)

    return read


def test_01_every_star_left_out_is_counted(tmp_path, table):
    stars = oti.read_stars(BUGS / "r03_rv999.fits")
    assert dropped(stars) == {"radial_velocity is a fill value": 8} and told(stars, "8 of 150 rows dropped")
    # too fast to be bound, and without an element
    table["radial_velocity"][:3], table["FE_H"][5:7] = 900.0, np.nan
    table.write(tmp_path / "fast.fits")
    for every, missing in ((True, "FE_H missing"), (False, "all elements missing")):  # as the two paths ask for them
        prepared = oti.prepare_stars(oti.read_stars(tmp_path / "fast.fits"), "FE_H", 4.0, every=every)
        assert dropped(prepared.stars) == {missing: 2, "undefined actions within the prior": 3}
        tree = as_tree("classical", {}, prepared.stars, ["FE_H"], 0, {}, MILKY_WAY, "x")
        reasons = f"2 with {missing}, 3 with undefined actions within the prior"
        assert stars_used(tree.attrs) == f"stars: 145 of 150 used; {reasons}"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["classical", *QUICK], ["sample", *SHORT]], ids=["classical", "sample"])
def test_01_stars_left_out_are_in_either_result(tmp_path, command):
    given = [BUGS / "r03_rv999.fits", "--elements", "FE_H", "--output", tmp_path / "x.nc"]
    assert "stars: 142 of 150 used; 8 with radial_velocity is a fill value" in run(*command, *given)
    attributes = oti.load(tmp_path / "x.nc").attrs
    assert attributes["dropped"] == '{"radial_velocity is a fill value": 8}' and attributes["stars"] == 142


SITE = (
    "import numpyro, numpyro.distributions as dist\n"
    "from otibayes.models import joint_abundances\n"
    "def model(likelihood):\n"
    "    numpyro.sample('calib/offset', dist.Normal(0, 1))\n"
    "    return joint_abundances(likelihood)\n"
)


def test_02_names_are_made_safe_for_a_file(tmp_path):
    stars, over = oti.embedded_stars()[:3], ("chain", "draw")
    groups = {
        "posterior": xr.Dataset({"calib/offset": ((*over, "calib/offset_dim_0"), np.zeros((1, 2, 2)))}),
        "posterior_predictive": xr.Dataset({"[Mg/Fe]": ((*over, "star"), np.zeros((1, 2, 3)))}, {"star": [0, 1, 2]}),
    }
    tree = as_tree("posterior", groups, stars, ["[Mg/Fe]"], 0, {}, MILKY_WAY, "x")
    oti.save(tree, tmp_path / "x.nc")
    tree = oti.load(tmp_path / "x.nc")
    assert "calib_offset" in tree["posterior"] and "[Mg_Fe]" in tree["posterior_predictive"]


@pytest.mark.parametrize("name", ["draw", "element", "M_disk"])
def test_02_names_of_something_else_are_refused_before_anything_is_sampled(tmp_path, monkeypatch, name):
    monkeypatch.setattr("otibayes.generative.posterior.sample_nuts", None)
    model = tmp_path / "mine.py"
    model.write_text(SITE.replace("calib/offset", name))
    given = ["sample", BUGS / "r10_slash.fits", "--elements", "[Mg/Fe],[Fe/H]", *SHORT, "--model", model]
    said = run(*given, "--output", tmp_path / "y.nc", code=2)
    assert f"the site '{name}' has the name of something else in a result" in said
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.slow
def test_02_elements_and_sites_with_a_slash_from_the_file_to_the_result(tmp_path):
    (tmp_path / "mine.py").write_text(SITE)
    given = [BUGS / "r10_slash.fits", "--elements", "[Mg/Fe],[Fe/H]"]
    run("sample", *given, *SHORT, "--model", tmp_path / "mine.py", "--output", tmp_path / "x.nc")
    run("classical", *given, *QUICK, "--output", tmp_path / "c.nc")
    tree = oti.load(tmp_path / "x.nc")
    assert "calib_offset" in tree["posterior"] and "[Mg_Fe]" in tree["posterior_predictive"]
    assert tree["posterior"].element.values.tolist() == ["[Mg/Fe]", "[Fe/H]"]


@pytest.mark.parametrize("label", ["AGE", "age_gyr", "a_b_c", "M$_*$"])
def test_03_any_label_that_the_fit_takes_can_be_drawn(tmp_path, label):
    given = [BUGS / "g01_age.fits", "--column", f"{label}=age_gyr", "--elements", label, "--delta", "4"]
    if label == "AGE":
        run("figures", *given, "--bootstraps", 4, "--format", "png", "--output", tmp_path / "d")
        assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [f"figure{i}.png" for i in (2, 4, 5, 6)]
    stars = oti.read_stars(BUGS / "g01_age.fits", {label: "age_gyr"}, label)
    oti.plot_mean_abundances(stars).savefig(tmp_path / "x.png")


def test_04_known_elements_only_are_taken_by_default_and_it_is_said():
    stars = oti.read_stars(BUGS / "r01_dr17_minh.fits")
    assert list(stars.abundances) == ["MG_FE", "FE_H"]
    assert told(stars, "elements, by the names of the columns: MG_FE, FE_H") and told(stars, "MIN_H, MAX_H: no known")
    assert list(oti.read_stars(BUGS / "r01_dr17_minh.fits", elements="MIN_H").abundances) == ["MIN_H"]


def test_05_columns_that_nobody_asked_for_decide_nothing(read, table):
    assert list(oti.read_stars(BUGS / "a09_src_h.fits").abundances) == ["MG_FE", "FE_H"]
    table["O_FE"], table["C_FE"] = "low", np.ones((len(table), 3))
    table["flag"] = u.Quantity(np.ones(len(table)), "Jy")
    stars = read(table)
    assert list(stars.abundances) == ["MG_FE", "FE_H"] and told(stars, "O_FE is left out: column O_FE: holds text")
    with pytest.raises(InputError, match="column O_FE: holds text, 'low' in row 0"):
        read(table, elements="O_FE")


@pytest.mark.parametrize("fill", FILLS, ids=str)
@pytest.mark.parametrize("name", [*SKY, "distance"])
def test_06_fill_values_are_known_in_every_column_of_the_sky(read, table, name, fill):
    if name == "distance":
        table["distance"] = 1 / table["parallax"].value
        table.remove_column("parallax")
    table[name][3:7] = fill
    if name == "ra" and fill == 99.99:  # which is an angle like any other
        return
    stars = read(table)
    assert len(stars) == 146 and sum(dropped(stars).values()) == 4
    assert all(reason.startswith(name) for reason in dropped(stars))


@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_06_fill_values_are_known_in_labels_and_errors(read, table, fill):
    table["AGE"], table["AGE_ERR"] = np.random.default_rng(0).uniform(0, 13, 150), 1.0
    table["LOGG"], table["pmra_error"] = 2.5, 0.02
    for name in ("FE_H", "AGE", "LOGG"):
        table[name][:2] = fill
    for name in ("MG_FE_ERR", "AGE_ERR", "pmra_error"):
        table[name][5:7] = fill
    stars = read(table, elements="FE_H,MG_FE,AGE", extra="LOGG")
    columns = [stars.abundances["FE_H"], stars.abundances["AGE"], stars.extra["LOGG"]]
    assert len(stars) == 150 and all(np.isnan(c[:2]).all() and np.isfinite(c[2:]).all() for c in columns)
    errors = [stars.errors["MG_FE"], stars.errors["AGE"][2:], stars.astrometric_errors["pmra"]]
    assert [int(np.isnan(e).sum()) for e in errors] == [2, 2, 2]
    assert np.isfinite(stars.abundances["MG_FE"]).all()
    assert dropped(oti.prepare_stars(stars, "FE_H", 4.0).stars) == {"FE_H missing": 2}


def test_06_the_files_that_were_reported():
    for name, fill in (("r02_plx9999", 9999), ("a13_plx_999999", 999999)):
        count = int(np.sum(Table.read(BUGS / f"{name}.fits")["parallax"] == fill))
        assert count > 5 and dropped(oti.read_stars(BUGS / f"{name}.fits")) == {"parallax is a fill value": count}


def test_07_a_note_on_epochs_never_stops_reading(read, table):
    assert told(oti.read_stars(BUGS / "a11_epoch_text.fits"), "positions are of 2 epochs (2015.5 to 2016.0)")
    years = np.where(np.arange(150) < 9, np.nan, 2016.0)
    for column in (
        years,
        np.full(150, b"J2016.0"),
        np.ma.masked_invalid(years),
        np.ones((150, 2)),
        Time(np.full(150, 2016.0), format="jyear"),
    ):
        table["ref_epoch"] = column
        for suffix in (".fits", ".ecsv"):
            assert not told(read(table, suffix), "epochs")
        assert not told(oti.Stars.from_table(table), "epochs")


@pytest.mark.parametrize("missing", ["", "  ", "null", "None", "N/A", "--", "nan", "-9999", "0"])
def test_08_a_missing_identifier_is_nobodys_duplicate(tmp_path, missing):
    table = Table.read(BUGS / "s02_blank_id.fits")
    table["APOGEE_ID"] = [missing if i < 50 else f"2M{i:08d}" for i in range(200)]
    table.write(tmp_path / "survey.fits")
    chosen, flow = oti.select(tmp_path / "survey.fits", "pw21-low-alpha")
    step = next(step for step in flow.steps if step.cut == "one-per-star")
    assert step.lost_alone == 0 and not flow.warnings and len(chosen) > 40
    masked = Table({"source_id": MaskedColumn([5, 5, 7, 7], mask=[0, 1, 1, 1])})
    for name in SKY:
        masked[name] = Table.read(BUGS / "r00.fits")[name][:4]
    masked.write(tmp_path / "masked.ecsv")
    assert not told(oti.read_stars(tmp_path / "masked.ecsv"), "repeat")


def test_08_the_file_that_was_reported(tmp_path):
    said = run("select", BUGS / "s02_blank_id.fits", "--recipe", "pw21-low-alpha", "--output", tmp_path / "s.fits")
    assert "repeat" not in said


@pytest.mark.parametrize("error", [0.0, -1.0, np.nan, -9999.0, 99.0])
def test_09_one_bad_error_costs_that_star_its_error_alone(read, table, error):
    stars = oti.read_stars(BUGS / "t01_one_zero_err.fits")
    assert told(stars, "MG_FE: 1 of 150 values have no usable error") and np.isnan(stars.errors["MG_FE"]).sum() == 1
    table["FE_H_ERR"][3] = error
    by_hand = replace(oti.embedded_stars()[:60], errors={"FE_H": np.r_[error, np.full(59, 0.01)]})
    for stars, total in ((read(table), 150), (by_hand, 60)):
        prepared = oti.prepare_stars(stars, "FE_H", 4.0)
        assert len(prepared) == total and np.isnan(prepared.errors).sum() == 1


def test_10_impossible_abundances_are_dropped_and_other_labels_let_through(read, table):
    stars = oti.read_stars(BUGS / "r04_abund999.fits")
    assert np.abs(stars.abundances["FE_H"][np.isfinite(stars.abundances["FE_H"])]).max() < 1
    assert told(stars, "MG_FE: 8 values missing: beyond 5 dex") and told(stars, "FE_H: 8 values missing: beyond 5 dex")
    assert dropped(oti.prepare_stars(stars, "FE_H", 4.0).stars) == {"FE_H missing": 8}
    table["TEFF"], table["NUMBER"] = np.linspace(4000, 5200, 150), np.arange(1, 151) * 9.0
    read_back = read(table, elements="TEFF,NUMBER")
    assert np.isfinite(read_back.abundances["TEFF"]).all() and 999 in read_back.abundances["NUMBER"]
    by_hand = replace(oti.embedded_stars()[:60], abundances={"FE_H": np.r_[9.999, -9999.0, np.zeros(58)]})
    assert dropped(oti.prepare_stars(by_hand, None, 4.0).stars) == {"FE_H missing": 2}


def test_11_only_the_needed_columns_are_read(tmp_path, table):
    for name in ("b02_id_none.parquet", "b05_category.parquet"):
        assert len(oti.read_stars(BUGS / name)) == 120
    frame = table.to_pandas()
    frame["note"] = [None, {"a": 1}] * 75
    frame["when"] = pd.Timestamp("2020-01-01")
    frame["FE_H"] = frame["FE_H"].astype(object)
    frame.loc[0, "FE_H"] = None
    frame.to_parquet(tmp_path / "odd.parquet")
    for stars in (oti.read_stars(tmp_path / "odd.parquet"), oti.Stars.from_pandas(frame)):
        assert len(stars) == 150 and np.isnan(stars.abundances["FE_H"]).sum() == 1


def test_12_identifiers_that_have_lost_digits_are_not_compared(tmp_path):
    stars = oti.read_stars(BUGS / "a24_source_id_float.fits")
    assert not told(stars, "repeat the source_id") and told(stars, "source_id has lost digits")
    table = Table.read(BUGS / "s02_blank_id.fits")
    for lost in (np.full(200, 4.6e18), np.full(200, 4.6e18, np.float32), np.full(200, "4.6e+18")):
        table["APOGEE_ID"] = lost
        table.write(tmp_path / "survey.fits", overwrite=True)
        _, flow = oti.select(tmp_path / "survey.fits", "pw21-low-alpha")
        assert flow.steps[-1].lost_alone == 0
        assert flow.warnings == ("APOGEE_ID has lost digits, so that rows of one star cannot be told",)


@pytest.mark.parametrize("missing", ["null", "NULL", "None", "N/A", "--", "", "nan", "<NA>"])
def test_13_gaias_own_files_are_read(tmp_path, missing):
    for name in ("a01_null.csv", "a03_gaia_ecsv_called_null.csv"):
        text = (BUGS / name).read_text()
        assert "null" in text
        text = text.replace("null", missing)
        (tmp_path / "stars.csv").write_text(text)
        with gzip.open(tmp_path / "stars.csv.gz", "wt") as packed:
            packed.write(text)
        for file in ("stars.csv", "stars.csv.gz"):
            stars = oti.read_stars(tmp_path / file)
            assert dropped(stars) == {"radial_velocity missing": 3} and len(stars) == 117


def test_13_formats_are_recognised_by_their_content(tmp_path, table):
    table.write(tmp_path / "a.ecsv")
    table.write(tmp_path / "a.parquet")
    for name in ("a.ecsv", "a.parquet"):
        shutil.copy(tmp_path / name, tmp_path / "disguised.fits")
        with gzip.open(tmp_path / "packed.csv", "wb") as packed:
            packed.write((tmp_path / name).read_bytes())
        for file in ("disguised.fits", "packed.csv"):
            np.testing.assert_allclose(oti.read_stars(tmp_path / file).ra, table["ra"], rtol=1e-14)


def test_14_text_of_every_dialect(tmp_path):
    assert len(oti.read_stars(BUGS / "c01_bom.csv")) == 120
    text = (BUGS / "c01_bom.csv").read_text(encoding="utf-8-sig")
    header, body = text.split("\n", 1)
    dialects = {
        "a comment": f"# from a survey\n#\n{text}".encode(),
        "names behind a #": f"# {header}\n{body}".encode(),
        "Latin-1": ("# Jérôme\n" + text).encode("latin-1"),
        "UTF-16": text.encode("utf-16"),
        "semicolons": text.replace(",", ";").encode(),
        "tabs": text.replace(",", "\t").encode(),
        "blanks": text.replace(",", "  ").encode(),
        "blanks after commas": text.replace(",", " , ").encode(),
        "CRLF": text.replace("\n", "\r\n").encode(),
    }
    expected = oti.read_stars(BUGS / "c01_bom.csv")
    for name, content in dialects.items():
        (tmp_path / "stars.csv").write_bytes(content)
        np.testing.assert_array_equal(oti.read_stars(tmp_path / "stars.csv").ra, expected.ra, err_msg=name)


def test_15_fits_of_every_kind(tmp_path, table):
    for name in ("a15_gz_but_named.fits", "a16_second_table.fits"):
        assert len(oti.read_stars(BUGS / name)) == 120
    columns = fits.BinTableHDU(table).columns
    ascii_columns = [fits.Column(c.name, "F14.6", array=c.array) for c in columns]
    ascii_columns += [fits.Column("APOGEE_ID", "A8", array=np.full(150, "2M01"))]
    hdu = fits.TableHDU.from_columns(ascii_columns)
    hdu.writeto(tmp_path / "ascii.fits")
    raw = (tmp_path / "ascii.fits").read_bytes()
    first = f"{columns['radial_velocity'].array[0]:14.6f}".encode()
    (tmp_path / "ascii.fits").write_bytes(raw.replace(first, b" " * 14, 1))
    stars = oti.read_stars(tmp_path / "ascii.fits")
    assert dropped(stars) == {"radial_velocity missing": 1}
    np.testing.assert_allclose(stars.ra, table["ra"][1:], atol=1e-6)
    # integers with a scale, an offset, and a null
    scaled = fits.Column("FE_H", "I", array=np.arange(150), null=7)
    hdu = fits.BinTableHDU.from_columns([c for c in columns if c.name != "FE_H"] + [scaled])
    hdu.header[f"TSCAL{len(columns)}"] = 0.001
    hdu.writeto(tmp_path / "scaled.fits")
    values = oti.read_stars(tmp_path / "scaled.fits", elements="FE_H").abundances["FE_H"]
    assert np.isnan(values[7]) and np.isfinite(np.delete(values, 7)).all() and values[100] == pytest.approx(0.1)


def test_16_the_users_matplotlib_settings_cannot_break_a_figure(tmp_path):
    code = "import sys; sys.argv = ['otibayes', 'select', *sys.argv[1:]]\nfrom otibayes.cli import main\nmain()\n"
    (tmp_path / "matplotlibrc").write_bytes(b"text.usetex: True\nbackend: nonsense\n\xff\xfe\n")
    given = [BUGS / "s02_blank_id.fits", "--recipe", "pw21-low-alpha", "--output", "s.fits", "--figure", "f.png"]
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    command = [sys.executable, "-c", code, *map(str, given)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        *([command, "stars.fits", "--seed", "-1"] for command in ("classical", "sample", "figures")),
        ["mock", "--stars", "10", "--seed", "-1"],
        *(
            ["select", "stars.fits", "--recipe", "pw21-low-alpha", "--cut", cut]
            for cut in ("star-bad.bits=[64]", "star-bad.bits=[-1]", "low-alpha.vertices=3")
        ),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_17_bad_options_are_one_line_and_leave_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(BUGS / "r00.fits", "stars.fits")
    run(*arguments, "--output", "out.fits", code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["stars.fits"]


def test_17_no_class_of_exception_gets_past_the_command_line(tmp_path, monkeypatch):
    for error in (ZeroDivisionError, RuntimeError, MemoryError, KeyError, AssertionError, SystemExit, ExceptionGroup):

        def fails(*_, error=error, **__):
            raise error("first\nsecond", [ValueError()]) if error is ExceptionGroup else error("first\nsecond")

        monkeypatch.setattr("otibayes.stars.read_stars", fails)
        given = ["actions", BUGS / "r00.fits", "--output", tmp_path / "a.fits"]
        said = run(*given, code=2)
        assert error.__name__ in said and "Traceback" not in said
        debugged = CliRunner().invoke(main, ["--debug", *map(str, given)])
        assert "Traceback" in debugged.stderr and "in fails" in debugged.stderr and debugged.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_18_metadata_that_were_cut_are_ignored_with_a_note(read, table):
    assert told(oti.read_stars(BUGS / "a32_meta_cut.fits"), "damaged and ignored")
    for meta in (
        "[1]",
        "3",
        '{"truth": 5}',
        '{"truth": {"m_disk": "x"}}',
        '{"notes": 3}',
        '{"notes": [1]}',
        '{"truth": {"h_z": NaN}}',
    ):
        table.meta["OTIBAYES"] = meta
        for suffix in (".fits", ".ecsv", ".parquet"):
            stars = read(table, suffix)
            assert told(stars, "damaged and ignored") and stars.provenance.truth == ()


def test_19_a_byte_beyond_ascii_in_text_is_read(tmp_path):
    # In this file one byte is missing too, so that all rows after it are shifted: they are left out.
    said = run("select", BUGS / "s07_latin_id.fits", "--recipe", "pw21-low-alpha", "--output", tmp_path / "s.fits")
    assert "(3 stars)" in said
    content = (BUGS / "s02_blank_id.fits").read_bytes().replace(b"2M00000060", b"2M00\xe9\x0000600"[:10])
    (tmp_path / "survey.fits").write_bytes(content)
    chosen, _ = oti.select(tmp_path / "survey.fits", "pw21-low-alpha")
    reported, _ = oti.select(BUGS / "s02_blank_id.fits", "pw21-low-alpha")
    assert len(chosen) == len(reported)


@pytest.mark.parametrize(("name", "value"), [("ra", -9999), ("ra", 400), ("ra", -200), ("dec", 91), ("dec", -99)])
def test_20_one_bad_position_drops_that_row(read, table, name, value):
    assert dropped(oti.read_stars(BUGS / "a14_ra_m9999.fits")) == {"ra is a fill value": 1}
    table[name][2] = value
    stars = read(table)
    assert len(stars) == 149 and 2 not in stars.row and next(iter(dropped(stars))).startswith(name)


def test_21_what_distances_come_from_is_said(tmp_path):
    given = ["actions", BUGS / "t02_distance_is_separation.fits", "--delta", "4", "--output", tmp_path / "a.fits"]
    assert "distances are the column distance; parallax is not used" in run(*given)
    assert "distances are 1 / parallax, because a zero point is given" in run(*given, "--zero-point", "-0.05")
    assert "must lie within 1 mas" in run(*given, "--zero-point", "-17", code=2)
    Table.read(given[1])["ra", "dec", "distance", "pmra", "pmdec", "radial_velocity"].write(tmp_path / "d.fits")
    said = run("actions", tmp_path / "d.fits", "--zero-point", "-0.05", "--output", tmp_path / "b.fits", code=2)
    assert "there are only distances" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            BUGS / "models" / "nanfactor.py",
            "density is not finite at any of 8 draws of its prior; correct its site 'bad'",
        ),
        (BUGS / "models" / "empty.py", "the model does not sample m_disk, h_z, z_sun, vz_sun"),
        (BUGS / "models" / "typo.py", "typo.py, line 3: AttributeError: 'Data' object has no attribute"),
        ("import nothing_of_the_kind", "mine.py, line 1: ModuleNotFoundError"),
        ("def model(likelihood:\n    pass", "mine.py, line 1: SyntaxError"),
        ("def model(likelihood):\n    raise SystemExit", "mine.py, line 2: SystemExit"),
        ("def model(likelihood):\n    1 / 0", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("exit()", "mine.py, line 1: SystemExit"),
    ],
)
def test_22_a_model_is_tried_before_anything_is_sampled(text, said, tmp_path, monkeypatch):
    monkeypatch.setattr("otibayes.generative.posterior.sample_nuts", None)
    model = tmp_path / "mine.py"
    model.write_text(text.read_text() if isinstance(text, Path) else text)
    model = text if isinstance(text, Path) else model
    given = ["sample", BUGS / "r00.fits", "--elements", "FE_H", "--model", model, *SHORT]
    assert said in run(*given, "--output", tmp_path / "x.nc", code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


def columns_of(stars, change):
    return {name: change(values) for name, values in stars.sky.items()}


def test_23_python_converts_or_refuses():
    theta = oti.Parameters(h_z=280 * u.pc, z_sun=0.0208 * u.kpc, vz_sun=7780 * u.m / u.s)
    np.testing.assert_allclose(theta, oti.Parameters(), rtol=1e-14)
    for wrong in ({"h_z": 5 * u.km / u.s}, {"h_z": "thick"}, {"m_disk": 1e10 * u.Msun}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}: .* cannot be used"):
            oti.Parameters(**wrong)

    stars = oti.embedded_stars()[:40]
    expected, five = (oti.action_angle(oti.phase_space(some, theta), theta, delta=4.0) for some in (stars, stars[:5]))
    kinds = {
        "big-endian": lambda x: x.astype(">f8"),
        "lists": lambda x: x.tolist(),
        "masked": lambda x: np.ma.array(x),
        "pandas": lambda x: pd.Series(x, index=np.arange(40)[::-1]),
        "columns": lambda x: Table({"x": x})["x"],
    }
    for change in kinds.values():
        changed = oti.Stars(**columns_of(stars, change))
        found = oti.action_angle(oti.phase_space(changed[:5], theta), theta, delta=4.0)
        np.testing.assert_array_equal(found.J_z, five.J_z)
    quantities = columns_of(stars, np.asarray) | {
        "distance": stars.distance * 1000 * u.pc,
        "pmra": (stars.pmra * u.mas / u.yr).to(u.deg / u.Myr),
        "ra": (stars.ra * u.deg).to(u.rad),
    }
    w = oti.phase_space(oti.Stars(**quantities), theta)
    np.testing.assert_allclose(oti.action_angle(w, theta, delta=4000 * u.pc).J_z, expected.J_z, rtol=1e-9)
    in_pc = oti.PhaseSpace(R=w.R * 1000 * u.pc, phi=w.phi, z=pd.Series(w.z), vR=w.vR, vT=w.vT * u.km / u.s, vz=w.vz)
    np.testing.assert_allclose(oti.action_angle(in_pc, theta, delta=4.0).J_R, expected.J_R, rtol=1e-9)

    for name, wrong in {"distance": stars.distance * u.mas, "pmra": ["fast"] * 40, "ra": stars.ra[:3]}.items():
        with pytest.raises(InputError, match=name):
            oti.Stars(**columns_of(stars, np.asarray) | {name: wrong})
    with pytest.raises(InputError, match="z has 3 values where R has 40"):
        oti.action_angle(in_pc._replace(z=np.zeros(3)), theta)


def test_23_a_lone_string_no_stars_and_positions_that_are_not_finite():
    stars, theta = oti.embedded_stars()[:40], oti.Parameters()
    assert oti.prepare_stars(stars, "MG_FE", 4.0).elements == ("MG_FE",)
    assert oti.prepare_stars(stars, "MG_FE,FE_H", 4.0).elements == ("MG_FE", "FE_H")
    assert list(stars.with_elements("FE_H").abundances) == ["FE_H"]
    for fit in (oti.fit_classical, oti.sample):
        for elements in ("FE_H", None):
            with pytest.raises(InputError, match="there are no stars"):
                fit(stars[:0], elements)
    w = oti.phase_space(stars[:0], theta)
    assert oti.action_angle(w, theta).J_z.shape == (0,) and oti.focal_length(w, theta).shape == (0,)
    odd = replace(stars, ra=np.r_[np.nan, np.inf, stars.ra[2:]])
    for method in ("staeckel", "galpy"):
        found = oti.action_angle(oti.phase_space(odd, theta), theta, method, delta="local")
        assert (found.status[:2] == Status.NOT_FINITE).all() and (found.status[2:] == Status.OK).all()
    assert dropped(oti.prepare_stars(odd, "FE_H", 4.0).stars) == {"ra missing": 2}


def test_24_a_process_pool_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "stars.md").read_text()
    assert 'multiprocessing.get_context("spawn")' in text


def aliases(path):
    yield path
    yield path.parent / "." / path.name
    (path.parent / "link.fits").symlink_to(path)
    yield path.parent / "link.fits"
    os.link(path, path.parent / "hard.fits")
    yield path.parent / "hard.fits"


@pytest.mark.parametrize("command", ["classical", "sample", "actions", "select", "table1"])
def test_25_output_that_names_the_input_is_refused(command, tmp_path):
    path = tmp_path / "stars.fits"
    shutil.copy(BUGS / "r00.fits", path)
    before = path.read_bytes()
    options = ["--recipe", "nearby"] if command == "select" else []
    for alias in aliases(path):
        assert "which would be lost" in run(command, path, *options, "--output", alias, code=2)
    if command == "select":
        given = [command, BUGS / "r00.fits", *options, "--output", tmp_path / "out.fits"]
        assert "which would be lost" in run(*given, "--gaia", path, "--figure", path, code=2)
    assert path.read_bytes() == before
