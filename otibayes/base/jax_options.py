"""Options of JAX, set whether or not JAX is imported yet; among them the folder where compiled programs are kept."""

import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "keep_compiled_programs", "set_jax_option"]

CACHE_VARIABLE = "OTIBAYES_CACHE"  # a folder, "on", or "off"
_WORTH_KEEPING = 0.1  # s of compilation; JAX' own 1 s leaves most of our programs out


def set_jax_option(name: str, value: bool | float | str) -> None:
    """Set an option such as "jax_enable_x64": in JAX where it is imported, else in the environment that it will read.

    The import of JAX takes longer than `otibayes --help` may.
    """
    if "jax" in sys.modules:
        sys.modules["jax"].config.update(name, value)
    else:
        os.environ[name.upper()] = str(value)


def keep_compiled_programs(default: str = "on") -> None:
    """Keep compiled programs between runs, in the folder that the environment variable OTIBAYES_CACHE says.

    "on" means the user's cache folder, "off" none, anything else is a folder; `default` is for a variable that is not
    set. Nothing is done where JAX has a cache already (JAX_COMPILATION_CACHE_DIR) or the folder cannot be written.
    """
    wanted = os.environ.get(CACHE_VARIABLE) or default
    if wanted.lower() in ("off", "0", "no", "false") or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = _user_cache() if wanted.lower() in ("on", "1", "yes", "true") else Path(wanted).expanduser()
    folder = folder / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return
    set_jax_option("jax_compilation_cache_dir", str(folder))
    set_jax_option("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)


def _user_cache() -> Path:
    """The platform's folder for files that a program can make again."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "otibayes"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "otibayes"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "otibayes"


def _processor() -> str:
    """A name of this kind of processor: machines that share a home folder may differ in their instructions."""
    features = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
