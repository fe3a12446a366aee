"""Result of a finished training: the checkpoint of its best epoch and its scores on the test set."""

from math import isfinite
from pathlib import Path
from typing import Any

import torch

from mat2spec.config import TrainConfig
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.evaluate.plots import error_histogram, plot_evaluation
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.training_structures import TrainingStructures
from mat2spec.storage.atomic import write_json, write_parquet

CHECKPOINT, TEST, RESULT = "checkpoint", "test.parquet", "result.json"
FIGURE, HISTOGRAM = "predicted-and-true.png", "error-histogram.png"

RUN_ID_FILE = "mlflow_run_id"
"""File in the directory of a training with MLflow's id of its run."""


def write_result(
    output: Path,
    name: str,
    config: TrainConfig,
    state: dict[str, Any],
    splits: LabeledSplits,
    initial: Checkpoint | None,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Write the checkpoint with `write_trained`, then evaluate it on the test rows.

    Returns:
        Best epoch, seconds, scores on the validation rows and, by scaling, on the test rows.
    """
    checkpoint = write_trained(output, name, config, state, splits, initial, environment)
    return evaluate_on_test(checkpoint, splits, output)


def write_trained(
    output: Path,
    name: str,
    config: TrainConfig,
    state: dict[str, Any],
    splits: LabeledSplits,
    initial: Checkpoint | None,
    environment: dict[str, str],
) -> Checkpoint:
    """Write and return the checkpoint of the best epoch of a training.

    Args:
        output: Directory of the run.
        name: Name of the run and of the checkpoint.
        config: Configuration of the training.
        state: `Training.state_dict` after the last epoch.
        splits: Training, validation and test rows.
        initial: Checkpoint that training started from. Materials seen by it count as seen by this one too, unless only
            its encoder was used, or its labels were no DFT and these are. Its elements count in both cases of labels.
        environment: `provenance.environment` when training started.
    """
    best = state["best"]
    # An encoder alone has seen crystals, but not their labels.
    inherited = None if config.start_with == "encoder" else initial
    record = TrainingRecord(
        labels=config.data.table,
        labels_fingerprint=splits.fingerprint,
        rows={"train": len(splits.train), "valid": len(splits.valid), "test": len(splits.test)},
        elements=tuple(sorted({*splits.train.elements, *(inherited.card.training.elements if inherited else ())})),
        epoch=best["epoch"],
        # scores of metals alone, or of no hits, are not a number, and a card has none
        validation={name: value for name, value in best["scores"].items() if isfinite(value)},
        seconds=round(state["seconds"], 1),
        environment=environment,
        mlflow_run_id=mlflow_run_id(output),
        parents={initial.card.name: initial.fingerprint} if initial else {},
    )
    seen = {*splits.train.material_ids, *splits.valid.material_ids}
    structures = TrainingStructures.from_crystals([*splits.train.crystals, *splits.valid.crystals])
    if inherited and inherited.card.config.data.level == config.data.level:
        seen |= inherited.training_ids
        structures = TrainingStructures.union([structures, inherited.training_structures])
    write_checkpoint(output / CHECKPOINT, name, config, best["weights"], record, sorted(seen), structures)
    return Checkpoint.load(output / CHECKPOINT)


def mlflow_run_id(output: Path) -> str | None:
    """MLflow's id of the run of a training's directory, if it is tracked."""
    file = output / RUN_ID_FILE
    return file.read_text().strip() if file.exists() else None


def evaluate_on_test(checkpoint: Checkpoint, splits: LabeledSplits, output: Path) -> dict[str, Any]:
    """Evaluate a checkpoint on the test rows and write its predictions for them as a table and a plot.

    Returns:
        Best epoch, seconds, scores on the validation rows and, by scaling, on the test rows.
    """
    training = checkpoint.card.training
    valid = evaluate(checkpoint, splits.valid, torch.device("cpu"), held_out=False)
    test = evaluate(checkpoint, splits.test, torch.device("cpu"))
    write_parquet(output / TEST, test.material_table(splits.train.crystals))
    plot_evaluation(test, output / FIGURE)
    error_histogram(test, output / HISTOGRAM)
    return {
        "epoch": training.epoch,
        "seconds": training.seconds,
        "environment": training.environment,
        "valid": valid.scores(),
        "test": test.scores_by_scaling(),
    }


def mark_finished(output: Path, result: dict[str, Any]) -> None:
    """Write the result file, which marks the run as finished."""
    write_json(output / RESULT, result)
