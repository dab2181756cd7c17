# Needs python3 (3.11 or newer), make and git, nothing else. `make help` lists what there is.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
OUT    ?= runs/demo

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
# One thread a process: test workers and the processes that tests start share the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(READY)  ## make the virtual environment in .venv (again when the dependencies change)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) on this machine: install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "error: %s is Python %d.%d and Trunkline needs 3.11 or newer: install one and name it, as in: make PYTHON=python3.11 env" % ("$(PYTHON)", v[0], v[1]))'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian, Ubuntu: the package python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: env  ## train on the embedded demo set and design proteins with the result (OUT=runs/demo)
	$(BIN)/python -m app demo --out $(OUT)

test: env  ## run the tests, less the slow ones (JOBS=2 at a time)
	$(PYTEST) -m "not slow"

test-all: env  ## run every test
	$(PYTEST)

lint: env  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove the environment and what tools left behind; results stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find app tests -name __pycache__ -type d -prune -exec rm -rf {} +
