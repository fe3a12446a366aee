"""One run of a benchmark table: its settings, its directory, and the Ray tasks that do it."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import mat2spec.distributed.session  # noqa: F401 - before ray itself: sets how Ray starts

# isort: split
import numpy as np
import ray
import torch

from mat2spec.config import TableRow, TrainConfig, load_config
from mat2spec.distributed.training.worker import STATE
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.storage.atomic import atomic_path, write_json
from mat2spec.storage.paths import resolve, resolve_config
from mat2spec.train.ensembling import write_combined, write_ensemble, write_gapped
from mat2spec.train.inputs import TrainingInputs, initial_weights
from mat2spec.train.loop import Training
from mat2spec.train.result import CHECKPOINT, RESULT, evaluate_on_test, write_result

UNLOGGED_RESULT = "outcome.json"
"""File with the result of a task; it becomes the result of the run once it is in MLflow."""

EPOCHS = "epochs.jsonl"
"""File with the metrics of each epoch, which the driver copies to MLflow.

A file rather than a call to an actor, because a task that waits for another process gives up its cores meanwhile.
"""


@dataclass(frozen=True)
class TableRun:
    """One run of a table.

    Args:
        row: Row that it belongs to.
        seed: Seed of the training.
        table: Directory of all runs.
        seeds_by_row: Seeds of the rows that its row depends on.
    """

    row: TableRow
    seed: int
    table: Path
    seeds_by_row: Mapping[str, tuple[int, ...]]

    @property
    def name(self) -> str:
        """Name of the run, its directory and its checkpoint."""
        return _run_name(self.row.name, self.seed)

    @property
    def output(self) -> Path:
        return self.table / self.name

    @cached_property
    def config(self) -> TrainConfig:
        """The row's configuration with its changes, its seed and the checkpoint to start from."""
        changes = self.row.changes | {"training.seed": self.seed} | ({"data.fold": self.seed} if self.row.folds else {})
        if self.row.depends_on and self.row.kind == "train":
            # Relative, as in a configuration file.
            changes["start_from"] = os.path.relpath(self.predecessors[0] / CHECKPOINT, resolve("."))
        return load_config(TrainConfig, resolve_config(self.row.config), changes=changes)

    @cached_property
    def predecessors(self) -> list[Path]:
        """Directories of the runs that must be finished before this one."""
        seeds = self.row.seeds if self.row.joins_seeds else (self.seed,)
        return [self._predecessor(name, seed) for name in self.row.depends_on for seed in seeds]

    def _predecessor(self, row: str, seed: int) -> Path:
        """Directory of another row's run with this seed, or of its only run."""
        seeds = self.seeds_by_row[row]
        return self.table / _run_name(row, seed if seed in seeds else seeds[0])

    @property
    def inputs(self) -> TrainingInputs:
        return TrainingInputs.from_config(self.config)

    def epochs(self) -> list[dict[str, float]]:
        """Metrics of the epochs so far; of an epoch that was run again after a kill, the later ones."""
        file = self.output / EPOCHS
        # The text after the last line end is not complete yet.
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        by_epoch = {metrics["epoch"]: metrics for metrics in map(json.loads, lines)}
        return [by_epoch[epoch] for epoch in sorted(by_epoch)]

    @property
    def result(self) -> dict[str, Any] | None:
        """Result of the run if it is finished."""
        path = self.output / RESULT
        return json.loads(path.read_text()) if path.exists() else None


def _run_name(row: str, seed: int) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', row.lower()).strip('-')}-{seed}"


@ray.remote(max_retries=2)
def train_row(run: TableRun, threads: int, provenance: dict[str, str]) -> None:
    """Train to the last epoch; after a kill Ray retries, and training resumes from the last state on disk."""
    torch.set_num_threads(threads)
    config = run.config
    splits = run.inputs.splits(config)
    initial = run.inputs.initial_checkpoint(config, splits)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = Training(config, splits, device, weights=initial_weights(config, initial))
    state = run.output / STATE
    if state.exists():
        training.load_state_dict(torch.load(state, weights_only=True, map_location=device))
    with (run.output / EPOCHS).open("a", buffering=1) as epochs:
        while training.next_epoch < config.training.epochs:
            epochs.write(json.dumps(training.run_epoch()) + "\n")
            if training.next_epoch % config.training.checkpoint_every == 0:
                with atomic_path(state) as partial:
                    torch.save(training.state_dict(), partial)
    result = write_result(run.output, run.name, config, training.state_dict(), splits, initial, provenance)
    write_json(run.output / UNLOGGED_RESULT, result | {"core_seconds": result["seconds"] * threads})
    state.unlink(missing_ok=True)


@ray.remote
def finalize_row(run: TableRun) -> None:
    """Make a run of finished trainings: an ensemble, a combination of two or three, or scores on other data."""
    checkpoints = [Checkpoint.load(path / CHECKPOINT) for path in run.predecessors]
    splits = run.inputs.splits(run.config)
    match run.row.kind:
        case "ensemble":
            result = write_ensemble(run.output, run.name, checkpoints, splits)
        case "combine" if len(checkpoints) == 2:
            spectrum, gap = checkpoints
            result = write_gapped(run.output, run.name, spectrum, gap, splits)
        case "combine":
            shape, scale, gap = checkpoints
            result = write_combined(run.output, run.name, shape, scale, gap, splits)
        case _:
            result = evaluate_on_test(checkpoints[0], splits, run.output)
    write_json(run.output / UNLOGGED_RESULT, result | {"core_seconds": 0.0})


def estimate_core_hours(run: TableRun) -> float:
    """Time an epoch of two batches on one core, after another that warms up, and scale it to the whole training."""
    config = run.config
    splits = run.inputs.splits(config)
    count = min(len(splits.train), 2 * config.training.batch_size)
    sample = splits.train.take(np.linspace(0, len(splits.train) - 1, count, dtype=int))
    training = Training(
        config, replace(splits, train=sample, valid=splits.valid.take(np.arange(1))), torch.device("cpu")
    )
    training.run_epoch()
    warm_up = training.seconds
    training.run_epoch()
    return (training.seconds - warm_up) * len(splits.train) / len(sample) * config.training.epochs / 3600
