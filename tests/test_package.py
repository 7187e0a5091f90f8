"""The package: what the wheel holds, that imports run one way, and that no file names a machine or a registry."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"otibayes": ROOT / "otibayes", "otibayes/models": ROOT / "models"}

# ---- the wheel


def shipped_files():
    """Every file of the package by its path in the wheel: Python, and the data beside it."""
    suffixes = {".py", ".ecsv", ".fits", ".toml"}
    return {
        f"{where}/{path.relative_to(folder).as_posix()}"
        for where, folder in SOURCES.items()
        for path in folder.rglob("*")
        if path.suffix in suffixes
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without network from a copy, so that nothing is left behind in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("otibayes", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", out, source]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("otibayes-*.whl"))


def test_wheel_holds_every_module_and_data_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == shipped_files()


def test_import_from_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    models = sorted(path.stem for path in SOURCES["otibayes/models"].glob("[!_]*.py"))
    assert models
    # -I leaves the current folder out; the wheel goes before an editable install's own finder
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import otibayes
from otibayes.models import {", ".join(models)}
print(otibayes.__file__, *(model.__code__.co_filename for model in ({", ".join(models)},)), sep="\\n")
"""
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(tmp_path) for line in done.stdout.split())


def test_editable_install_finds_models(tmp_path):
    code = "import otibayes.models as models; print(*models.__path__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, f"run `make env`: {done.stderr}"
    assert Path(done.stdout.strip()).name == "models"


# ---- imports run one way

# each package may import those before it; classical and generative never import one another
BELOW = ["base", "dynamics", "stars", "results"]
PATHS = ["classical", "generative", "models"]
MAY_IMPORT = {
    **{name: set(BELOW[:i]) for i, name in enumerate(BELOW)},
    "classical": set(BELOW),
    "generative": {*BELOW, "models"},  # a model's name is looked up there
    "models": {*BELOW, "generative"},
    "analysis": {*BELOW, *PATHS},
    "cli": {*BELOW, *PATHS, "analysis"},
    "__init__": set(),
}
# library: the packages or modules that may import it; dynamics.reference is gala's door, and gala speaks in units
CONFINED = {
    "matplotlib": {"analysis.plot"},
    "arviz": {"generative.groups", "analysis", "cli"},
    "xarray": {"results", "classical.fit", "classical.groups", "generative.sample", "generative.groups"}
    | {"generative.model", "analysis", "cli"},
    "astropy": {"base.constants", "stars", "dynamics", "cli"},
    "click": {"cli"},
}


def modules():
    """(unit, dotted name, path) of every module; the unit is a folder or a module right under otibayes."""
    for where, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [*where.split("/"), *path.relative_to(folder).with_suffix("").parts]
            yield parts[1], ".".join(parts), path


def imported(name, path):
    """Absolute dotted names that a module imports, anywhere in it."""
    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*origin, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("unit", "name", "path"), [pytest.param(*m, id=m[1]) for m in modules()])
def test_imports_run_one_way(unit, name, path):
    assert unit in MAY_IMPORT, f"say in tests/test_package.py what {unit} may import"
    for target in imported(name, path):
        library, _, rest = target.partition(".")
        if library == "otibayes":
            assert rest.split(".")[0] in MAY_IMPORT[unit] | {unit}, f"{name} must not import {target}"
        elif library in CONFINED:
            inside = any(f"{name}.".startswith(f"otibayes.{place}.") for place in CONFINED[library])
            assert inside, f"{name} must not import {target}: only {sorted(CONFINED[library])} may"


def test_import_is_light():
    """Plotting starts when something is plotted, and float64 is on from the import."""
    code = "import otibayes, jax, sys; print('matplotlib.pyplot' in sys.modules, jax.numpy.ones(1).dtype)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "float64"], done.stderr


# ---- nothing names a machine or a registry

# in pieces, so that this file does not name them either
FOREIGN = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "regist" + "ry.npmjs",
    "anaconda" + ".org",
    "--index" + "-url",
    "/ro" + "ot/",
    "/wo" + "rk/",
    "/ho" + "me/",
    "/Us" + "ers/",
    "/opt/" + "py" + "pi",
]


def test_no_file_names_a_machine_or_a_registry():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    pattern = re.compile("|".join(map(re.escape, FOREIGN)).encode())
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    found = {
        f"{path.relative_to(ROOT)}: {match.decode()}"
        for path in paths
        if path.is_file()
        for match in pattern.findall(path.read_bytes())
    }
    assert not found
    assert not (ROOT / "uv.lock").exists()
