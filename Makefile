# make train       makes .venv (once, a few minutes) and trains the default; make train ARGS="data=moons trainer.epochs=5"
# make test        the test suite; make test ARGS="-k resume -x"
# make coverage    the same, with the lines it runs counted, which takes nearly twice as long; fails below 90 %
# make check       format, lint, types, layers
# make format      what make check would complain about, as far as ruff can repair it
# make clean       removes .venv, caches and builds; runs (outputs/) and data stay
.PHONY: train test coverage check format clean
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

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml constraints.txt setup.py
	@test -n "$(PYTHON)" || { echo "dlrun needs Python 3.11 or newer; make PYTHON=/path/to/python3 names one"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing dlrun and what it needs into .venv: a few minutes, once."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
