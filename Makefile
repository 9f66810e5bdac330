# The commands that people need. Everything happens in .venv, made from PYTHON (3.11 or later) on first use.
# ARGS is handed on: make run ARGS='--seeds 0:4', make test ARGS='-k route', make bench ARGS=routing.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out/regret-sweep
ARGS ?=
TEST_JOBS ?= 2
CUDA ?= 13

export PIP_DISABLE_PIP_VERSION_CHECK = 1

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt -e

.DEFAULT_GOAL := help
.PHONY: help run test test-deep test-gpu gpu-compile check figures bench lint clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.core  ## the regret sweep: table on the terminal, figures and Parquet under OUT (resumes)
	$(BIN)/balancesim run regret-sweep --out $(OUT) $(ARGS)

test: $(VENV)/.test  ## the test suite, then the kernels once more without the JIT, with their coverage
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile $(ARGS)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest tests/kernels -q --no-header -n $(TEST_JOBS) \
	    --cov=balancesim.kernels --cov-report=term

test-deep: $(VENV)/.test  ## the minutes-long statistical tests, and the properties with 10,000 examples each
	$(BIN)/python -m pytest -m deep -n $(TEST_JOBS) --dist worksteal $(ARGS)

test-gpu: $(VENV)/.gpu  ## the tests that need a CUDA card (CUDA=12 or 13, the driver's version)
	$(BIN)/python -m pytest -m gpu tests/gpu $(ARGS)

gpu-compile: $(VENV)/.nvrtc  ## compile every kernel for sm_80 and sm_90; needs no card and no driver
	$(BIN)/python -m balancesim.kernels_cupy

check: $(VENV)/.core  ## the statements of the papers, each with its negative controls (minutes; resumes)
	$(BIN)/balancesim check $(ARGS)

figures: $(VENV)/.core  ## remake every figure under figures/ (some twenty minutes; resumes)
	$(BIN)/balancesim figures $(ARGS)

bench: $(VENV)/.bench  ## speed and memory against named peers, as ratios taken in one run (minutes)
	$(BIN)/balancesim bench $(ARGS)

lint: $(VENV)/.dev  ## ruff (style and format) and mypy (strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove what was built or cached, but neither the environment nor results
	rm -rf build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .coverage .coverage.*
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of extras: pip runs again only when the project's requirements change.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "balancesim needs Python 3.11 or later; say which: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP_INSTALL) .
	@touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP_INSTALL) '.[test]'
	@touch $@ $(VENV)/.core

$(VENV)/.gpu: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP_INSTALL) '.[test,cuda$(CUDA)]'
	@touch $@ $(VENV)/.test $(VENV)/.core

$(VENV)/.nvrtc: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP_INSTALL) '.[nvrtc]'
	@touch $@ $(VENV)/.core

$(VENV)/.bench: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP_INSTALL) '.[bench]'
	@touch $@ $(VENV)/.core

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP_INSTALL) '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.core
