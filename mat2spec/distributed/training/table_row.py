"""One training of a table: its settings, its directory, and what a worker does for it."""

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
from mat2spec.distributed.training.run import STATE
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.storage.paths import resolve
from mat2spec.train.ensembling import write_combined, write_ensemble
from mat2spec.train.inputs import Sources, first_weights
from mat2spec.train.loop import Training
from mat2spec.train.result import CHECKPOINT, RESULT, judge, write_outcome

OUTCOME = "outcome.json"
"""What a worker leaves; it becomes the result when it has been logged."""

EPOCHS = "epochs.jsonl"
"""Where a worker tells what each epoch reached. A file, as a task that waits for another process gives up its cores meanwhile."""


@dataclass(frozen=True)
class TableRun:
    """One training of a table.

    Args:
        row: Where it belongs.
        seed: Its seed.
        table: Directory of all runs.
        seeds_of: Seeds of the rows after which it comes.
    """

    row: TableRow
    seed: int
    table: Path
    seeds_of: Mapping[str, tuple[int, ...]]

    @property
    def name(self) -> str:
        """Name of the run, its directory and its checkpoint."""
        return self.name_of(self.row.name, self.seed)

    @staticmethod
    def name_of(row: str, seed: int) -> str:
        return f"{re.sub(r'[^a-z0-9]+', '-', row.lower()).strip('-')}-{seed}"

    @property
    def output(self) -> Path:
        return self.table / self.name

    @cached_property
    def config(self) -> TrainConfig:
        """The row's configuration with its changes, its seed and the checkpoint to start from."""
        changes = self.row.changes | {"training.seed": self.seed} | ({"data.fold": self.seed} if self.row.folds else {})
        if self.row.after and self.row.kind == "train":
            changes["start_from"] = os.path.relpath(
                self.predecessors[0] / CHECKPOINT, resolve(".")
            )  # as a config would name it
        return load_config(TrainConfig, resolve(self.row.config), changes=changes)

    @cached_property
    def predecessors(self) -> list[Path]:
        """Directories of the runs that must be finished before this one."""
        seeds = self.row.seeds if self.row.kind == "join" else (self.seed,)
        return [self._of(name, seed) for name in self.row.after for seed in seeds]

    def _of(self, row: str, seed: int) -> Path:
        """Directory of another row's run of a seed, or of its only run."""
        run = self.table / self.name_of(row, seed)
        return run if seed in self.seeds_of[row] else self.table / self.name_of(row, self.seeds_of[row][0])

    @property
    def sources(self) -> Sources:
        return Sources.of(self.config)

    def epochs_after(self, last: int) -> list[dict[str, float]]:
        """What the worker has told of the epochs after one; of an epoch that a successor ran again, the second account."""
        told = self.output / EPOCHS
        lines = (
            told.read_text().split("\n")[:-1] if told.exists() else []
        )  # what comes after the last line end is not whole yet
        by_epoch = {metrics["epoch"]: metrics for metrics in map(json.loads, lines)}
        return [metrics for epoch, metrics in sorted(by_epoch.items()) if epoch > last]

    @property
    def result(self) -> dict[str, Any] | None:
        """What the run reached, if it is finished."""
        path = self.output / RESULT
        return json.loads(path.read_text()) if path.exists() else None


@ray.remote(max_retries=2)
def train_one(run: TableRun, threads: int, made_by: dict[str, str]) -> None:
    """Train to the last epoch; a killed worker's successor goes on from the last state on disk."""
    torch.set_num_threads(threads)
    config, state = run.config, run.output / STATE
    splits = run.sources.splits(config)
    beginning = run.sources.beginning(config, splits)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = Training(config, splits, device, weights=first_weights(config, beginning))
    if state.exists():
        training.load_state_dict(torch.load(state, weights_only=True, map_location=device))
    with (run.output / EPOCHS).open("a", buffering=1) as told:
        while training.next_epoch < config.training.epochs:
            told.write(json.dumps(training.run_epoch()) + "\n")
            if training.next_epoch % config.training.checkpoint_every == 0:
                torch.save(training.state_dict(), state.with_suffix(".partial"))
                state.with_suffix(".partial").rename(state)
    result = write_outcome(run.output, run.name, config, training.state_dict(), splits, beginning, made_by)
    (run.output / OUTCOME).write_text(json.dumps(result | {"core_seconds": result["seconds"] * threads}))
    state.unlink(missing_ok=True)


@ray.remote
def take_up(run: TableRun) -> None:
    """Make a row of finished trainings: an ensemble of all seeds, one of three parts, or scores on other rows."""
    checkpoints, splits = (
        [Checkpoint.load(path / CHECKPOINT) for path in run.predecessors],
        run.sources.splits(run.config),
    )
    match run.row.kind:
        case "join":
            result = write_ensemble(run.output, run.name, checkpoints, splits)
        case "combine":
            result = write_combined(run.output, run.name, *checkpoints, splits)
        case _:
            result = judge(checkpoints[0], splits, run.output)
    (run.output / OUTCOME).write_text(json.dumps(result | {"core_seconds": 0.0}))


def core_hours(run: TableRun) -> float:
    """Time an epoch of two batches, after another that warms up, and multiply."""
    splits = run.sources.splits(run.config)
    sample = splits.train.take(
        np.linspace(0, len(splits.train) - 1, min(len(splits.train), 2 * run.config.training.batch_size), dtype=int)
    )
    training = Training(
        run.config, replace(splits, train=sample, valid=splits.valid.take(np.arange(1))), torch.device("cpu")
    )
    training.run_epoch()
    first = training.seconds
    training.run_epoch()
    return (training.seconds - first) * len(splits.train) / len(sample) * run.config.training.epochs / 3600
