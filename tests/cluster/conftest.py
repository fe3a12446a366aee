"""Faults in processes that tests of the cluster start."""

import json
import multiprocessing.forkserver
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import SITECUSTOMIZE, VARIABLE


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """Make materials do what they should not, in every process that begins within the block."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(folder=str(Path(__file__).parents[1])))

    @contextmanager
    def doing(deeds: dict[str, str]) -> Iterator[None]:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))
        monkeypatch.setenv(VARIABLE, json.dumps(deeds))
        server = multiprocessing.forkserver._forkserver
        server._stop()  # it would fork of a process that knows nothing of them
        try:
            yield
        finally:
            server._stop()

    return doing
