"""The notebooks run, at a reduced size, and what is published is what the scripts say."""

import importlib.util
from pathlib import Path

import jupytext
import nbformat
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("[0-9]*.py"))
SAMPLES = {path.name for path in SCRIPTS if "oti.sample(" in path.read_text()}  # minutes, mostly of compilation
LARGEST = 2_000_000  # bytes of a published notebook

spec = importlib.util.spec_from_file_location("make_notebooks", EXAMPLES / "make_notebooks.py")
make_notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_notebooks)


@pytest.mark.parametrize(
    "script", [pytest.param(p, marks=[pytest.mark.slow] * (p.name in SAMPLES), id=p.stem) for p in SCRIPTS]
)
def test_notebook_runs(script, monkeypatch):
    monkeypatch.setenv("OTIBAYES_QUICK", "1")
    notebook = make_notebooks.executed(script)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_published_notebook_is_that_of_its_script(path):
    published = nbformat.read(path, as_version=4)
    script = jupytext.read(path.with_suffix(".py"))
    assert [(cell.cell_type, cell.source) for cell in published.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ], "run `make notebooks`"
    assert path.stat().st_size < LARGEST
    text = path.read_text()
    assert '"output_type": "error"' not in text and '"name": "stderr"' not in text


def test_every_script_says_its_kernel():
    for script in SCRIPTS:
        assert jupytext.read(script).metadata.kernelspec.name == "python3"
