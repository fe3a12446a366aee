"""A worker that fine-tunes the members of an ensemble one after the other, killed at any epoch and started again.

Ray Train is replaced by an object that keeps what is reported and can kill the worker.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray.train
import torch

import mat2spec.distributed.training.worker as worker
from mat2spec.config import TrainConfig, validate
from mat2spec.train.fine_tuning import settings_with_start
from mat2spec.train.inputs import TrainingInputs

EPOCHS = 3


class WorkerKilledError(Exception):
    """Stands for a signal."""


class Reports:
    """What a worker reports to Ray Train.

    Args:
        folder: Where checkpoints are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.left: int | None = None

    def report(self, metrics: dict[str, Any], checkpoint: Any = None, checkpoint_dir_name: str | None = None) -> None:
        """Keep what is reported, unless it is time to be killed."""
        if self.left == 0:
            raise WorkerKilledError
        self.left = None if self.left is None else self.left - 1
        self.metrics.append(metrics)
        if checkpoint is not None:
            shutil.copytree(checkpoint.path, self.folder / str(checkpoint_dir_name))
            self.names.append(str(checkpoint_dir_name))

    def latest(self) -> Any:
        return ray.train.Checkpoint.from_directory(self.folder / self.names[-1]) if self.names else None

    def state(self) -> list[dict[str, Any]]:
        """States of all members after the last epoch."""
        state = torch.load(self.folder / self.names[-1] / worker.STATE, weights_only=True)
        return [*state.pop("finished"), state]


@contextmanager
def reporting_to(reports: Reports) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.train, "report", reports.report)
        patch.setattr(ray.train, "get_checkpoint", reports.latest)
        context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
        patch.setattr(ray.train, "get_context", lambda: context)
        patch.setattr(worker, "get_device", lambda: torch.device("cpu"))
        yield


@pytest.fixture
def work(small_table, small_ensemble, tmp_path) -> Callable[..., None]:
    """Run the worker once."""
    pq.write_table(small_table, tmp_path / "small.parquet")
    settings = {
        "data": {"table": str(tmp_path / "small.parquet")},
        "training": {"epochs": EPOCHS, "batch_size": 12, "checkpoint_every": 1},
        "start_from": str(small_ensemble),
        "start_with": "checkpoint",
    }
    config = validate(TrainConfig, settings, "test")
    inputs = TrainingInputs.from_config(config)
    complete = settings_with_start(config, inputs.named_checkpoint()).model_dump(mode="json")

    def run_worker(reports: Reports) -> None:
        with reporting_to(reports):
            worker.train_worker({"config": complete, "inputs": inputs, "threads": 1})

    return run_worker


def losses(reports: Reports) -> list[tuple[str, int, float]]:
    return [(one["part"], one["epoch"], one["train_loss"]) for one in reports.metrics]


def test_members_are_trained_one_after_the_other_and_killed_work_is_resumed_to_the_same_bits(work, tmp_path):
    whole = Reports(tmp_path / "whole")
    work(whole)
    order = [(member, epoch) for member in ("member-1", "member-2") for epoch in range(EPOCHS)]
    assert [(part, epoch) for part, epoch, _ in losses(whole)] == order
    assert [name.rpartition("-")[0] for name in whole.names] == [f"{part}-epoch-{i + 1:04d}" for part, i in order]
    expected = whole.state()
    for killed_after in (2, 3, 4):  # in the first member, between both, in the second
        reports = Reports(tmp_path / f"killed-{killed_after}")
        reports.left = killed_after
        with pytest.raises(WorkerKilledError):
            work(reports)
        reports.left = None
        work(reports)
        assert losses(reports) == losses(whole), killed_after
        for one, other in zip(reports.state(), expected, strict=True):
            assert one["best"]["epoch"] == other["best"]["epoch"]
            assert all(tensor.equal(other["network"][name]) for name, tensor in one["network"].items())


def test_worker_that_has_done_everything_does_nothing(work, tmp_path):
    reports = Reports(tmp_path / "whole")
    work(reports)
    before = list(reports.names)
    work(reports)
    assert reports.names == before
