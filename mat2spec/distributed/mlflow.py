"""MLflow runs of trainings and screenings, in SQLite beside the results or on the server of MLFLOW_TRACKING_URI.

The only module that imports mlflow.
"""

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mat2spec.errors import CheckpointError
from mat2spec.model.checkpoint import CARD
from mat2spec.storage.location import Location

EXPERIMENT = "mat2spec"
RUN_ID_FILE = "mlflow_run_id"


def store_uri(output: Location) -> str:
    """Return the tracking store of a run: MLFLOW_TRACKING_URI, or else SQLite in the parent of its directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.parent / 'mlflow.db'}"


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run; can be pickled and sent to the process that logs to it.

    Args:
        uri: Tracking store.
        run_id: MLflow's id of the run.
    """

    uri: str
    run_id: str

    @classmethod
    def open(cls, output: Path, name: str, params: Mapping[str, Any]) -> "TrackedRun":
        """Open the MLflow run of a directory: that of an interrupted attempt if there is one, or else a new one."""
        uri = store_uri(output)
        _connect(uri)
        run_id_file = output / RUN_ID_FILE
        if run_id_file.exists():
            run = cls(uri, run_id_file.read_text().strip())
            if run._exists():
                run._client.set_terminated(run.run_id, "RUNNING")
                return run
        created = _client(uri).create_run(_experiment_id(uri, output), run_name=name)
        run = cls(uri, created.info.run_id)
        run._client.log_batch(run.run_id, params=[Param(key, str(value)) for key, value in params.items()])
        run_id_file.write_text(run.run_id)
        return run

    @property
    def _client(self) -> mlflow.MlflowClient:
        return _client(self.uri)

    def _exists(self) -> bool:
        try:
            self._client.get_run(self.run_id)
        except MlflowException:
            return False
        return True

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of one epoch."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def last_epoch(self) -> int:
        """Return the last epoch that has been logged; -1 if there is none."""
        return max(self.history("train_loss"), default=-1)

    def history(self, metric: str) -> dict[int, float]:
        """Return the logged values of a metric by epoch; of an epoch that ran twice, the second value."""
        return {point.step: point.value for point in self._client.get_metric_history(self.run_id, metric)}

    def log_file(self, file: Path) -> None:
        """Log a file as an artifact."""
        self._client.log_artifact(self.run_id, str(file))

    def log_checkpoint(self, directory: Path, register_as: str | None) -> None:
        """Log a checkpoint's directory as a model that can be registered and served; it contains no pickle."""
        _connect(self.uri)
        with mlflow.start_run(run_id=self.run_id):
            mlflow.pyfunc.log_model(
                name="checkpoint",
                loader_module="mat2spec.serving",  # stored in registered models: must stay importable
                data_path=str(directory),
                pip_requirements=["mat2spec"],
                registered_model_name=register_as,
            )

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run."""
        self._client.set_terminated(self.run_id, status)


def open_screening(output: Location, record: Mapping[str, Any], training_run: str | None) -> TrackedRun | None:
    """Open the MLflow run of a screening: the one in run.json, or else a new one linked to its checkpoint's training.

    Args:
        output: The run directory.
        record: Content of run.json so far.
        training_run: MLflow's id of the training, if there is one.

    Returns:
        The run; None if the directory is in an object store and MLFLOW_TRACKING_URI is not set, because SQLite needs
        a disk.
    """
    if not isinstance(output, Path) and "MLFLOW_TRACKING_URI" not in os.environ:
        return None
    uri = store_uri(Path(str(output)))
    _connect(uri)
    if known := record.get("mlflow_run_id"):
        run = TrackedRun(uri, known)
        if run._exists():
            run._client.set_terminated(run.run_id, "RUNNING")
            return run
    tags = {"kind": "screening"}
    if training_run and TrackedRun(uri, training_run)._exists():
        tags |= {"training_run_id": training_run, "mlflow.parentRunId": training_run}
    client = _client(uri)
    created = client.create_run(_experiment_id(uri, Path(str(output))), run_name=output.name, tags=tags)
    params = {
        "output": str(output),
        **record["identity"],
        **{f"checkpoint_{key}": value for key, value in record["checkpoint"].items()},
    }
    client.log_batch(created.info.run_id, params=[Param(key, str(value)[:500]) for key, value in params.items()])
    return TrackedRun(uri, created.info.run_id)


def close_screening(run: TrackedRun, record: Mapping[str, Any]) -> None:
    """Log the counts, the stage times and run.json of a finished screening, and close its MLflow run."""
    numbers = {**record["counts"], **record["stages"]}
    run.log_metrics({key: float(value) for key, value in numbers.items() if not isinstance(value, str)})
    run._client.set_tag(run.run_id, "bottleneck", record["stages"].get("bottleneck", ""))
    run._client.log_dict(run.run_id, dict(record), "run.json")
    run.finish()


def _client(uri: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment_id(uri: str, output: Path) -> str:
    """Id of the project's experiment, created if needed; artifacts of an SQLite store go beside it (absolute path)."""
    client = _client(uri)
    if experiment := client.get_experiment_by_name(EXPERIMENT):
        return experiment.experiment_id
    is_embedded = uri.startswith("sqlite:")
    return client.create_experiment(EXPERIMENT, (output.parent / "mlflow-artifacts").as_uri() if is_embedded else None)


def _connect(uri: str) -> None:
    """Make a store MLflow's current one, and silence its hints about migrations and signatures."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


def fetch_checkpoint(uri: str, output: Location) -> Path:
    """Download a registered checkpoint into the folder .checkpoints beside the output.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        output: Directory of the run that will use it.

    Raises:
        CheckpointError: If the registry has no such model, or the model holds no checkpoint.
    """
    store = store_uri(output)
    if store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists():
        raise CheckpointError(
            f"{uri}: not found in {store}, which does not exist; "
            "set MLFLOW_TRACKING_URI to the store of its training, or write results beside that training"
        )
    _connect(store)
    directory = output.parent / ".checkpoints" / re.sub(r"\W+", "-", uri)
    try:
        training_run = mlflow.models.get_model_info(uri).run_id
        directory.mkdir(parents=True, exist_ok=True)
        model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(directory)))
    except (MlflowException, OSError) as error:
        raise CheckpointError(f"{uri}: not found in {store}: {' '.join(str(error).split())}") from None
    card = next(model.rglob(CARD), None)
    if card is None:
        raise CheckpointError(
            f"{uri}: the registered model holds no {CARD}; register a checkpoint that `mat2spec train` has logged"
        )
    checkpoint = card.parent
    (checkpoint.parent / RUN_ID_FILE).write_text(training_run)  # where a local training has it
    return checkpoint
