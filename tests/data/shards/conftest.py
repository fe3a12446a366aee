"""Injection of faults into the processes that a test starts."""

import multiprocessing.forkserver
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from faults import with_faults


@pytest.fixture
def inject_faults(tmp_path, monkeypatch):
    """Context manager that gives materials a fault, in every process that starts within the block."""
    folder = tmp_path / "site"
    folder.mkdir()

    @contextmanager
    def inject(faults: dict[str, str]) -> Iterator[None]:
        for name, value in with_faults(faults, folder).items():
            monkeypatch.setenv(name, value)
        server = multiprocessing.forkserver._forkserver
        server._stop()  # a running one was started without the faults
        try:
            yield
        finally:
            server._stop()

    return inject
