"""What each worker of a training does: it imports neither MLflow nor what else only the driver needs."""

import tempfile
import uuid
from pathlib import Path
from typing import Any

import mat2spec.distributed.session  # noqa: F401 - before ray itself: sets how Ray starts

# isort: split
import ray.train
import torch
from ray.train.torch import get_device

from mat2spec.config import TrainConfig
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.train.fine_tuning import GAPS, Part, parts_to_train
from mat2spec.train.inputs import TrainingInputs, initial_weights
from mat2spec.train.loop import Training

STATE = "training.pt"
"""File of a checkpoint of Ray Train, and of a row of a table that is not finished."""


def networks_to_train(config: TrainConfig, inputs: TrainingInputs, start: Checkpoint | None) -> list[Part]:
    """Networks to train, with their initial weights."""
    return parts_to_train(config, initial_weights(config, start), lambda: inputs.has_column(GAPS))


def train_worker(loop: dict[str, Any]) -> None:
    """Training loop of each worker: train each part to its end, and write a checkpoint every few epochs."""
    torch.set_num_threads(loop["threads"])
    config = TrainConfig.model_validate(loop["config"])
    inputs: TrainingInputs = loop["inputs"]
    splits = inputs.splits(config, check_graphs=False)
    initial = inputs.initial_checkpoint(config, splits)
    context = ray.train.get_context()
    rank, device = context.get_world_rank(), get_device()
    state: dict[str, Any] | None = None
    if saved := ray.train.get_checkpoint():
        with saved.as_directory() as directory:
            state = torch.load(Path(directory, STATE), weights_only=True, map_location=device)
    finished = state.pop("finished", []) if state else []
    for part in networks_to_train(config, inputs, initial)[len(finished) :]:
        rows = inputs.splits(part.config, check_graphs=False) if part.name == "gap" else splits
        training = Training(part.config, rows, device, rank, context.get_world_size(), part.weights)
        if state:
            training.load_state_dict(state)
            state = None
        _train_part(training, part.name, finished)
        finished.append(training.state_dict())


def _train_part(training: Training, name: str, finished: list[dict[str, Any]]) -> None:
    """Run the epochs of one part; each checkpoint holds the states of the finished parts too."""
    # A killed attempt may leave a checkpoint that the controller never saw, under the name of its epoch.
    attempt = uuid.uuid4().hex[:8]
    prefix = f"{name}-" if name else ""
    while not training.is_finished:
        metrics = training.run_epoch() | {"part": name}
        epoch = training.next_epoch
        if training.rank > 0 or (epoch % training.config.training.checkpoint_every and not training.is_finished):
            ray.train.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as directory:
            torch.save(training.state_dict() | {"finished": finished}, Path(directory, STATE))
            saved = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(metrics, checkpoint=saved, checkpoint_dir_name=f"{prefix}epoch-{epoch:04d}-{attempt}")
