# The verbs of the house. Everything happens in .venv, with plain pip.

PYTHON ?= python3
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip
SPEC   ?= experiments/cad_darkroom.toml
PYTEST ?= -m "not slow" --durations=15

GPU_WHEELS := cattrs gymnasium farama-notifications cloudpickle click tomli pytest-timeout
PURE       := --platform any --python-version 3.12 --implementation py --abi none

BENCHMARKS := act collect equality sources store train
TYPED_TESTS := tests packages/cccad-core/tests packages/cccad-envs/tests packages/cccad-train/tests
OF_TESTS := --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls --allow-untyped-decorators
PROJECTS := $(wildcard packages/*/pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help run test lint types wheels bench bench-gpu gpu-wheels mutants kills worlds clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

run: .venv/stamp-run  ## set up .venv and run the main experiment (SPEC=... for another)
	$(BIN)/cccad-run $(SPEC)

test: .venv/stamp-dev  ## set up .venv and run the tests, without the slow ones (PYTEST="-m slow" for those)
	$(BIN)/python -m pytest $(PYTEST)

lint: .venv/stamp-dev types  ## ruff, import contracts, size limits and types
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@for package in packages/*; do (cd $$package && ../../$(BIN)/deptry src --no-ansi) || exit 1; done
	$(BIN)/python tools/check_house.py
	$(BIN)/python studies/tables.py --check

types: .venv/stamp-dev  ## mypy --strict over every src, plugins, tools, studies and benchmarks, and over the tests
	$(BIN)/mypy
	@for folder in $(TYPED_TESTS); do echo "$$folder"; MYPYPATH=$$folder $(BIN)/mypy $(OF_TESTS) $$folder || exit 1; done

wheels: .venv/stamp-dev  ## build the four wheels into dist/ and test each one alone in a fresh environment
	$(BIN)/python tools/check_wheels.py

worlds:  ## test the environments of other packages, each group in a virtual environment of its own (GROUPS="mujoco minigrid")
	$(PYTHON) tools/worlds.py $(GROUPS)

bench: .venv/stamp-dev  ## run every benchmark; results land in benchmarks/results/
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

kills: .venv/stamp-dev  ## kill, stop and halt runs in all their stages, with one and two processes, and resume them (slow)
	$(BIN)/python -m pytest -m slow -s packages/cccad-train/tests/test_kills.py

bench-gpu:  ## test and measure on a GPU (PYTHON=... to choose whose torch); docs/testing.md says how without a network
	if [ -d .wheels ]; then $(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target .gpu .wheels/*.whl; fi
	PYTHONPATH=.gpu $(PYTHON) benchmarks/gpu/measure.py

gpu-wheels:  ## put into .wheels/ what a GPU machine without a network lacks: the four packages and what is not torch's
	rm -rf .wheels && mkdir .wheels
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir .wheels $(dir $(PROJECTS))
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: $(PURE) -c constraints.txt --dest .wheels $(GPU_WHEELS)

mutants: .venv/stamp-dev  ## change the code a little, 200 times: does a test fail each time? takes an hour
	$(BIN)/python tools/mutants.py

clean:  ## remove caches and built wheels; keeps .venv and runs/
	rm -rf dist .gpu .wheels .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find packages plugins tests tools studies benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than all that it was made from: an unchanged .venv is used again.

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/stamp-run: requirements.txt constraints.txt $(PROJECTS) | .venv/bin/python
	$(PIP) install --quiet -c constraints.txt -r requirements.txt
	@touch $@

.venv/stamp-dev: requirements-dev.txt .venv/stamp-run
	$(PIP) install --quiet -c constraints.txt -r requirements-dev.txt
	@touch $@
