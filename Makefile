# make demo | test | lint | clean; the first three make .venv once and reuse it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := demo
.PHONY: demo test lint clean

PYTHON ?= python3
READY := .venv/.ready
PIP := PYTHONUNBUFFERED=1 .venv/bin/python -m pip install --no-input --disable-pip-version-check

demo: $(READY)
	@.venv/bin/umwelten demo

# One thread for each of the workers: more would wait for each other.
test: $(READY)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 -m "not slow"

lint: $(READY)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

clean:
	@rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last: an interrupted installation is done again.
$(READY): pyproject.toml constraints.txt
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or later is needed; name it as in: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is needed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv; this is done once and takes a few minutes (log: .venv/install.log)"
	@$(PIP) -c constraints.txt -e '.[dev]' 2>&1 | tee .venv/install.log | while IFS= read -r line; do \
	    if [ -t 1 ]; then printf '\r\033[K%.78s' "$$line"; fi; done \
	  || { echo; tail -n 20 .venv/install.log >&2; exit 1; }
	@if [ -t 1 ]; then printf '\r\033[K'; fi; echo "Installed."
	@touch $@
