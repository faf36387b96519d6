# make train       makes .venv (once, a few minutes) and trains the default; make train ARGS="data=moons trainer.epochs=5"
# make test        the test suite; make test ARGS="-k resume -x"
# make coverage    the same, with the lines it runs counted, which takes nearly twice as long; fails below 90 %
# make test-lowest the same in .venv-lowest, with the oldest versions that pyproject.toml allows
# make check       format, lint, types, layers
# make format      what make check would complain about, as far as ruff can repair it
# make clean       removes .venv, .venv-lowest, caches and builds; runs (outputs/) and data stay
.PHONY: train test test-lowest coverage check format clean
.DEFAULT_GOAL := train

ARGS =
BIN = .venv/bin
# The first Python that is new enough; a pyenv shim may be there and not work.
PYTHON = $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

train: .venv/installed
	$(BIN)/dlrun train $(ARGS)

test: .venv/installed
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

coverage: override ARGS += --cov --cov-report=term --cov-fail-under=90
coverage: test

test-lowest: .venv-lowest/installed
	.venv-lowest/bin/pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

define install
	@test -n "$(PYTHON)" || { echo "dlrun needs Python 3.11 or newer; make PYTHON=/path/to/python3 names one"; exit 1; }
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	@echo "Installing dlrun and what it needs into $(1): a few minutes, once."
	$(1)/bin/python -m pip install --quiet -c $(2) -e '.[dev]'
	@touch $@
endef

.venv/installed: pyproject.toml constraints.txt setup.py
	$(call install,.venv,constraints.txt)

.venv-lowest/installed: pyproject.toml .ci/lowest.txt setup.py
	$(call install,.venv-lowest,.ci/lowest.txt)

clean:
	rm -rf .venv .venv-lowest build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
