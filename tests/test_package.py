"""The package: what the wheel holds, that imports run one way, and that no file names a machine or a registry."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"otibayes": ROOT / "otibayes", "otibayes/models": ROOT / "models"}

# ---- the wheel


def shipped_files():
    """Every file of the package by its path in the wheel: Python, and the data beside it."""
    suffixes = {".py", ".ecsv", ".fits", ".toml", ".typed", ".html"}
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


def test_the_wheel_is_typed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert "otibayes/py.typed" in archive.namelist()


# ---- the lock file


def test_lock_holds_every_dependency_at_a_version_that_fits():
    """`make lock` writes it anew; a dependency of pyproject.toml that it lacks would be missed by `make env`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = map(Requirement, [*project["dependencies"], *chain(*project["optional-dependencies"].values())])
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z]", line)]
    versions = {r.name: str(r.specifier).removeprefix("==") for r in locked}
    wrong = {
        str(r): versions.get(canonicalize_name(r.name))
        for r in wanted
        if r.name != project["name"] and not r.specifier.contains(versions.get(canonicalize_name(r.name), "0"))
    }
    assert not wrong, "run `make lock`"
    assert len(lines) == sum(bool(re.match(r"[a-z]|    --hash=sha256:[0-9a-f]{64}", line)) for line in lines)


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
    "__init__": {"base"},
}
# library: the packages or modules that may import it; dynamics.reference is gala's door, and gala speaks in units
CONFINED = {
    "matplotlib": {"analysis.plot", "cli.__init__"},  # the command line imports it without the user's settings
    "arviz": {"generative.result_groups", "analysis", "cli"},
    "xarray": {"results", "classical.fit", "classical.joint", "classical.result_groups", "generative.sample"}
    | {"generative.model", "generative.result_groups", "analysis", "cli"},
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


def in_a_new_process(code, **environment):
    """What a piece of Python prints, in an environment without JAX' and our own variables but these."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "OTIBAYES_"))} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_is_light():
    """Neither JAX nor what reads tables and draws figures is imported before it is needed."""
    heavy = ["jax", "astropy", "scipy", "pandas", "matplotlib", "gala", "galpy", "arviz", "numpyro", "xarray"]
    assert in_a_new_process(f"import otibayes, sys; print(*(m for m in {heavy} if m in sys.modules))") == []
    assert in_a_new_process(f"import otibayes.cli, sys; print(*(m for m in {heavy} if m in sys.modules))") == []
    heavy = ["scipy", "pandas", "matplotlib", "gala", "galpy", "arviz", "numpyro", "xarray"]
    code = "import sys, otibayes as oti; oti.read_stars, oti.action_angle, oti.phase_space"
    assert in_a_new_process(f"{code}; print(*(m for m in {heavy} if m in sys.modules))") == []


@pytest.mark.parametrize("first", ["import otibayes, jax", "import jax, otibayes"])
def test_float64_is_on_whichever_is_imported_first(first):
    assert in_a_new_process(f"{first}; print(jax.numpy.ones(1).dtype)") == ["float64"]


# ---- compiled programs

LEAST = "jax_persistent_cache_min_compile_time_secs"
COMPILE = f"jax.config.update('{LEAST}', 0.0); jax.jit(lambda x: jax.numpy.linalg.inv(x) @ x)(jax.numpy.eye(3))"


@pytest.mark.parametrize("first", ["import otibayes", "import jax, otibayes"])
def test_compiled_programs_are_kept_on_request(first, tmp_path):
    cache = {"OTIBAYES_CACHE": str(tmp_path / "cache")}
    in_a_new_process(f"{first}; import jax; {COMPILE}", **cache)
    assert list(tmp_path.rglob("jit_*"))


@pytest.mark.parametrize("wanted", ["off", "0", ""])
def test_compiled_programs_are_not_kept_unasked(wanted):
    code = "import otibayes, jax; print(jax.config.jax_compilation_cache_dir)"
    assert in_a_new_process(code, OTIBAYES_CACHE=wanted) == ["None"]


def test_the_command_line_keeps_compiled_programs(tmp_path):
    keep = "import jax, otibayes.base.jax_options as o; o.keep_compiled_programs()"
    code = f"{keep}; print(jax.config.jax_compilation_cache_dir)"
    inside = in_a_new_process(
        code.format("jax_compilation_cache_dir"), XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path)
    )
    assert Path(inside[0]).is_relative_to(tmp_path)
    theirs = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "theirs")}
    assert in_a_new_process(code.format("jax_compilation_cache_dir"), **theirs) == [str(tmp_path / "theirs")]


def test_a_cache_that_cannot_be_written_is_left_out(tmp_path):
    (tmp_path / "file").touch()
    code = "import otibayes, jax; print(jax.config.jax_compilation_cache_dir)"
    assert in_a_new_process(code, OTIBAYES_CACHE=str(tmp_path / "file" / "below")) == ["None"]


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
