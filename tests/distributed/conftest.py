"""A cluster of a head and two nodes, with a token, and an MLflow server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from nodes import Cluster, free_port, kill, start_cluster, wait_until


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen]]:
    """Address and process of an MLflow server that is starting: it takes as long as Ray and a few tests together."""
    home: Path = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    store = ["--backend-store-uri", f"sqlite:///{home / 'server.db'}", "--artifacts-destination", home / "artifacts"]
    options = [*store, "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "mlflow", "server", *options]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}", process
    kill(process)


@pytest.fixture(scope="session")
def cluster(server: tuple[str, subprocess.Popen]) -> Iterator[Cluster]:
    """Two nodes of one core each, and a head that only schedules."""
    with start_cluster(2, RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=1, RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=15) as started:
        yield started


@pytest.fixture(scope="session")
def mlflow_server(server: tuple[str, subprocess.Popen]) -> str:
    """Address of the MLflow server, once it answers."""
    address, process = server

    def answers() -> bool:
        try:
            return requests.get(f"{address}/health", timeout=30).ok
        except requests.ConnectionError:
            return False

    wait_until(answers, "the first answer of the MLflow server", process)
    return address
