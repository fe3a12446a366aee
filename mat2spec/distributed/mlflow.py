"""Where runs are remembered: the only door to MLflow. SQLite beside the results, or the server of MLFLOW_TRACKING_URI."""

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


def store_uri(output: Path) -> str:
    """Give the tracking store for a run: MLFLOW_TRACKING_URI, else SQLite in the directory that holds the run's."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.parent / 'mlflow.db'}"


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run; can be sent to the process that logs to it.

    Args:
        uri: Tracking store.
        run_id: MLflow's name of the run.
    """

    uri: str
    run_id: str

    @classmethod
    def open(cls, output: Path, name: str, params: Mapping[str, Any]) -> "TrackedRun":
        """Open the run of a directory: the one that an earlier, interrupted attempt left, else a new one."""
        uri = store_uri(output)
        _connect(uri)
        remembered = output / RUN_ID_FILE
        if remembered.exists():
            run = cls(uri, remembered.read_text().strip())
            if run._exists():
                run._client.set_terminated(run.run_id, "RUNNING")
                return run
        run = cls(uri, cls._client_of(uri).create_run(_experiment(uri, output), run_name=name).info.run_id)
        run._client.log_batch(run.run_id, params=[Param(key, str(value)) for key, value in params.items()])
        remembered.write_text(run.run_id)
        return run

    @staticmethod
    def _client_of(uri: str) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)

    @property
    def _client(self) -> mlflow.MlflowClient:
        return self._client_of(self.uri)

    def _exists(self) -> bool:
        try:
            self._client.get_run(self.run_id)
        except MlflowException:
            return False
        return True

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at an epoch."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def last_epoch(self) -> int:
        """Give the last epoch of which anything is logged; -1 if there is none."""
        return max(self.history("train_loss"), default=-1)

    def history(self, metric: str) -> dict[int, float]:
        """Give what is logged of a number, by epoch; of an epoch that was run twice, the second."""
        return {point.step: point.value for point in self._client.get_metric_history(self.run_id, metric)}

    def log_file(self, file: Path) -> None:
        """Keep a file beside the run."""
        self._client.log_artifact(self.run_id, str(file))

    def log_checkpoint(self, directory: Path, register_as: str | None) -> None:
        """Log a checkpoint's directory as a model that can be registered and served; it holds no pickle."""
        _connect(self.uri)
        with mlflow.start_run(run_id=self.run_id):
            mlflow.pyfunc.log_model(
                name="checkpoint",
                loader_module="mat2spec.serving",
                data_path=str(directory),
                pip_requirements=["mat2spec"],
                registered_model_name=register_as,
            )

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run."""
        self._client.set_terminated(self.run_id, status)


def open_screening(output: Location, record: Mapping[str, Any], training_run: str | None) -> TrackedRun | None:
    """Open the record of a screening: the one that run.json names, else a new one, linked to the training of its checkpoint.

    Args:
        output: The run's directory.
        record: What run.json says so far.
        training_run: MLflow's name of the training, if there was one.

    Returns:
        The run; None if the directory is in an object store and no server is named: there is nowhere for the store.
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
    client = TrackedRun._client_of(uri)
    run = TrackedRun(
        uri, client.create_run(_experiment(uri, Path(str(output))), run_name=output.name, tags=tags).info.run_id
    )
    params = {
        "output": str(output),
        **record["identity"],
        **{f"checkpoint_{key}": value for key, value in record["checkpoint"].items()},
    }
    client.log_batch(run.run_id, params=[Param(key, str(value)[:500]) for key, value in params.items()])
    return run


def close_screening(run: TrackedRun, record: Mapping[str, Any]) -> None:
    """Log counts, times and run.json of a finished screening."""
    numbers = {**record["counts"], **record["stages"]}
    run.log_metrics({key: float(value) for key, value in numbers.items() if not isinstance(value, str)})
    run._client.set_tag(run.run_id, "bottleneck", record["stages"].get("bottleneck", ""))
    run._client.log_dict(run.run_id, dict(record), "run.json")
    run.finish()


def _experiment(uri: str, output: Path) -> str:
    """Id of the project's experiment; in an embedded store its artifacts lie beside the database, at an absolute place."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    if found := client.get_experiment_by_name(EXPERIMENT):
        return found.experiment_id
    embedded = uri.startswith("sqlite:")
    return client.create_experiment(EXPERIMENT, (output.parent / "mlflow-artifacts").as_uri() if embedded else None)


def _connect(uri: str) -> None:
    """Make a store the one that MLflow speaks to, without its advice on migrations and signatures."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


def fetch_checkpoint(uri: str, output: Location) -> Path:
    """Download the checkpoint of a models:/NAME@ALIAS or models:/NAME/VERSION address, beside the results that it will make.

    Raises:
        CheckpointError: If the registry has no such model, or it is no checkpoint of ours.
    """
    store = store_uri(output)
    if store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists():
        raise CheckpointError(
            f"{uri}: not found in {store}, which does not exist; set MLFLOW_TRACKING_URI, or give an --output beside the training"
        )
    _connect(store)
    place = output.parent / ".checkpoints" / re.sub(r"\W+", "-", uri)
    try:
        made_by = mlflow.models.get_model_info(uri).run_id
        place.mkdir(parents=True, exist_ok=True)
        model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(place)))
    except (MlflowException, OSError) as error:
        raise CheckpointError(f"{uri}: not found in {store}: {' '.join(str(error).split())}") from None
    found = next(model.rglob(CARD), None)
    if found is None:
        raise CheckpointError(
            f"{uri}: the registered model holds no {CARD}; register a checkpoint that jobs/train.py logged"
        )
    (found.parent.parent / RUN_ID_FILE).write_text(made_by)  # where a checkpoint lies beside its training, so does this
    return found.parent
