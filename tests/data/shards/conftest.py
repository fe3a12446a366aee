"""Injection of faults into the processes that a test starts."""

import json
import multiprocessing.forkserver
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import SITECUSTOMIZE, VARIABLE


@pytest.fixture
def inject_faults(tmp_path, monkeypatch):
    """Context manager that gives materials a fault, in every process that starts within the block."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(folder=str(Path(__file__).parents[1])))

    @contextmanager
    def inject(faults: dict[str, str]) -> Iterator[None]:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))
        monkeypatch.setenv(VARIABLE, json.dumps(faults))
        server = multiprocessing.forkserver._forkserver
        server._stop()  # a running one was started without the faults
        try:
            yield
        finally:
            server._stop()

    return inject
