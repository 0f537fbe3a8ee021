# `make run` and `make test` do everything from a clean clone: virtual environment, install, the work itself.
# Needs python3 (3.11 or newer) and make; the network is used by pip alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXPERIMENT ?= llama3_70b_h200x8
OUT ?= runs/$(EXPERIMENT)
SILICON ?= ../shared/silicon
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test lint pytest check validate compare-tables bench-dram bench-noc bench-sweep \
	docs clean

help:
	@echo "make run         install and simulate experiments/$(EXPERIMENT) into $(OUT)"
	@echo "make test        install, lint, type-check and run the tests"
	@echo "make validate    the slower validation: against measurements and other simulators"
	@echo "make bench-dram  how fast the DRAM kernel is on this machine"
	@echo "make bench-noc   how fast the router kernel is on this machine"
	@echo "make bench-sweep how many points a second a sweep does, and how much memory a long one takes"
	@echo "make docs        build the documentation into docs/_build/html, warnings as errors"
	@echo "make clean       remove the virtual environment, caches and runs"

run: install
	@echo "== simulating experiments/$(EXPERIMENT)"
	$(BIN)/archsim run experiments/$(EXPERIMENT)/experiment.yaml --out $(OUT)

test: lint pytest check

lint: install-dev
	@echo "== ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== mypy"
	$(BIN)/mypy
	@echo "== import-linter"
	$(BIN)/lint-imports

pytest: install-dev
	@echo "== pytest"
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	@echo "== pytest, kernels interpreted"
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m interpreted tests/exact tests/device

# The experiments with a baseline that need nothing but this repository.
check: install-dev
	@echo "== archsim check: simulated metrics against their baselines"
	$(BIN)/archsim check $(dir $(wildcard experiments/*/baseline.json))

validate: install-dev
	@echo "== validation tests"
	$(BIN)/python -m pytest -q -m validate $(PYTEST_ARGS)
	@if [ -d "$(SILICON)" ]; then $(MAKE) --no-print-directory compare-tables; \
	else echo "== no measurements in $(SILICON): comparison skipped (SILICON=DIR names another folder)"; fi

compare-tables: install
	@echo "== predictions against $(SILICON)"
	$(BIN)/archsim compare h200 $(wildcard $(SILICON)/h200_vllm*.parquet) --out runs/compare_h200
	$(BIN)/archsim compare h200x8 $(wildcard $(SILICON)/h200_nccl*.parquet) --out runs/compare_h200x8

bench-dram: install-dev
	@echo "== DRAM kernel"
	$(BIN)/python benchmarks/dram.py

bench-noc: install-dev
	@echo "== router kernel"
	$(BIN)/python benchmarks/noc.py

bench-sweep: install-dev
	@echo "== sweep: one worker and two"
	$(BIN)/python benchmarks/sweep.py
	@echo "== sweep: memory of 10000 points"
	$(BIN)/python benchmarks/sweep.py --memory

docs: install-dev
	@echo "== documentation"
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# The dev flavour holds everything the other has, so one stamp may stand in for both.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing archsim"
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing archsim with its development tools"
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "archsim needs Python 3.11 or newer, this is $$($(PYTHON) --version); try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python cannot make virtual environments: apt install python3-venv" >&2; exit 1; }
	@echo "== creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist runs docs/_build docs/_generated
	find archsim tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
