# make install | demo | check | test | docs | bench | ui | explore | dft: each sets up .venv first, with nothing but python3, venv and pip.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	@echo "Installing into .venv: a few minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) --editable '.[all,dev]'
	touch $@

demo: install
	$(BIN)/python examples/demo.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Lint, types and most tests that neither start a Ray nor train a network: some 150 core-seconds with a warm mypy cache.
check: lint
	$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target check-structures check-spectra

check-structures: install
	$(BIN)/python -m pytest tests/structure tests/data tests/test_elements.py --ignore=tests/structure/test_invariance.py

check-spectra: install
	$(BIN)/python -m pytest tests/config tests/dos tests/query tests/storage tests/evaluate tests/verify tests/active_learning tests/test_layout.py tests/test_readme.py --ignore=tests/config/test_settings.py

test: lint
	$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-distributed test-screening test-cli test-stores test-library

# Two at a time, the longest first: tests that start a Ray wait for some of their time.
test-screening: install
	$(BIN)/python -m pytest tests/cli/test_screen.py tests/cli/test_screen_faults.py

test-stores: install
	$(BIN)/python -m pytest tests/cli/test_screen_disk.py tests/cli/test_screen_files.py tests/cli/test_screen_store.py

test-cli: install
	$(BIN)/python -m pytest tests/cli --ignore-glob='*/test_screen*'

test-distributed: install
	$(BIN)/python -m pytest tests/distributed

test-library: install
	$(BIN)/python -m pytest --ignore=tests/distributed --ignore=tests/cli

# The site, in build/site: the tutorial is run, then all pages are built; a link to nowhere is an error.
docs: install
	rm -rf build/tutorial
	mkdir -p build
	$(BIN)/marimo export ipynb examples/tutorial.py --force --include-outputs --output build/tutorial.ipynb -- --folder $(CURDIR)/build/tutorial
	$(BIN)/python docs/write_pages.py build/docs build/tutorial.ipynb
	$(BIN)/zensical build --strict
	@echo "Open build/site/index.html, or for the search: $(BIN)/python -m http.server --directory build/site"

# The short measurements, beside their last results (benchmarks/README.md).
bench: install
	$(BIN)/python benchmarks/bench.py

ui: install
	$(BIN)/mat2spec ui --port $${PORT:-5000}

# GPAW itself is the system's: apt-get install gpaw (Debian, Ubuntu), or a Python that has it in MAT2SPEC_GPAW_PYTHON.
dft: install
	$(BIN)/python -m mat2spec.dft.gpaw_engine

# A page over a run: make explore RUN=runs/demo PORT=8050
explore: install
	$(BIN)/mat2spec explore $(RUN) --port $${PORT:-8050}

.PHONY: install demo lint check check-structures check-spectra test test-screening test-stores test-cli test-distributed test-library docs bench ui explore dft
