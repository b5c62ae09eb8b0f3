# Newcomers: `make quickstart` (set-up and the main job) and `make test` (set-up and tests).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install quickstart test test-more test-cluster lint bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[test,lint]'
	@touch $@

quickstart: install
	$(BIN)/seodang train configs/quickstart.yaml
	$(BIN)/seodang export configs/quickstart.yaml
	$(BIN)/seodang routing configs/quickstart.yaml --without all
	$(BIN)/seodang report configs/quickstart.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q

# What `test` leaves out and this machine can do: slow tests, local servers, kill -9 at random moments.
test-more: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m 'slow or server or kill'

# The same steps on a real Ray and, as root on Debian, on a real Slurm of this machine, which is stopped at the end.
test-cluster: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet -e '.[ray]'
	.ci/slurm $(BIN)/python -m pytest -q -m 'slurm or ray' tests/cluster

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m benchmarks --list

clean:
	rm -rf runs
