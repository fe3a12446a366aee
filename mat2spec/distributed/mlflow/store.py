"""MLflow's store: one SQLite file, or the server of MLFLOW_TRACKING_URI; and the models registered there."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import requests
from filelock import FileLock
from mlflow.exceptions import MlflowException

from mat2spec.errors import CheckpointError, ConfigError, RunError, ServiceError
from mat2spec.model.checkpoint import CARD
from mat2spec.storage.location import Location
from mat2spec.storage.paths import resolve_output

EXPERIMENT = "mat2spec"

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag by which MLflow's pages show runs and models of machine learning; without it, traces of language models."""

SQLITE = "sqlite:///"

ANSWER_SECONDS = 10
"""Longest wait for the first answer of a server; MLflow itself would try for four minutes."""

FAILURES = (ServiceError, MlflowException)
"""Errors of a store that is away or refuses something."""


def runs_folder(output: Location) -> Location:
    """Return the folder runs/, or the parent of an output where runs/ cannot be written or would not last."""
    try:
        return resolve_output("runs")
    except (ConfigError, RunError):
        return output.parent


def store_uri(output: Location) -> str:
    """Return the tracking store of a run: MLFLOW_TRACKING_URI, or else SQLite in `runs_folder`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{runs_folder(output) / 'mlflow.db'}"


def client_of(uri: str) -> mlflow.MlflowClient:
    """MLflow's client of a store."""
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(uri: str) -> str:
    """Id of the project's experiment, created if needed; artifacts of an SQLite store go beside it (absolute path)."""
    client = client_of(uri)
    with _first_contact(uri):
        if experiment := client.get_experiment_by_name(EXPERIMENT):
            for key, value in KIND.items() - experiment.tags.items():  # made by an earlier version
                client.set_experiment_tag(experiment.experiment_id, key, value)
            return experiment.experiment_id
        folder = Path(uri.removeprefix(SQLITE)).absolute().parent / "mlflow-artifacts"
        return client.create_experiment(EXPERIMENT, folder.as_uri() if uri.startswith(SQLITE) else None, tags=KIND)


@contextmanager
def _first_contact(uri: str) -> Iterator[None]:
    """Let one process at a time create what an SQLite store lacks: jobs that start together would all do it."""
    if not uri.startswith(SQLITE):
        yield
        return
    database = Path(uri.removeprefix(SQLITE))
    with FileLock(database.with_name(f".{database.name}.lock")):
        yield


def check_server(uri: str) -> None:
    """Check that a server answers, whatever it says.

    Raises:
        ServiceError: If it does not.
    """
    if not uri.startswith("http"):
        return
    try:
        status = requests.get(f"{uri}/health", timeout=ANSWER_SECONDS).status_code
        reason = f"it answers {status}" if status >= 500 else ""
    except requests.exceptions.SSLError:  # MLflow may have other certificates than this request
        return
    except requests.RequestException as error:
        reason = type(error).__name__
    if reason:
        raise ServiceError(f"MLFLOW_TRACKING_URI {uri}: no MLflow answers ({reason}); start the server, or unset it")


def connect(uri: str) -> None:
    """Make a store MLflow's current one, create its tables, and silence hints about migrations and signatures.

    Raises:
        ServiceError: If it is a server that does not answer.
    """
    check_server(uri)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri.startswith(SQLITE):
        Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with _first_contact(uri):
        client_of(uri).get_experiment_by_name(EXPERIMENT)


def fetch_checkpoint(uri: str, output: Location) -> Location:
    """Download a registered checkpoint into the folder .checkpoints of `runs_folder`.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        output: Directory of the run that will use it.

    Raises:
        CheckpointError: If the registry has no such model, or the model holds no checkpoint.
    """
    store = store_uri(output)
    if store.startswith(SQLITE) and not Path(store.removeprefix(SQLITE)).exists():
        raise CheckpointError(
            f"{uri}: not found in {store}, which does not exist; set MLFLOW_TRACKING_URI to the store of its training, "
            "or MAT2SPEC_HOME to the folder whose runs/ holds it"
        )
    connect(store)
    directory = runs_folder(output) / ".checkpoints" / re.sub(r"\W+", "-", uri)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(directory)))
    except (MlflowException, OSError) as error:
        raise CheckpointError(f"{uri}: not found in {store}: {' '.join(str(error).split())}") from None
    card = next(model.rglob(CARD), None)
    if card is None:
        raise CheckpointError(
            f"{uri}: the registered model holds no {CARD}; register a checkpoint that `mat2spec train` has logged"
        )
    return card.parent
