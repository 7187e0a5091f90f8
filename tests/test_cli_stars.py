"""`otibayes mock` and `otibayes select`: every option does what it says, and what is odd is told."""

import json

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner

from otibayes.cli import main
from otibayes.stars import write_table
from otibayes.stars.mock import LABELS
from otibayes.stars.recipes import book
from otibayes.stars.table import META_KEY


def run(*arguments, code=0) -> str:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_every_option_of_mock_arrives_in_the_metadata(tmp_path):
    options = {
        "--d-max": 1.5, "--footprint": "magnitude-limit", "--scatter-scale": 0.5, "--skew": 0.4,
        "--abundance-selection": 5.0, "--kick": 10.0, "--growth": 0.1, "--elements": "MG_FE,FE_H", "--seed": 4,
    }  # fmt: skip
    given = [text for pair in options.items() for text in pair]
    flags = ["--conical", "--gaia-errors", "--no-abundance-errors"]
    run("mock", "--stars", 20, *given, *flags, "--truth", "m_disk=1.2", "--output", tmp_path / "mock.fits")
    table = Table.read(tmp_path / "mock.fits")
    meta = json.loads(table.meta[META_KEY])
    settings = {"elements": ["MG_FE", "FE_H"], "conical": True, "gaia_errors": True, "abundance_errors": False}
    settings |= {name[2:].replace("-", "_"): value for name, value in options.items() if name != "--elements"}
    assert {name: meta["settings"][name] for name in settings} == settings
    assert meta["truth"]["m_disk"] == 1.2 and len(table) == 20
    assert np.all(table["MG_FE_ERR"] == 0) and np.all(table["parallax_error"] > 0)
    assert meta["labels"]["MG_FE"]["error"] == LABELS["MG_FE"].error


@pytest.fixture
def survey(tmp_path):
    """Giants of two sequences, of which a recipe for any table keeps those within 2 kpc."""
    rng, n = np.random.default_rng(0), 400
    table = Table({"source_id": np.arange(1, n + 1), "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-90, 90, n)})
    table["parallax"], table["parallax_error"] = rng.uniform(0.3, 3, n), 0.03
    table["pmra"], table["pmdec"], table["radial_velocity"] = rng.normal(0, 5, (3, n))
    table["FE_H"], table["FE_H_ERR"] = rng.normal(0, 0.2, n), 0.01
    table["MG_FE"], table["MG_FE_ERR"] = np.where(rng.uniform(size=n) < 0.6, 0.0, 0.25) + rng.normal(0, 0.03, n), 0.01
    table["radial_velocity"][np.argmax(table["parallax"])] = 2000.0
    write_table(table, tmp_path / "survey.fits")
    return tmp_path / "survey.fits", table


def test_cuts_are_overridden_one_by_one_and_odd_stars_are_told(survey, tmp_path):
    path, table = survey
    said = run("select", path, "--recipe", "nearby", "--cut", "parallax.min=1", "--output", tmp_path / "s.fits")
    expected = np.sum((table["parallax"] > 1) & (table["parallax"] > 8 * table["parallax_error"]))
    assert f"({expected} stars)" in said and "nearby on any table" in said
    assert "s.fits: 1 rows have |radial_velocity| > 1000 km/s; are theirs in km/s?" in said
    without = run("select", path, "--recipe", "nearby", "--cut", "parallax=off", "--output", tmp_path / "s.fits")
    assert f"({np.sum(table['parallax'] > 8 * table['parallax_error'])} stars)" in without


def test_a_cut_that_removes_all_is_told_and_nothing_is_written(survey, tmp_path):
    arguments = ["--recipe", "nearby", "--cut", "parallax.min=99", "--output", tmp_path / "none.fits"]
    said = run("select", survey[0], *arguments, code=2)
    assert "warning: cut parallax removes every one of 400 rows on its own" in said
    assert "relax a cut with --cut" in said and not (tmp_path / "none.fits").exists()


def test_another_table_and_its_distances(survey, tmp_path):
    path, table = survey
    other = Table({"source_id": table["source_id"][::-1], "dist50": 0.9 / table["parallax"][::-1]})
    other["dist16"], other["dist84"] = 0.9 * other["dist50"], 1.1 * other["dist50"]
    write_table(other, tmp_path / "starhorse.fits")
    arguments = ["--gaia", tmp_path / "starhorse.fits", "--distance", "starhorse", "--output", tmp_path / "s.fits"]
    run("select", path, "--recipe", "nearby", *arguments)
    chosen = Table.read(tmp_path / "s.fits")
    np.testing.assert_allclose(chosen["distance"], 0.9 / chosen["parallax"])
    np.testing.assert_allclose(chosen["distance_error"], 0.1 * chosen["distance"])
    said = run("select", path, "--recipe", "nearby", *arguments, "--on", "source_id=dist", code=2)
    assert "no column dist to join on; similar: dist" in said


def test_the_figure_shows_the_stars_outside_the_polygon_too(survey, tmp_path, monkeypatch):
    drawn = {}

    def plotted(stars, cuts, parent):
        drawn.update(stars=stars, cuts=cuts, parent=parent)
        from otibayes.analysis.plot.selection import plot_selection

        return plot_selection(stars, cuts, parent)

    monkeypatch.setattr("otibayes.analysis.plot.plot_selection", plotted)
    square = "low.vertices=[[-1, -0.1], [1, -0.1], [1, 0.1], [-1, 0.1]]"
    cuts = ["--cut", 'low.kind="in_polygon"', "--cut", 'low.x="FE_H"', "--cut", 'low.y="MG_FE"', "--cut", square]
    arguments = ["--output", tmp_path / "s.fits", "--figure", tmp_path / "s.png"]
    run("select", survey[0], "--recipe", "nearby", *cuts, *arguments)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert drawn["stars"].abundances["MG_FE"].max() < 0.1 < drawn["parent"].abundances["MG_FE"].max()
    assert set(drawn["cuts"]) == {"parallax", "parallax-snr", "low"}


def test_recipes_are_listed_with_their_sources():
    said = run("select", "--recipes")
    assert all(f"recipe {name}: " in said for name in book()["recipe"])
    assert "survey sdss-v: " in said and "distance starhorse: " in said and said.count("source: ") > 15
