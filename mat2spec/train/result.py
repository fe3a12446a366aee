"""What a finished training leaves: the checkpoint of its best epoch, and what it says of the test rows."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from mat2spec.config import TrainConfig
from mat2spec.data.labels.dataset import LabelledSplits
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.evaluate.plots import draw_evaluation
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint

CHECKPOINT, FIGURE, TEST, RESULT = "checkpoint", "predicted-and-true.png", "test.parquet", "result.json"


def write_outcome(
    output: Path,
    name: str,
    config: TrainConfig,
    state: dict[str, Any],
    splits: LabelledSplits,
    beginning: Checkpoint | None,
    made_by: dict[str, str],
) -> dict[str, Any]:
    """Write the checkpoint and its picture, and judge it on the test rows.

    Args:
        output: Directory of the run.
        name: Name of the run and of the checkpoint.
        config: The experiment.
        state: `Training.state_dict` after the last epoch.
        splits: Its rows.
        beginning: Checkpoint with which it began; what that saw, this one saw too, unless only its encoder was taken.
        made_by: `checkpoint.environment` when it began.

    Returns:
        The result: best epoch, seconds, scores on validation rows and, by scaling, on test rows.
    """
    best = state["best"]
    before = (
        beginning if config.start_with == "network" else None
    )  # an encoder alone knows crystals, but not their labels
    record = TrainingRecord(
        labels=config.data.table,
        labels_fingerprint=splits.fingerprint,
        rows={"train": len(splits.train), "valid": len(splits.valid), "test": len(splits.test)},
        elements=tuple(sorted({*splits.train.elements, *(before.card.training.elements if before else ())})),
        epoch=best["epoch"],
        validation=best["scores"],
        seconds=round(state["seconds"], 1),
        environment=made_by,
        parents={beginning.card.name: beginning.fingerprint} if beginning else {},
    )
    seen = {*splits.train.material_ids, *splits.valid.material_ids, *(before.training_ids if before else ())}
    write_checkpoint(output / CHECKPOINT, name, config, best["weights"], record, sorted(seen))
    checkpoint = Checkpoint.load(output / CHECKPOINT)
    return judge(checkpoint, splits, output)


def judge(checkpoint: Checkpoint, splits: LabelledSplits, output: Path) -> dict[str, Any]:
    """Judge a checkpoint on test rows, and write what it predicts for them as a table and as a picture.

    Returns:
        The result: best epoch, seconds, scores on validation rows and, by scaling, on test rows.
    """
    training = checkpoint.card.training
    valid = evaluate(checkpoint, splits.valid, torch.device("cpu"), held_out=False)
    test = evaluate(checkpoint, splits.test, torch.device("cpu"))
    pq.write_table(test.material_table(splits.train.crystals), output / TEST)
    draw_evaluation(test, output / FIGURE)
    return {
        "epoch": training.epoch,
        "seconds": training.seconds,
        "environment": training.environment,
        "valid": valid.scores(),
        "test": test.scores_by_scaling(),
    }


def mark_finished(output: Path, result: dict[str, Any]) -> None:
    """Write the result: a directory that has one is done."""
    (output / RESULT).write_text(json.dumps(result, indent=1) + "\n")
