"""The pages name what exists: code, public names, commands, scripts, links. `make docs` builds them."""

import ast
import builtins
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import otibayes
from otibayes.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
PAGES = [path for path in PAGES if "_build" not in path.parts and path.parent.name not in ("api", "notebooks")]
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}


def named(pattern):
    return sorted({(match, page) for page, text in TEXT.items() for match in re.findall(pattern, text)})


def exists(dotted):
    parts = dotted.split(".")
    for i in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for name in parts[i:]:
            value = getattr(value, name, None)
        return value is not None
    return False


def test_code_that_pages_name_exists():
    wrong = [(name, page) for name, page in named(r"\botibayes(?:\.[A-Za-z_]\w*)+(?![\w(./-])") if not exists(name)]
    assert not [(name, page) for name, page in wrong if not name.endswith((".cff", ".css"))]


def test_public_names_that_pages_use_exist():
    assert not [(name, page) for name, page in named(r"\boti\.([A-Za-z_]\w*)") if not hasattr(otibayes, name)]


def test_every_public_name_is_in_the_reference():
    reference = set(re.findall(r"^ {3}([A-Za-z_]\w*)$", TEXT["docs/api.md"], re.M))
    assert set(otibayes.__all__) <= reference
    assert not [name for name in reference if not (hasattr(otibayes, name) or exists_below(name))]


def exists_below(name):
    return any(
        hasattr(importlib.import_module(f"otibayes.{place}"), name)
        for place in ("models", "generative", "classical.settings")
    )


def test_commands_that_pages_give_exist():
    blocks = [block for text in TEXT.values() for block in re.findall(r"^```.*?^```", text, re.M | re.S)]
    commands = {name for block in blocks for name in re.findall(r"^otibayes ([a-z]\w*)", block, re.M)}
    commands |= {name for name, _ in named(r"`otibayes ([a-z]\w*)")}
    assert commands <= set(main.commands), commands - set(main.commands)


def test_make_targets_that_pages_give_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert not [(name, page) for name, page in named(r"`make ([a-z-]+)") if name not in targets]


def test_files_that_pages_name_exist():
    missing = [
        (name, page)
        for name, page in named(r"\b((?:benchmarks|examples|docs|models|tests)/[\w/.-]+\.(?:py|md|ipynb|toml))\b")
        if not (ROOT / name).exists()
    ]
    assert not missing


def test_links_between_pages_lead_somewhere():
    for page, text in TEXT.items():
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            path = (ROOT / page).parent / target
            if path.parent.name == "notebooks":  # brought there when the pages are built
                path = ROOT / "examples" / path.name
            assert path.exists(), f"{page}: {target}"


@pytest.mark.parametrize(("script", "file"), [("calibrate.py", "calibration.csv"), ("stress.py", "stress.csv")])
def test_a_table_of_a_benchmark_on_its_page_is_that_of_its_rows(script, file):
    command = [f"benchmarks/{script}", "table", "--rows", f"benchmarks/{file}"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip() in TEXT["docs/checks.md"]


PYTHON = [
    (page, block) for page, text in TEXT.items() for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
]


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[page for page, _ in PYTHON])
def test_python_of_pages_compiles_and_what_needs_no_stars_or_files_runs(page, block):
    """All of a block runs where it defines every name that it uses and reads no file; of others the imports."""
    code, tree = compile(block, page, "exec"), ast.parse(block)
    nodes = list(ast.walk(tree))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {alias.asname or alias.name for node in imports for alias in node.names}
    whole = {node.id for node in names} <= bound and not re.search(r"\.(fits|csv|nc)\b", block)
    exec(code if whole else compile(ast.Module(imports, []), page, "exec"), {})


LONG = 100


@pytest.mark.parametrize("page", TEXT)
def test_lines_of_prose_are_short(page):
    prose = re.sub(r"^(```|\$\$).*?^\1", "", TEXT[page], flags=re.M | re.S)  # code and equations are not
    assert not [line for line in prose.splitlines() if len(line) > LONG and not line.startswith(("|", "!", "    "))]
