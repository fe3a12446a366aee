"""For tests of clusters: a head and two nodes, with a token, an MLflow server, and faults in the processes that are started."""

import atexit
import json
import multiprocessing.forkserver
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from faults import SITECUSTOMIZE, VARIABLE
from nodes import Cluster, free_port, kill, start_cluster, wait_until

# Ray keeps the address of the machine's latest head in a file, and jobs submitted to another head may take it for theirs: tests of jobs
# run beside these.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-")
atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen]]:
    """Address of an MLflow server that is on its way: it takes as long to start as Ray and a few tests together."""
    home: Path = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    store = ["--backend-store-uri", f"sqlite:///{home / 'server.db'}", "--artifacts-destination", home / "artifacts"]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *store,
        "--workers",
        "1",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}", process
    kill(process)


@pytest.fixture(scope="session")
def cluster(server: tuple[str, subprocess.Popen]) -> Iterator[Cluster]:
    """Two nodes of one core each and a head that only steers."""
    with start_cluster(2, RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=1, RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=15) as started:
        yield started


@pytest.fixture(scope="session")
def mlflow_server(server: tuple[str, subprocess.Popen]) -> str:
    """Address of an MLflow server that answers."""
    address, process = server

    def answers() -> bool:
        try:
            return requests.get(f"{address}/health", timeout=30).ok
        except requests.ConnectionError:
            return False

    wait_until(answers, "the server's first answer", process)
    return address


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
