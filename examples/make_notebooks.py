"""Run the notebooks: every numbered script of this folder becomes an executed .ipynb beside it.

    python examples/make_notebooks.py [NAME ...] [--output DIR]

A name is the beginning of a script's, such as 07. With OTIBAYES_QUICK=1 the notebooks take fewer stars and draws; then
give another folder. Outputs hold no times and no versions, so that the same results make the same file.
"""

import argparse
import os
import subprocess
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
LIMIT = 1800  # s a cell


def scripts(names: list[str]) -> list[Path]:
    return [path for path in sorted(HERE.glob("[0-9]*.py")) if not names or path.name.startswith(tuple(names))]


def executed(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, run in this folder; an error in a cell is raised."""
    notebook = jupytext.read(script)
    client = NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": str(HERE)}})
    inline = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    client.execute(stderr=subprocess.DEVNULL, env=inline)  # of the kernel itself; what a cell says is an output
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata.pop("execution", None)  # times
        cell["outputs"] = [one for one in cell.get("outputs", []) if one.get("name") != "stderr"]  # progress bars
        if cell.cell_type != "code":
            del cell["outputs"]
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--output", type=Path, default=HERE)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for script in scripts(given.names):
        path = given.output / script.with_suffix(".ipynb").name
        nbformat.write(executed(script), path)
        print(f"written: {path} ({path.stat().st_size // 1000} kB)", flush=True)


if __name__ == "__main__":
    main()
