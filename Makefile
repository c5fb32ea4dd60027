# make demo [seed=1]   the whole job on Two-Room: collect, train, evaluate, report
# make test            the test suite
# make test-slow       the tests marked slow, the demo's bounds among them
# make lint            style and import rules
# make pictures        the pictures of docs/envs.md
# make clean           remove the environment; runs and data stay
#
# PYTHON=python3.12 chooses the interpreter; PIP_ARGS="--index-url ..." reaches pip (README: CPU build of torch).

PYTHON ?= python3
PIP_ARGS ?=
seed ?= 0
out ?= runs/demo$(if $(filter-out 0,$(seed)),-seed$(seed))
BIN := .venv/bin
TIMED := $(patsubst %,tests/test_planners/test_%.py,background clock mpc)  # tests about time: alone
BOUNDED := tests/test_experiments/test_demo.py  # time limits: alone

.PHONY: demo test test-slow lint pictures clean

demo: .venv/installed
	$(BIN)/lewm demo seed=$(seed) out=$(out)

test: .venv/installed-dev
	$(BIN)/python -m pytest -q $(TIMED)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadgroup $(TIMED:%=--ignore=%)

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -m slow $(BOUNDED)
	$(BIN)/python -m pytest -q -m slow -n auto --maxprocesses 4 --dist loadgroup --durations=12 $(BOUNDED:%=--ignore=%)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

pictures: .venv/installed-dev
	$(BIN)/python docs/envs/make.py

clean:
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: lewm needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 2; }
	@echo "setting up .venv (about 700 MB with a CPU build of torch) ..."
	@test -d .venv || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --constraint constraints.txt --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@touch $@
