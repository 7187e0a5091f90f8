# From a bare clone with git, make, and python3 + pip: every target below does its own set-up.

PYTHON := .venv/bin/python
STAMP := .venv/.up-to-date
# uv makes the environment. Where there is none, pip brings one into .uv, which works without the venv module and on
# externally managed Pythons alike.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)

.PHONY: help env demo demo-seeds classical-recovery objectives-recovery posterior-recovery test test-slow lint format calibrate stress \
  docs notebooks lock clean
.DELETE_ON_ERROR:

help:  ## Print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP)  ## Set up .venv: the locked packages, and otibayes itself, editable

demo: env  ## Embedded stars with known truth -> both paths -> table, figures, results
	.venv/bin/otibayes demo

posterior-recovery: env  ## Five catalogues of 20,000 stars: the truth's distance from the posterior; resumes
	$(PYTHON) benchmarks/posterior_recovery.py

demo-seeds: env  ## The demo over 20 seeds: every miss of the 95% intervals
	$(PYTHON) benchmarks/demo_seeds.py

classical-recovery: env  ## The disk's mass by a2's zero crossing, over 100 catalogues of known truth; resumable
	$(PYTHON) benchmarks/classical_recovery.py

objectives-recovery: env  ## Equation 8 and chi^2 on twenty catalogues of 10,000 stars: deviations and values; resumable
	$(PYTHON) benchmarks/objectives_recovery.py

calibrate: env  ## Coverage of intervals over 60 catalogues of other field shapes and footprints: hours; resumes
	$(PYTHON) benchmarks/calibrate.py run
	$(PYTHON) benchmarks/calibrate.py table

stress: env  ## The shift that each broken assumption makes, 20,000 stars a stress: hours; resumes
	$(PYTHON) benchmarks/stress.py run
	$(PYTHON) benchmarks/stress.py table

test: env  ## The tests, but for the slow ones
	$(PYTHON) -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: env  ## The slow tests
	$(PYTHON) -m pytest -m slow

lint: env  ## Lint, formatting, types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: env  ## Format, and mend what the linter can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

docs: env  ## The documentation, into docs/_build/html; warnings are errors
	.venv/bin/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	.venv/bin/sphinx-build -W --keep-going -q -b doctest docs docs/_build/doctest

notebooks: env  ## Run every notebook of examples/ anew and keep its outputs
	$(PYTHON) examples/make_notebooks.py

lock: $(filter .uv/%,$(UV))  ## Write requirements.lock anew from pyproject.toml, keeping the versions that still fit
	$(UV) pip compile pyproject.toml --extra dev --generate-hashes --universal \
	  --no-header --no-annotate --no-emit-index-url --quiet -o requirements.lock

clean:  ## Remove the environment and everything built
	rm -rf .venv .uv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache

# From /, so that a pyenv shim does not insist on the version in .python-version.
.uv/bin/uv:
	@cd / && python3 -m pip install --quiet --upgrade --target "$(CURDIR)/.uv" uv || { \
	  echo "Error: this needs python3 with pip, or uv, to set up its environment; install one of them" >&2; \
	  exit 1; }

# The version in .python-version, else any that fits, else a download. PYENV_VERSION names every version that pyenv has,
# because a shim fails where its version is not chosen.
.venv/pyvenv.cfg: .python-version | $(filter .uv/%,$(UV))
	@rm -rf .venv
	@export PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | paste -sd: -)"; \
	wanted="$$(cat .python-version)"; \
	$(UV) venv --quiet --no-python-downloads --python "$$wanted" .venv 2>/dev/null || \
	$(UV) venv --quiet --no-python-downloads --python '>=3.12' .venv 2>/dev/null || \
	$(UV) venv --quiet --python "$$wanted" .venv 2>/dev/null || { \
	  echo "Error: otibayes needs Python 3.12 or later; none is here, and $$wanted cannot be downloaded; install one" >&2; \
	  exit 1; }

# --python, because otherwise an activated environment would be the one that is changed.
$(STAMP): .venv/pyvenv.cfg requirements.lock pyproject.toml | $(filter .uv/%,$(UV))
	$(UV) pip sync --python $(PYTHON) --require-hashes requirements.lock
	$(UV) pip install --python $(PYTHON) --quiet --no-build-isolation --no-deps --editable .
	touch $@
