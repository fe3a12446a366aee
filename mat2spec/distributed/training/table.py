"""Benchmark tables on Ray: all missing runs, as many at once as the cluster holds; the driver logs them to MLflow."""

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts

# isort: split
import ray
import torch

from mat2spec.config import TableConfig
from mat2spec.distributed.training.progress import format_scores
from mat2spec.distributed.training.settings import (
    CONFIG,
    flat_settings,
    identifying_settings,
    refuse_other_settings,
)
from mat2spec.distributed.training.table_row import (
    UNLOGGED_RESULT,
    TableRun,
    estimate_core_hours,
    finalize_row,
    train_row,
)
from mat2spec.distributed.training.tracking import TrainingTracking
from mat2spec.errors import Mat2SpecError
from mat2spec.evaluate.report import FinishedRow, markdown_report
from mat2spec.provenance import environment
from mat2spec.storage.atomic import write_json, write_text
from mat2spec.train.loop import check_trainable
from mat2spec.train.result import RESULT, TEST, mark_finished

POLL_SECONDS = 5.0
"""How often epochs are copied from the workers' files to MLflow."""


@dataclass(frozen=True)
class BenchmarkTable:
    """All runs of a benchmark table.

    Args:
        config: The table.
        output: Directory of the runs.
        results: Markdown file to write.
    """

    config: TableConfig
    output: Path
    results: Path

    @cached_property
    def runs(self) -> list[TableRun]:
        """Every run, in the order of the table."""
        seeds = {row.name: row.seeds for row in self.config.rows}
        return [
            TableRun(row, seed, self.output, {name: seeds[name] for name in row.depends_on})
            for row in self.config.rows
            for seed in (row.seeds[:1] if row.joins_seeds else row.seeds)
        ]

    @property
    def missing(self) -> list[TableRun]:
        """Runs that are wanted and not finished, in the order of the table."""
        return [run for run in self.runs if (self.config.only or "") in run.row.name and run.result is None]

    def plan(self) -> list[dict[str, Any]]:
        """Estimate the cost of the missing trainings: time two steps on one core, and scale to all epochs.

        Seeds and folds of a row cost the same, so that one of them is timed.
        """
        torch.set_num_threads(1)
        missing = [run for run in self.missing if run.row.kind == "train"]
        hours = {name: estimate_core_hours(next(runs)) for name, runs in groupby(missing, lambda run: run.row.name)}
        return [
            {
                "run": run.name,
                "epochs": run.config.training.epochs,
                "core_hours": round(hours[run.row.name], 2),
            }
            for run in missing
        ]

    def run(self) -> None:
        """Do the missing runs; write the table after each.

        Raises:
            RunError: If a directory holds a training with other settings.
            Mat2SpecError: The first error of a run, after all other runs are finished.
        """
        for run in self.runs:  # report a mistake in any row before the first training
            refuse_other_settings(run.output, identifying_settings(run.config))
            check_trainable(run.config)
        missing = self.missing
        errors: list[Mat2SpecError] = []
        if missing:
            with ray_session():
                errors = self._do_runs(missing)
        self.write()
        if errors:
            raise errors[0]

    def write(self) -> None:
        """Write the table of the finished runs."""
        finished = []
        for row in self.config.rows:
            runs = [run for run in self.runs if run.row is row and run.result]
            results = {run.seed: (run.result or {}) | {"core_seconds": self._core_seconds(run)} for run in runs}
            finished.append(FinishedRow(row, results, [run.output / TEST for run in runs]))
        write_text(self.results, markdown_report(self.config, finished))

    def _core_seconds(self, run: TableRun) -> float:
        """Core-seconds of a finished run and of all runs that it depends on."""
        predecessors = (other for other in self.runs if other.output in run.predecessors)
        return (run.result or {}).get("core_seconds", 0.0) + sum(map(self._core_seconds, predecessors))

    def _do_runs(self, missing: list[TableRun]) -> list[Mat2SpecError]:
        """Submit each run once its predecessors are finished; Ray starts it when cores are free. Return the errors."""
        provenance = environment()
        waiting = list(missing)
        errors: list[Mat2SpecError] = []
        running: dict[Any, tuple[TableRun, TrainingTracking]] = {}
        while waiting or running:
            for run in [run for run in waiting if _predecessors_are_finished(run)]:
                waiting.remove(run)
                tracking = _open(run)
                running[self._submit(run, provenance)] = (run, tracking)
            if not running:
                break  # the remaining runs depend on runs that failed
            finished = ray.wait(list(running), timeout=POLL_SECONDS)[0]
            for run, tracking in running.values():
                tracking.log_epochs(run.epochs())
            for task in finished:
                run, tracking = running.pop(task)
                if error := _error(task):
                    tracking.finish("FAILED")
                    errors.append(error)
                    print(f"{run.name}: {error}", flush=True)
                else:
                    self._finish(run, tracking)
        return errors

    def _submit(self, run: TableRun, provenance: dict[str, str]) -> Any:
        threads = self.config.cpus_per_run
        if run.row.kind != "train":
            return finalize_row.options(num_cpus=threads, name=run.name).remote(run)
        task = train_row.options(num_cpus=threads, num_gpus=self.config.gpus_per_run, name=run.name)
        return task.remote(run, threads, provenance)

    def _finish(self, run: TableRun, tracking: TrainingTracking) -> None:
        result = json.loads((run.output / UNLOGGED_RESULT).read_text())
        if run.row.kind != "evaluate":
            tracking.log_result(result, run.output, run.config)
        tracking.finish()
        mark_finished(run.output, result)
        self.write()
        print(f"{run.name}: {result['seconds']:.0f} s, validation {format_scores(result['valid'])}", flush=True)


def _predecessors_are_finished(run: TableRun) -> bool:
    return all((path / RESULT).exists() for path in run.predecessors)


def _open(run: TableRun) -> TrainingTracking:
    """Create the directory of a run and its MLflow run."""
    run.output.mkdir(parents=True, exist_ok=True)
    settings = identifying_settings(run.config)
    write_json(run.output / CONFIG, settings)
    return TrainingTracking.open(run.output, run.name, run.config, flat_settings(settings))


def _error(task: Any) -> Mat2SpecError | None:
    """Error of a finished task that the user can fix, if there is one; any other error is raised."""
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Mat2SpecError):
            return error.cause
        raise
    return None
