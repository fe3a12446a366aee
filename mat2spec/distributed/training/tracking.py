"""MLflow record of a training: opened with it, given each epoch and the result; without a server, training goes on."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mat2spec.config import TrainConfig
from mat2spec.distributed.mlflow.models import log_checkpoint
from mat2spec.distributed.mlflow.runs import TrackedRun
from mat2spec.distributed.mlflow.store import FAILURES, check_server
from mat2spec.distributed.training.settings import CONFIG
from mat2spec.train.result import CHECKPOINT, FIGURE, HISTOGRAM


class TrainingTracking:
    """MLflow run of a training. If MLflow fails, one line says so, and the training goes on.

    What could not be logged is logged with the result, if MLflow is back by then. Can be pickled for Ray's controller.

    Args:
        run: The MLflow run; None if it could not be opened.
    """

    def __init__(self, run: TrackedRun | None) -> None:
        self._run = run
        self._said = False

    @classmethod
    def open(cls, output: Path, name: str, config: TrainConfig, settings: Mapping[str, Any]) -> "TrainingTracking":
        """Open the MLflow run, that of an interrupted attempt if there is one.

        Args:
            output: Directory of the training.
            name: Name of the run.
            config: Of the training.
            settings: Shown as parameters.

        Raises:
            ServiceError: If the server of MLFLOW_TRACKING_URI does not answer, and the checkpoint is to be registered.
        """
        tracking = cls(None)
        try:
            tracking._run = TrackedRun.open(output, name, settings)
        except FAILURES as error:
            if config.register_as:
                raise
            tracking._say(error)
        return tracking

    def log_epoch(self, metrics: Mapping[str, int | float], part: str = "") -> None:
        """Log the metrics of an epoch, whose number is one of them; with the name of a part, if there are several."""
        self._go_on(lambda run: _log_epoch(run, metrics, part))

    def log_epochs(self, history: Iterable[Mapping[str, int | float]], part: str = "") -> None:
        """Log those epochs that MLflow lacks.

        Besides those that MLflow could not take, these are of a training that was stopped between a checkpoint and its
        callback: it does not run them again.

        Args:
            history: `Training.history`, or what there is of it.
            part: Name of the part, if several networks are trained.
        """
        self._go_on(lambda run: _log_missing_epochs(run, history, part))

    def log_result(self, result: Mapping[str, Any], output: Path, config: TrainConfig) -> None:
        """Log the scores, checkpoint, configuration and figures of a training; say where it is registered.

        Raises:
            One of FAILURES: If MLflow fails, and the checkpoint is to be registered.
        """
        if config.register_as and self._run:
            check_server(self._run.uri)
            _log_result(self._run, result, output, config)
        else:
            self._go_on(lambda run: _log_result(run, result, output, config))

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run."""
        self._go_on(lambda run: run.finish(status))

    def _go_on(self, log: Callable[[TrackedRun], None]) -> None:
        if self._run is None:
            return
        try:
            check_server(self._run.uri)
            log(self._run)
        except FAILURES as error:
            self._say(error)

    def _say(self, error: Exception) -> None:
        if not self._said:
            print(f"not recorded in MLflow: {' '.join(str(error).split())[:300]}", file=sys.stderr, flush=True)
        self._said = True


def _log_epoch(run: TrackedRun, metrics: Mapping[str, int | float], part: str) -> None:
    values = {f"{_section(part)}{key}": float(value) for key, value in metrics.items() if key != "epoch"}
    run.log_metrics(values, int(metrics["epoch"]))


def _log_missing_epochs(run: TrackedRun, history: Iterable[Mapping[str, int | float]], part: str) -> None:
    logged = run.history(f"{_section(part)}train_loss")
    for metrics in history:
        if metrics["epoch"] not in logged:
            _log_epoch(run, metrics, part)


def _section(part: str) -> str:
    return f"{part}/" if part else ""


def _log_result(run: TrackedRun, result: Mapping[str, Any], output: Path, config: TrainConfig) -> None:
    for name in (FIGURE, HISTOGRAM, CONFIG):
        run.log_file(output / name)
    scores = {"valid": result["valid"], "test": next(iter(result["test"].values()))}
    if registered := log_checkpoint(run, output / CHECKPOINT, scores, config.register_as):
        print(f"registered as {registered} in {run.uri}; mat2spec ui shows it", flush=True)
