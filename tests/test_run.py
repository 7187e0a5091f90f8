"""The run file: what it becomes, and what is refused before anything is computed."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from otibayes.cli import main, run


def otibayes(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture
def calls(monkeypatch):
    """What the commands are called with, instead of their work."""
    module = __import__("sys").modules[run.callback.__module__]
    made = []
    for name, command in module._COMMANDS.items():

        def record(name=name, **options):
            made.append((name, options))
            if figure := options.get("figure"):
                figure.write_bytes(b"png")

        monkeypatch.setattr(command, "callback", record)
    monkeypatch.setattr("otibayes.results.files.load", lambda path, kind: kind)
    monkeypatch.setattr(module, "write_comparison", lambda *given: made.append(("compare", given)))
    return made


def written(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_init_writes_a_file_that_can_be_run(tmp_path, calls):
    path = tmp_path / "run.toml"
    assert otibayes("run", "--init", path).exit_code == 0
    assert str(path) in path.read_text() and tomllib.loads(path.read_text())["run"]["seed"] == 0
    assert otibayes("run", path).exit_code == 0, calls
    assert [name for name, _ in calls] == ["classical", "sample", "compare"]


def test_every_line_that_is_off_in_the_example_can_be_switched_on(tmp_path, calls):
    path = tmp_path / "run.toml"
    otibayes("run", "--init", path)
    lines = path.read_text().splitlines()[2:]
    path.write_text("\n".join(line.removeprefix("# ") for line in lines))
    done = otibayes("run", path)
    assert done.exit_code == 0, done.output
    assert [name for name, _ in calls] == ["select", "classical", "sample", "compare"]


def test_init_overwrites_nothing(tmp_path):
    path = written(tmp_path, "mine")
    done = otibayes("run", "--init", path)
    assert done.exit_code == 2 and "exists already" in done.output and path.read_text() == "mine"


FULL = """
[run]
output = "out"
seed = 3
elements = ["MG_FE", "FE_H"]
[stars]
catalogue = "allStar.fits"
columns = { radial_velocity = "rv" }
zero_point = -0.05
[select]
recipe = "pw21-low-alpha"
cut = ["snr.min=50", "logg=off"]
[classical]
bootstraps = 32
surface = false
[sample]
chains = 2
delta = 3.6
"""


def test_sections_become_commands(tmp_path, calls):
    done = otibayes("run", written(tmp_path, FULL))
    assert done.exit_code == 0, done.output
    (_, select), (_, classical), (_, sample), (_, compare) = calls
    out = tmp_path / "out"
    assert select["catalogue"] == tmp_path / "allStar.fits" and select["output"] == out / "stars.fits"
    assert select["recipe"] == "pw21-low-alpha" and select["cuts"] == ("snr.min=50", "logg=off")
    for options in (classical, sample):
        assert options["stars"] == out / "stars.fits" and options["elements"] == "MG_FE,FE_H" and options["seed"] == 3
        assert options["columns"] == ("radial_velocity=rv",) and options["zero_point"] == -0.05
    assert classical["bootstraps"] == 32 and not classical["surface"]
    assert sample["chains"] == 2 and sample["delta"] == "3.6" and sample["resume"] is False
    assert compare[:3] == ("classical", "posterior", out) and compare[5] == FULL
    assert [picture.title for picture in compare[4]] == ["The selection"]


def test_a_run_that_was_stopped_goes_on(tmp_path, calls):
    (tmp_path / "out" / "posterior.nc.checkpoint").mkdir(parents=True)
    otibayes("run", written(tmp_path, FULL))
    assert calls[2][1]["resume"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("bootstraps = 32", "boot_straps = 32"), "unknown 'boot_straps' among the keys of [classical]; did you mean"),
        (("[sample]", "[sampel]"), "unknown 'sampel' among the sections; did you mean sample?"),
        (("seed = 3", "sead = 3"), "did you mean seed?"),
        (("chains = 2", "chains = 'two'"), "'two' is not a valid integer"),
        (('catalogue = "allStar.fits"', ""), "needs catalogue"),
        (("[run]", "[run"), "cannot be read as TOML"),
        (("[run]", "sample = 4\n[run]"), "cannot be read as TOML"),
        (("[sample]\nchains = 2\ndelta = 3.6", ""), None),
    ],
)
def test_what_is_refused_and_that_nothing_is_computed(tmp_path, calls, change, message):
    done = otibayes("run", written(tmp_path, FULL.replace(*change)))
    if message is None:
        assert done.exit_code == 0
        return
    assert done.exit_code == 2 and message in done.output and not calls
    assert len(done.output.strip().splitlines()) == 1
    assert {path.name for path in Path(tmp_path).iterdir()} == {"run.toml"}


def test_a_value_in_place_of_a_section_is_refused(tmp_path, calls):
    done = otibayes("run", written(tmp_path, 'sample = 4\n[run]\noutput="o"\n[stars]\ncatalogue="s.fits"\n'))
    assert done.exit_code == 2 and "write [sample]" in done.output


def test_no_file_says_how_to_make_one(tmp_path):
    done = otibayes("run", tmp_path / "absent.toml")
    assert done.exit_code == 2 and "--init" in done.output
