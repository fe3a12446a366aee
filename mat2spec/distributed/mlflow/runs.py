"""MLflow's runs of trainings and screenings."""

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from tenacity import Retrying, retry_if_exception_message, stop_after_attempt, wait_fixed

from mat2spec.distributed.mlflow.store import client_of, connect, experiment_id, store_uri
from mat2spec.provenance import environment
from mat2spec.storage.location import is_url
from mat2spec.train.result import RUN_ID_FILE

CURVES = "curves/"
"""Prefix of the metrics of epochs: a section of MLflow's charts, which are sorted by name, so that it comes first."""

RETRY_SECONDS = 0.1
"""Pause before inputs are logged again."""

_INSERTED_MEANWHILE = r"(?is).*(integrity|unique|duplicate)"
"""Messages of SQLite, PostgreSQL and MySQL for a row that is there. A server that is away is not asked again: MLflow
itself has then tried for four minutes."""


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
        """Open the MLflow run of a training: that of an interrupted attempt if there is one, or else a new one.

        Raises:
            ServiceError: If the server of MLFLOW_TRACKING_URI does not answer.
        """
        file = output / RUN_ID_FILE
        known = file.read_text().strip() if file.exists() else None
        run = resume(store_uri(output), known) or create(store_uri(output), name, {"kind": "training"}, params)
        file.write_text(run.run_id)
        return run

    @property
    def client(self) -> mlflow.MlflowClient:
        """MLflow's client of the store."""
        return client_of(self.uri)

    def exists(self) -> bool:
        """Whether the store holds the run."""
        try:
            self.client.get_run(self.run_id)
        except MlflowException:
            return False
        return True

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one epoch."""
        self.log(CURVES, metrics, step)

    def log(self, section: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics under the prefix of a section."""
        time_of_all = now()
        points = [Metric(f"{section}{key}", value, time_of_all, step) for key, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=points)

    def last_epoch(self) -> int:
        """Return the last epoch that has been logged; -1 if there is none."""
        return max(self.history("train_loss"), default=-1)

    def history(self, metric: str) -> dict[int, float]:
        """Return the logged values of a metric by epoch; of an epoch that ran twice, the second value."""
        points = self.client.get_metric_history(self.run_id, f"{CURVES}{metric}")
        return {point.step: point.value for point in points}

    def log_inputs(self, datasets: Sequence[DatasetInput], models: Sequence[LoggedModelInput] = ()) -> None:
        """Log the rows and models that the run reads.

        MLflow looks whether its store knows a dataset, then inserts it: a job that does both in between makes it fail
        once for each dataset, and the next attempt finds that job's entry.
        """
        attempts = Retrying(
            retry=retry_if_exception_message(match=_INSERTED_MEANWHILE),
            stop=stop_after_attempt(len(datasets) + 1),
            wait=wait_fixed(RETRY_SECONDS),
            reraise=True,
        )
        attempts(self.client.log_inputs, self.run_id, list(datasets), list(models))

    def log_file(self, file: Path) -> None:
        """Log a file as an artifact."""
        self.client.log_artifact(self.run_id, str(file))

    def describe(self, text: str) -> None:
        """Set the description, in Markdown."""
        self.client.set_tag(self.run_id, "mlflow.note.content", text)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run."""
        self.client.set_terminated(self.run_id, status)


def resume(uri: str, run_id: str | None) -> TrackedRun | None:
    """Reopen a run, if the store holds it."""
    connect(uri)
    run = TrackedRun(uri, run_id or "")
    if run_id is None or not run.exists():
        return None
    client_of(uri).set_terminated(run_id, "RUNNING")
    return run


def create(uri: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> TrackedRun:
    """Start a run that names its command and commit."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    # MLflow's pages show what follows the last slash of the name
    shown = " ".join(Path(word).name for word in takewhile(lambda word: not word.startswith("-"), words))
    source = {"command": shlex.join(words), "mlflow.source.name": shown, "mlflow.source.type": "LOCAL"}
    if (commit := environment()["commit"]) != "unknown":
        source["mlflow.source.git.commit"] = commit
    client = client_of(uri)
    run = client.create_run(experiment_id(uri), run_name=name, tags=resolve_tags(source | dict(tags))).info.run_id
    client.log_batch(run, params=[Param(key, str(value)[:500]) for key, value in params.items()])
    return TrackedRun(uri, run)


def dataset_input(name: str, fingerprint: str, source: str, context: str, rows: int | None = None) -> DatasetInput:
    """Describe rows that a run has read: MLflow shows name, digest, source and number."""
    kind = source.partition(":")[0] if is_url(source) else "local"
    profile = None if rows is None else json.dumps({"num_rows": rows})
    dataset = Dataset(name, fingerprint[:12], kind, json.dumps({"uri": source}), profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def now() -> int:
    """Time since 1970 [ms]."""
    return int(time.time() * 1000)
