# Everything a new machine needs: Python >= 3.11 with venv, pip, make, git.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt

DATA   ?= hh
BENCH  ?=
JOBS   ?= 2
PURE   := tests/config tests/maths tests/data/formats tests/test_house.py \
          tests/test_records.py tests/test_fingerprint.py tests/test_files.py tests/test_runs.py
SUITE  := $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal --durations=10

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-quick test-all bench lint format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

quickstart: $(VENV)/.installed ## Align the bundled model on the bundled pairs (minutes on two CPU cores)
	$(BIN)/tiebreak train

test: lint ## All checks and all tests, in JOBS=2 processes (forty minutes on two slow CPU cores)
	PYTHONHASHSEED=0 $(SUITE)

test-quick: lint ## All checks, and the tests of words, forms and mathematics (a minute or two)
	$(BIN)/python -m pytest --durations=10 $(PURE)

test-all: lint ## All tests in their long form, with inputs drawn anew (hours)
	TIEBREAK_LONG=1 $(SUITE)

bench: $(VENV)/.tested ## Speed and memory beside TRL on real pairs (DATA=hh, ultrafeedback, summedits or a file; half an hour)
	$(BIN)/python benchmarks/throughput.py --data $(DATA) $(BENCH)

lint: $(VENV)/.tested ## Style, types, import floors, dependencies, what is cut too small
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/dependencies.py
	$(BIN)/python scripts/house.py --most 25

format: $(VENV)/.tested ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tested: $(BIN)/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed
