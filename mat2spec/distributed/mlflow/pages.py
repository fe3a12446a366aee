"""MLflow's pages of trainings and screenings, served on this machine and opened at the experiment."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from contextlib import suppress

from mat2spec.distributed.mlflow.store import connect, experiment_id, store_uri
from mat2spec.errors import RunError
from mat2spec.ports import HOST, bind
from mat2spec.storage.paths import resolve, resolve_output

START = 120.0
"""Longest start of MLflow's server [s]: it takes ten where nothing else runs."""


def show_pages(port: int, *, browser: bool) -> None:
    """Serve the store until an interrupt, or open the server that MLFLOW_TRACKING_URI names.

    Args:
        port: Where to serve; if it is in use, the next free one, which is printed.
        browser: Whether to open the page.

    Raises:
        ConfigError: If no port from this one on is free.
        RunError: If the server does not start.
        ServiceError: If that of MLFLOW_TRACKING_URI does not answer.
    """
    uri = store_uri(resolve("runs/ui"))
    connect(uri)
    page = experiment_page(experiment_id(uri))
    if uri.startswith("http"):
        _show(f"{uri.rstrip('/')}{page}", browser)
        return
    with bind(port) as free:
        chosen = free.getsockname()[1]
    if chosen != port:
        print(f"port {port} is in use: {chosen} instead", file=sys.stderr)
    options = {"--backend-store-uri": uri, "--artifacts-destination": str(resolve_output("runs") / "mlflow-artifacts")}
    options |= {"--host": HOST, "--port": str(chosen), "--workers": "1"}
    command = [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_until_it_answers(server, f"http://{HOST}:{chosen}")
            _show(f"http://{HOST}:{chosen}{page}", browser)
            server.wait()
        finally:
            server.terminate()


def experiment_page(experiment: str) -> str:
    """Path of an experiment's runs, in MLflow's mode for machine learning."""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning"


def _wait_until_it_answers(server: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        with suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise RunError(f"MLflow's server does not answer at {url}; run `mlflow server` by hand to see why")


def _show(url: str, browser: bool) -> None:
    print(f"{url}  (Ctrl-C ends it)", flush=True)
    if browser:
        webbrowser.open(url)
