"""Checkpoints as MLflow's logged models, with scores, datasets, a signature and an example."""

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from math import isfinite
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import DatasetInput, Metric
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

from mat2spec.distributed.mlflow.runs import TrackedRun, dataset_input, now
from mat2spec.distributed.mlflow.store import connect
from mat2spec.errors import CheckpointError
from mat2spec.model.checkpoint import Card, Checkpoint, TrainingRecord
from mat2spec.predict.mlflow_model import EXAMPLE
from mat2spec.predict.predictor import Predictor
from mat2spec.storage.paths import locate_input

SCORES = "scores/"
"""Prefix of the metrics of a checkpoint: a section of MLflow's charts, below the curves."""

CONTEXTS = {"train": "training", "valid": "validation", "test": "testing"}
"""What MLflow calls the parts of a table of labels."""

REQUEST = Schema(
    [
        ColSpec(DataType.string, "material_id"),
        ColSpec(DataType.string, "formula_pretty"),
        ColSpec(DataType.long, "nsites"),
        ColSpec(Array(DataType.long), "atomic_numbers"),
        ColSpec(Array(DataType.double), "lattice"),
        ColSpec(Array(DataType.double), "frac_coords"),
    ]
)
"""Columns of a materials table, as MLflow checks them."""


def log_checkpoint(
    run: TrackedRun, directory: Path, scores: Mapping[str, Mapping[str, float]], register_as: str | None
) -> str | None:
    """Log a checkpoint as a model that can be registered and served; it contains no pickle.

    The model shows the losses of the epoch that was chosen, and its scores beside the rows that they are of.

    Args:
        run: Of the training.
        directory: The checkpoint.
        scores: By part of the labels (train, valid or test) and metric.
        register_as: Name in the registry, if it is to be registered.

    Returns:
        The models:/ URI of the registered version.
    """
    checkpoint = Checkpoint.load(directory)
    card = checkpoint.card
    rows = _label_datasets(card.training)
    run.log_inputs(list(rows.values()))
    connect(run.uri)
    # MLflow announces versions on stderr, where they may come after the last line; the caller says it
    with redirect_stderr(io.StringIO()), mlflow.start_run(run_id=run.run_id):
        model = mlflow.pyfunc.log_model(
            name=re.sub(r"[/:.%\"']+", "-", card.name),
            loader_module="mat2spec.serving",  # stored in registered models: must stay importable
            data_path=str(directory),
            pip_requirements=["mat2spec"],
            registered_model_name=register_as,
            step=card.training.epoch,
            **_request_and_answer(checkpoint),
        )
    _log_scores(run, scores, rows, model.model_id, card.training.epoch)
    text = f"`{directory}`: {_origin(run, card)}\n\n{_markdown_table(scores)}"
    run.describe(text)
    run.client.set_logged_model_tags(model.model_id, {"mlflow.note.content": text})
    if register_as is None:
        return None
    run.client.update_model_version(register_as, str(model.registered_model_version), description=text)
    return f"models:/{register_as}/{model.registered_model_version}"


def _origin(run: TrackedRun, card: Card) -> str:
    """Say how the weights were made."""
    if run.last_epoch() < 0:
        return f"made of {', '.join(card.training.parents)}."
    return f"epoch {card.training.epoch + 1} of {card.config.training.epochs}, that of the lowest validation MAE."


def _log_scores(
    run: TrackedRun,
    scores: Mapping[str, Mapping[str, float]],
    rows: Mapping[str, DatasetInput],
    model_id: str,
    epoch: int,
) -> None:
    """Log the scores of a checkpoint on each part of its labels, to its model and to this run."""
    logged_at = now()
    metrics = [
        Metric(
            f"{SCORES}{part}_{name}",
            value,
            logged_at,
            epoch,
            model_id,
            rows[part].dataset.name,
            rows[part].dataset.digest,
            run.run_id,
        )
        for part, values in scores.items()
        for name, value in values.items()
        if isfinite(value)  # the precision of no hits is not a number
    ]
    run.client.log_batch(run.run_id, metrics=metrics)


def _label_datasets(training: TrainingRecord) -> dict[str, DatasetInput]:
    """Training, validation and test rows of a checkpoint, under one fingerprint."""
    source = str(locate_input(training.labels))
    return {
        part: dataset_input(f"{Path(source).stem} {part}", training.labels_fingerprint, source, CONTEXTS[part], rows)
        for part, rows in training.rows.items()
    }


def _request_and_answer(checkpoint: Checkpoint) -> dict[str, Any]:
    """Signature and input example of a model; none for one that predicts no spectra and cannot be served."""
    try:
        Predictor(checkpoint, "cpu")
    except CheckpointError:
        return {}
    spectra = Schema([TensorSpec(np.dtype(np.float32), (-1, len(checkpoint.grid)))])
    return {"signature": ModelSignature(REQUEST, spectra), "input_example": pd.DataFrame([EXAMPLE])}


def _markdown_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """One row per metric, one column per part of the labels."""
    head = ["", *(CONTEXTS[part] for part in scores)]
    metrics = dict.fromkeys(name for values in scores.values() for name in values)
    body = [
        [name, *(f"{values[name]:.4g}" if name in values else "" for values in scores.values())] for name in metrics
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])
