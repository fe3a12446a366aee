# make install | demo | test | ui — each does its own set-up in .venv with nothing but python3, venv and pip.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	@echo "Installing into .venv: a few minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m cluster.demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

ui: install
	mkdir -p runs
	$(BIN)/mlflow server --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/runs/mlflow.db} --artifacts-destination runs/mlflow-artifacts --workers 1 --port $${PORT:-5000}

dft: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_ARGS) 'gpaw-data>=1.2'
	$(BIN)/python -c 'from mat2spec.config import GpawConfig; from mat2spec.dft.gpaw import Gpaw, find_python; Gpaw(GpawConfig()).check(); print("GPAW found:", find_python())'

.PHONY: install demo test ui dft
