"""The command line: every bad input is one line and exit 2 with nothing left behind; and small work, end to end."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from click.testing import CliRunner

import otibayes as oti
from otibayes.cli import main

EMBEDDED = Path(oti.__file__).parent / "stars" / "embedded.ecsv"
SAMPLED = ["--chains", "2", "--warmup", "60", "--draws", "25", "--basis-size", "16"]
FITTED = ["--bootstraps", "4", "--neighbours", "24"]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def succeed(*arguments):
    done = run(*arguments)
    assert done.exit_code == 0, done.stderr or done.exception
    return done.stdout


def fail(*arguments):
    """The one line on stderr of a command that exits with 2."""
    done = run(*arguments)
    assert done.exit_code == 2, done.exception
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), done.stderr
    return lines[0]


@pytest.fixture
def table():
    return Table.read(EMBEDDED)[:150]


@pytest.fixture
def out(tmp_path):
    """Where a command is to write; afterwards, nothing may be there."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder / "result.nc"
    assert list(folder.iterdir()) == []


def written(table, tmp_path, name="stars.fits"):
    table = table.copy()
    table.write(tmp_path / name)
    return tmp_path / name


# ---- bad input, before both paths


def absent(table, tmp_path):
    return tmp_path / "absent.fits", [], "no such file"


def not_a_table(table, tmp_path):
    (tmp_path / "stars.fits").write_text("this is not a table")
    return tmp_path / "stars.fits", [], "cannot be read as fits"


def unknown_suffix(table, tmp_path):
    (tmp_path / "stars.doc").write_text("this is not a table")
    return tmp_path / "stars.doc", [], "suffix '.doc'"


def empty(table, tmp_path):
    return written(table[:0], tmp_path), [], "empty"


def missing_column(table, tmp_path):
    table.rename_column("pmra", "pmRA_gaia")
    return written(table, tmp_path), [], "pmRA_gaia"  # names the one that looks similar


def missing_mapped_column(table, tmp_path):
    return written(table, tmp_path), ["--column", "radial_velocity=rv"], "no column rv"


def bad_mapping(table, tmp_path):
    return written(table, tmp_path), ["--column", "rv"], "NAME=VALUE"


def unknown_element(table, tmp_path):
    return written(table, tmp_path), ["--elements", "MN_FE"], "MN_FE"


def all_masked(table, tmp_path):
    table["FE_H"] = np.ma.masked_all(len(table))
    return written(table, tmp_path, "stars.ecsv"), ["--elements", "FE_H"], "FE_H has no usable value"


def parallaxes_in_arcsec(table, tmp_path):
    table["parallax"] = np.asarray(table["parallax"]) / 1000
    return written(table, tmp_path), [], "arcsec"


def negative_parallaxes(table, tmp_path):
    table["parallax"] = -table["parallax"]
    return written(table, tmp_path), [], "parallax <= 0"


def no_velocities(table, tmp_path):
    table.remove_column("radial_velocity")
    return written(table, tmp_path), [], "no column radial_velocity"


def masked_velocities(table, tmp_path):
    table["radial_velocity"] = np.ma.masked_all(len(table))
    return written(table, tmp_path, "stars.ecsv"), [], "radial_velocity missing"


def truncated(table, tmp_path):
    path = written(table, tmp_path)
    path.write_bytes(path.read_bytes()[:-6000])
    return path, [], "truncated"


def too_few(table, tmp_path):
    return written(table[:20], tmp_path), [], "20"


CASES = [absent, not_a_table, unknown_suffix, empty, missing_column, missing_mapped_column, bad_mapping]
CASES += [unknown_element, all_masked, parallaxes_in_arcsec, negative_parallaxes, no_velocities]
CASES += [masked_velocities, truncated, too_few]


