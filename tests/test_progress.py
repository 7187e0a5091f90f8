"""Progress on a terminal, elsewhere, and when nobody wants it."""

import pytest
from click.testing import CliRunner

from otibayes.base import progress
from otibayes.cli import main


@pytest.fixture
def every_line(monkeypatch):
    """A line for each step, in place of one a minute."""
    monkeypatch.setattr(progress, "_PERIOD", 0.0)
    monkeypatch.setattr(progress._Lines, "last", 0.0)
    yield
    progress.restart()


def steps(capsys):
    for _ in progress.progress(range(3), "passes", "node", 3):
        pass
    return capsys.readouterr().err


def test_elsewhere_than_on_a_terminal_progress_is_plain_lines(every_line, capsys):
    lines = steps(capsys).splitlines()
    assert lines[-1].startswith("passes: 3 of 3 node") and "\r" not in "".join(lines)


def test_quiet_shows_nothing_and_lasts_one_command(every_line, capsys):
    CliRunner().invoke(main, ["--quiet", "select", "--recipes"])
    assert steps(capsys) == ""
    CliRunner().invoke(main, ["select", "--recipes"])
    assert steps(capsys) != ""
