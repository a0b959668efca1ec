# Everything a contributor runs. A fresh machine needs Python 3.11 or later, make and a shell; `make` alone lists the rest.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
PY      = $(VENV)/bin/python

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup hooks test coverage demo lint format types imports docs wheel smoke release bench bench-peers
.PHONY: growth longrun simulate mutants chaos
.PHONY: ci clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.13 chooses the interpreter; ARGS='-k bound -x' goes to pytest, the demo or the benchmarks."

setup: $(VENV)/.ready-dev ## Install everything a contributor needs into .venv

hooks: $(VENV)/.ready-dev ## Let git lint each commit, and check types before each push
	@$(VENV)/bin/pre-commit install

test: $(VENV)/.ready-test ## Run the fast tests
	@$(PY) -m pytest $(ARGS)

coverage: $(VENV)/.ready-test ## Run the fast tests and show the lines they miss
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest $(ARGS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report

demo: $(VENV)/.ready-demo ## Start the demo (DEMO_SECONDS ends it by itself, DEMO_PORT chooses the port)
	@exec $(PY) -m project.demo $(ARGS)

lint: $(VENV)/.ready-dev ## Check style, and that imports point one way
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(MAKE) --no-print-directory imports

imports: $(VENV)/.ready-dev ## Check that imports point one way
	@$(VENV)/bin/lint-imports --no-cache

format: $(VENV)/.ready-dev ## Put style right
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: $(VENV)/.ready-dev ## Check types: mypy on the package, mypy and pyright on what users write
	@$(PY) -m mypy jobify_django tests/typing
	@if test -d tests/typing; then $(PY) -m pyright tests/typing; else echo "pyright: tests/typing is not there yet"; fi

docs: $(VENV)/.ready-dev ## Build the documentation; a warning is an error
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: $(VENV)/.ready-test ## Build the wheel into dist/ and check what is in it
	@rm -rf dist
	@$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .
	@$(PY) .ci/check_wheel.py dist/*.whl

smoke: wheel ## Install the wheel into an empty project and run a job there
	@.ci/smoke $(PYTHON) "$(DJANGO)" dist/*.whl

release: ## Build and try what would be uploaded (VERSION=0.2.0); it uploads nothing
	@.ci/release $(VERSION)

bench: $(VENV)/.ready-bench ## Run the benchmarks
	@$(PY) -m benchmarks $(ARGS)

growth: $(VENV)/.ready-growth ## Draw how it grows (SERVER=postgresql://... or SQLite; ARGS="pools --scale 0.1")
	@$(PY) -m benchmarks.growth $(if $(SERVER),--server $(SERVER)) --images $(or $(IMAGES),docs/images) $(ARGS)

longrun: $(PY) ## An hour at 500 jobs/s beside procrastinate and awa (SERVER=postgresql://...; ARGS="--seconds 60")
	@$(PY) -m benchmarks.long_run $(if $(SERVER),--server $(SERVER)) $(ARGS)

# Only the standard library is needed here: each contestant has an environment of its own below .venv-peers.
bench-peers: ## Run Jobify beside its peers (STORE=postgresql ROUNDS=3 SCALE=1 ONLY="huey awa" ROWS="push both")
	@$(PYTHON) -m benchmarks.peers --store $(or $(STORE),sqlite) --rounds $(or $(ROUNDS),3) --scale $(or $(SCALE),1) \
	  --only '$(ONLY)' --rows '$(ROWS)' $(if $(filter file,$(origin PYTHON)),,--python '$(PYTHON)') $(ARGS)

simulate: $(VENV)/.ready-test ## Hunt for a seed that breaks the pools in simulated time (ARGS="--seed 17" replays one)
	@$(PY) -m tests.simulation $(or $(ARGS),--seconds 60)

mutants: $(VENV)/.ready-test ## Plant known bugs in a copy, and see whether the tests find them
	@$(PY) -m tests.simulation.mutants $(ARGS)

chaos: $(VENV)/.ready-chaos ## Break things on purpose (STORE=postgresql, SEED=7, SCALE=0.1; ARGS="kills bound" chooses)
	@$(PY) -m chaos --store $(or $(STORE),sqlite) $(if $(SEED),--seed $(SEED)) --scale $(or $(SCALE),1) $(ARGS)

ci: ## Run what continuous integration runs
	@.ci/run

clean: ## Remove what these targets made
	@rm -rf $(VENV) .venv-peers .ci/venv-* .ci/log dist build docs/_build .coverage .coverage.* htmlcov
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Jobify for Django needs Python 3.11 or later, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version 2>&1)"
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

# One stamp for each dependency group: set-up runs again only when pyproject.toml has changed.
$(VENV)/.ready-%: pyproject.toml | $(PY)
	@echo "Installing the '$*' dependencies into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --group $* --editable .
	@touch $@