@pytest.mark.parametrize("command", ["classical", "sample"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bad_table(command, case, table, tmp_path, out):
    path, options, said = case(table, tmp_path)
    assert said in fail(command, path, *options, "--output", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--angle", "theta_phi"], "unknown angle 'theta_phi'; choose one of theta_z, theta_R"),
        (["--moment", "skew"], "unknown moment 'skew'; choose one of mean, scatter"),
        (["--neighbours", 2], "neighbours=2 is too small; at least 4"),
        (["--bins", -1], "bins=-1"),
        (["--weights", "inverse"], "unknown weights 'inverse'; choose one of paper, equal, total"),
        (["--exclude", "AL_FE"], "--exclude AL_FE: not among the elements"),
        (["--dask", "nonsense://x"], "no Dask scheduler answers at 'nonsense://x'"),
    ],
)
def test_variants_of_the_classical_fit_are_checked(table, tmp_path, out, arguments, message):
    assert message in fail("classical", written(table[:80], tmp_path), "--output", out, *arguments)


def test_passes_of_the_posterior_go_to_a_scheduler_that_answers(table, tmp_path, out):
    said = fail("sample", written(table, tmp_path), "--dask", "nonsense://x", "--output", out)
    assert "no Dask scheduler answers at 'nonsense://x'" in said


def test_fewer_stars_than_neighbours(table, tmp_path, out):
    assert "64 neighbours" in fail("classical", written(table[:50], tmp_path), "--output", out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["classical", "--method", "agama"], "unknown action method 'agama'; choose one of staeckel, galpy, o2gf"),
        (["actions", "--method", "agama"], "unknown action method"),
        (["sample", "--model", "linear"], "unknown model 'linear'; choose one of calibrated_abundances"),
        (["sample", "--model", "absent.py"], "no such model file"),
        (["sample", "--likelihood", "sparse"], "unknown likelihood"),
        (["sample", "--likelihood", "dense"], "--no-surface"),
        (["sample", "--draws", "many"], "not a valid integer"),
        (["sample", "--draw-more", "1"], "No such option"),
        (["classical", "--delta", "global"], "delta must be"),
        (["actions", "--m-disk", "5"], "outside its bounds, 0.4 to 1.8"),
        (["actions", "--m-disk", "1.8", "--h-z", "0.05"], "too little mass"),
    ],
)
def test_unknown_names_before_anything_is_read(arguments, said, tmp_path, out):
    command, *options = arguments
    output = out.with_suffix(".ecsv") if command == "actions" else out
    assert said in fail(command, tmp_path / "not-looked-at.fits", *options, "--output", output)


@pytest.mark.parametrize(
    "command", ["classical", "sample", "actions", "demo", "mock", "select", "compare", "figures", "table1"]
)
def test_output_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").touch()
    within = tmp_path / "file" / ("out" if command in ("demo", "compare") else "out.fits")
    given = {
        "demo": [],
        "mock": ["--stars", 10],
        "select": ["in.fits", "--recipe", "nearby"],
        "compare": ["c.nc", "p.nc"],
    }
    message = fail(command, *given.get(command, ["stars.fits"]), "--output", within)
    assert "folder" in message
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_output_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written" in fail("demo", "--output", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stars", 0], "stars=0 cannot be used; at least 1"),
        (["--stars", 10, "--truth", "h_z"], "NAME=VALUE"),
        (["--stars", 10, "--truth", "mass=3"], "unknown parameter 'mass'"),
        (["--stars", 10, "--truth", "h_z=thick"], "not a number"),
        (["--stars", 10, "--elements", "XX_FE"], "XX_FE"),
        (["--stars", 10, "--footprint", "moon"], "no footprint moon"),
    ],
)
def test_mock_refuses(arguments, said, out):
    assert said in fail("mock", *arguments, "--output", out.with_suffix(".fits"))


def test_table_output_of_unknown_format(out):
    assert "suffix '.nc'" in fail("mock", "--stars", 10, "--output", out)


def test_select_refuses(table, tmp_path, out):
    path, output = written(table, tmp_path), out.with_suffix(".fits")
    assert "no recipe best" in fail("select", path, "--recipe", "best", "--output", output)
    assert "needs the columns" in fail("select", path, "--recipe", "pw21-low-alpha", "--output", output)


def test_compare_refuses(tmp_path, out):
    (tmp_path / "text.nc").write_text("hello")
    folder = out.parent / "comparison"
    assert "no such file" in fail("compare", tmp_path / "absent.nc", tmp_path / "text.nc", "--output", folder)
    assert "cannot be read" in fail("compare", tmp_path / "text.nc", tmp_path / "text.nc", "--output", folder)


# ---- from a shell


