"""Sphinx: the pages beside this file, the notebooks of examples/, and the API from docstrings."""

import os
import shutil
import tomllib
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
author = _PROJECT["authors"][0]["name"]
copyright = f"2026, {author}"
version = release = _PROJECT["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "_templates"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make notebooks` runs them; their outputs are in the files
default_role = "py:obj"  # docstrings write names between single backticks; those that are documented become links
autodoc_typehints = "none"  # signatures stay short; docstrings give shapes and units
autodoc_member_order = "bysource"
autosummary_generate = True
doctest_global_setup = "import otibayes as oti"

html_theme = "pydata_sphinx_theme"
html_title = f"otibayes {version}"
html_static_path = ["_static"]
html_css_files = ["otibayes.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": False,
    "navbar_center": [],  # all pages are in the sidebar, by section
}
html_sidebars = {"**": ["globaltoc.html"]}

# The packages whose objects the pages link to. Without network, or with OTIBAYES_DOCS_OFFLINE set, the links stay out.
_PEERS = {
    "arviz": "https://python.arviz.org/en/stable/",
    "astropy": "https://docs.astropy.org/en/stable/",
    "gala": "https://gala.adrian.pw/en/latest/",
    "galpy": "https://docs.galpy.org/en/stable/",
    "jax": "https://docs.jax.dev/en/latest/",
    "numpyro": "https://num.pyro.ai/en/stable/",
    "xarray": "https://docs.xarray.dev/en/stable/",
}


def _reachable(address: str) -> bool:
    try:
        with urlopen(f"{address}objects.inv", timeout=3):
            return True
    except OSError:
        return False


def _peers() -> dict[str, tuple[str, None]]:
    if os.environ.get("OTIBAYES_DOCS_OFFLINE") or not _reachable(_PEERS["astropy"]):
        return {}
    return {name: (address, None) for name, address in _PEERS.items() if _reachable(address)}


intersphinx_mapping = _peers()


def _bring(folder: str, pattern: str) -> None:
    """Copies of files that live elsewhere in the repository, because Sphinx reads below docs/ only."""
    target = Path(__file__).parent / folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted(ROOT.glob(pattern)):
        shutil.copy(path, target)


_bring("notebooks", "examples/*.ipynb")
shutil.rmtree(Path(__file__).parent / "api", ignore_errors=True)  # pages of names that are no longer there


def _skip(app, what, name, member, skip, options):
    """Fields of named tuples say nothing that the class does not say."""
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field") else skip


def _escape(app, what, name, obj, options, lines):
    """|z| is a modulus in our docstrings, not a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", _escape)
    app.connect("autodoc-skip-member", _skip)
