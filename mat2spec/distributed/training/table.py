"""A table of trainings on the cluster: as many at once as it holds, each continued where it was stopped, one writer to MLflow."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mat2spec.distributed.mlflow import TrackedRun
from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts

# isort: split
import ray
import torch

from mat2spec.config import TableConfig
from mat2spec.distributed.training.run import (
    CONFIG,
    flat_settings,
    log_outcome,
    refuse_other_settings,
    settings_of,
    told_scores,
)
from mat2spec.distributed.training.table_row import OUTCOME, TableRun, core_hours, take_up, train_one
from mat2spec.errors import Mat2SpecError
from mat2spec.evaluate.report import Finished, markdown
from mat2spec.provenance import environment
from mat2spec.train.loop import check_trainable
from mat2spec.train.result import RESULT, TEST, mark_finished

POLL = 5.0
"""[s] Between two looks at what the workers tell."""


@dataclass(frozen=True)
class Reproduction:
    """All trainings of a table.

    Args:
        config: The table.
        output: Directory of the runs.
        results: Markdown that is written.
    """

    config: TableConfig
    output: Path
    results: Path

    @cached_property
    def runs(self) -> list[TableRun]:
        """Every training of the table, in its order."""
        seeds = {row.name: row.seeds for row in self.config.rows}
        return [
            TableRun(row, seed, self.output, {name: seeds[name] for name in row.after})
            for row in self.config.rows
            for seed in (row.seeds[:1] if row.kind == "join" else row.seeds)
        ]

    @property
    def missing(self) -> list[TableRun]:
        """What is wanted and not finished, in the order of the table."""
        return [run for run in self.runs if (self.config.only or "") in run.row.name and run.result is None]

    def plan(self) -> list[dict[str, Any]]:
        """Estimate what the missing runs cost: two steps of each on one core, times the steps of all epochs."""
        torch.set_num_threads(1)
        return [
            {"run": run.name, "epochs": run.config.training.epochs, "core_hours": round(core_hours(run), 2)}
            for run in self.missing
            if run.row.kind == "train"
        ]

    def run(self) -> None:
        """Train what is missing; write the table after each training.

        Raises:
            RunError: If a directory holds a training with other settings.
            Mat2SpecError: After all others are done, what was wrong with the first training that could not be done.
        """
        for run in self.runs:  # a mistake in any row is told before the first training
            refuse_other_settings(run.output, settings_of(run.config))
            check_trainable(run.config)
        missing = self.missing
        failures: list[Mat2SpecError] = []
        if missing:
            with ray_session():
                failures = self._train(missing)
        self.write()
        if failures:
            raise failures[0]

    def write(self) -> None:
        """Write the table of what is finished."""
        done = []
        for row in self.config.rows:
            runs = [run for run in self.runs if run.row is row and run.result]
            results = {run.seed: (run.result or {}) | {"core_seconds": self._cost(run)} for run in runs}
            done.append(Finished(row, results, [run.output / TEST for run in runs]))
        self.results.write_text(markdown(self.config, done))

    def _cost(self, run: TableRun) -> float:
        """Core-seconds of a finished run and of all that it begins from."""
        before = (other for other in self.runs if other.output in run.predecessors)
        return (run.result or {}).get("core_seconds", 0.0) + sum(map(self._cost, before))

    def _train(self, missing: list[TableRun]) -> list[Mat2SpecError]:
        """Start each run as soon as the one that it begins from is finished; Ray starts it as soon as there are free cores."""
        made_by = environment()
        waiting, failures = list(missing), []
        running: dict[ray.ObjectRef, tuple[TableRun, TrackedRun]] = {}
        while waiting or running:
            for run in [run for run in waiting if self._ready(run)]:
                waiting.remove(run)
                tracked = _open(run)
                running[self._start(run, made_by)] = (run, tracked)
            if not running:
                break  # what is left starts from runs that failed
            finished = ray.wait(list(running), timeout=POLL)[0]
            for run, tracked in running.values():
                _log_epochs(run, tracked)
            for task in finished:
                run, tracked = running.pop(task)
                if error := _failure(task):
                    tracked.finish("FAILED")
                    failures.append(error)
                    print(f"{run.name}: {error}", flush=True)
                else:
                    self._finish(run, tracked)
        return failures

    def _start(self, run: TableRun, made_by: dict[str, str]) -> ray.ObjectRef:
        threads = self.config.cpus_per_run
        if run.row.kind != "train":
            return take_up.options(num_cpus=threads, name=run.name).remote(run)
        return train_one.options(num_cpus=threads, num_gpus=self.config.gpus_per_run, name=run.name).remote(
            run, threads, made_by
        )

    def _ready(self, run: TableRun) -> bool:
        return all((path / RESULT).exists() for path in run.predecessors)

    def _finish(self, run: TableRun, tracked: TrackedRun) -> None:
        result = json.loads((run.output / OUTCOME).read_text())
        if run.row.kind != "judge":
            log_outcome(tracked, result, run.output, run.config)
        tracked.finish()
        mark_finished(run.output, result)
        self.write()
        print(f"{run.name}: {result['seconds']:.0f} s, validation {told_scores(result['valid'])}", flush=True)


def _open(run: TableRun) -> TrackedRun:
    """Make the run's directory and its MLflow run."""
    run.output.mkdir(parents=True, exist_ok=True)
    settings = settings_of(run.config)
    (run.output / CONFIG).write_text(json.dumps(settings, indent=1) + "\n")
    return TrackedRun.open(run.output, run.name, flat_settings(settings))


def _failure(task: ray.ObjectRef) -> Mat2SpecError | None:
    """What a user can mend is given back; anything else is raised."""
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Mat2SpecError):
            return error.cause
        raise
    return None


def _log_epochs(run: TableRun, tracked: TrackedRun) -> None:
    for metrics in run.epochs_after(tracked.last_epoch()):
        tracked.log_metrics(
            {key: float(value) for key, value in metrics.items() if key != "epoch"}, int(metrics["epoch"])
        )