def test_from_a_shell(tmp_path):
    command = [sys.executable, "-m", "otibayes.cli"]
    done = subprocess.run([*command, "classical", "absent.fits", "--output", "c.nc"], capture_output=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == b"" and done.stderr == b"Error: absent.fits: no such file\n"
    assert not list(tmp_path.iterdir())


def test_help_of_every_command():
    text = succeed("--help")
    for name, command in main.commands.items():
        assert name in text
        about = succeed(name, "--help")
        assert command.help and ("--output" in about or name == "run")  # a run file names the folder
    names = ["demo", "mock", "select", "actions", "classical", "sample", "compare", "run", "figures", "table1"]
    assert list(main.commands) == names


def test_help_is_light():
    code = (
        "import sys; from otibayes.cli import main; import otibayes; print(*(m for m in ('numpyro', 'arviz',"
        " 'matplotlib', 'xarray', 'galpy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [] and done.returncode == 0, done.stderr


# ---- small work


def test_mock_select_and_actions(tmp_path):
    stars, chosen, actions = (tmp_path / name for name in ("stars.fits", "chosen.ecsv", "actions.ecsv"))
    given = ["--stars", 40, "--seed", 3, "--truth", "m_disk=1.2,z_sun=10", "--elements", "FE_H", "--gaia-errors"]
    assert "40 stars" in succeed("mock", *given, "--output", stars)
    assert dict(oti.read_stars(stars).provenance.truth)["m_disk"] == 1.2
    figure = tmp_path / "selection.png"
    assert "all rows" in succeed("select", stars, "--recipe", "nearby", "--output", chosen, "--figure", figure)
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert 0 < len(Table.read(chosen)) <= 40
    assert "written" in succeed("actions", stars, "--m-disk", "1.2", "--delta", "local", "--output", actions)
    table, theta = Table.read(actions), oti.Parameters(m_disk=1.2)
    expected = oti.action_angle(oti.phase_space(oti.read_stars(stars), theta), theta, delta="local")
    np.testing.assert_allclose(table["J_z"], expected.J_z, rtol=1e-12)
    assert str(table["J_z"].unit) == "km kpc / s" and (table["status"] == 0).all()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    Table.read(EMBEDDED)[:150].write(folder / "stars.ecsv")
    succeed("classical", folder / "stars.ecsv", *FITTED, "--output", folder / "classical.nc")
    succeed("sample", folder / "stars.ecsv", *SAMPLED, "--output", folder / "posterior.nc")
    return folder


def test_an_age_as_label_with_every_coefficient_in_the_objective(table, tmp_path):
    table["t_gyr"] = 5 + 20 * (table["FE_H"] - table["FE_H"].mean())
    given = [written(table[:120], tmp_path), "--column", "AGE=t_gyr", "--elements", "AGE", "--all-terms", *FITTED]
    succeed("classical", *given, "--no-surface", "--bootstraps", 2, "--output", tmp_path / "age.nc")
    tree = oti.load(tmp_path / "age.nc")
    used = tree["constant_data"].ds.sel(element="AGE")
    np.testing.assert_allclose(used.abundances, table["t_gyr"][used.row.values], rtol=1e-6)
    found = tree["optimum"].ds.sel(element="AGE")
    # coefficients of all resamples at once are in single precision; c0^2 and b2^2 are a tenth of the objective or more
    np.testing.assert_allclose(found.objective, (found.coefficient_values**2).sum(), rtol=1e-5)
    assert float(found.objective) > 1.1 * float((found.coefficient_values[1:4] ** 2).sum())


def test_from_stars_to_comparison(work):
    said = succeed("compare", work / "classical.nc", work / "posterior.nc", "--output", work / "new" / "folder")
    for word in (
        "valley (MG_FE)",
        "valley (FE_H)",
        "R-hat",
        "divergences",
        "h_z [kpc]",
        "truth",
        "150 used",
        "errors across its valley only",
    ):
        assert word in said
    found = pd.read_csv(work / "new" / "folder" / "comparison.csv", index_col="parameter")
    columns = ["eq8_mean", "eq8_sd", "posterior_mean", "posterior_sd", "low_95", "high_95"]
    assert {*columns, "difference_sigma", "r_hat", "ess_bulk", "truth"} <= set(found.columns)
    assert np.isfinite(found[columns[2:]].to_numpy()).all() and found.truth["m_disk"] == 1.1
    assert sorted(p.name for p in (work / "new" / "folder").iterdir()) == [
        "comparison.csv",
        "comparison.png",
        "report.html",
    ]


def test_compare_wants_each_in_its_place(work, out):
    swapped = [work / "posterior.nc", work / "classical.nc"]
    assert "holds a posterior" in fail("compare", *swapped, "--output", out.parent / "comparison")


def test_resume_keeps_the_same_and_only_the_same(work, monkeypatch):
    from otibayes.generative import sample as sampling

    before = (work / "posterior.nc").read_bytes()
    sample = ["sample", work / "stars.ecsv", *SAMPLED, "--output", work / "posterior.nc", "--resume"]
    assert "kept" in succeed(*sample)
    assert (work / "posterior.nc").read_bytes() == before

    def never(*args, **kwargs):
        raise AssertionError("sampled")

    monkeypatch.setattr(sampling, "sample", never)
    assert "seed was 0, is 1" in fail(*sample, "--seed", 1)
    assert "elements was" in fail(*sample, "--elements", "FE_H")
    assert (work / "posterior.nc").read_bytes() == before


def test_kepler_stars(shared_data, tmp_path):
    """500 real stars, from the command line: one side of the plane, so that little is known of m_disk and h_z."""
    rows = Table.read(shared_data / "kepler_apokasc2_gaiadr2.fits")
    rows[np.random.default_rng(0).permutation(len(rows))[:500]].write(tmp_path / "kepler.fits")
    given = [tmp_path / "kepler.fits", "--column", "radial_velocity=rv", "--column", "MG_FE_ERR=MG_H_ERR"]
    given += ["--elements", "MG_FE,FE_H,ALPHA_FE", "--zero-point", "-0.05"]
    succeed("classical", *given, "--bootstraps", 6, "--output", tmp_path / "classical.nc")
    succeed("sample", *given, *SAMPLED, "--output", tmp_path / "posterior.nc")
    said = succeed("compare", tmp_path / "classical.nc", tmp_path / "posterior.nc", "--output", tmp_path / "both")
    assert "truth" not in said and "valley (ALPHA_FE)" in said
    tree = oti.load(tmp_path / "posterior.nc")
    assert tree["posterior"].dataset.sizes["element"] == 3 and 400 < tree.attrs["stars"] <= 500
