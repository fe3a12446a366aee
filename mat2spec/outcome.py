"""What a finished training leaves: the checkpoint of its best epoch, test scores and a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.stats import spearmanr
from torch import Tensor

from mat2spec.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.config import EnsembleConfig, TrainConfig
from mat2spec.data.labels import LabelledCrystals, LabelledSplits
from mat2spec.evaluation import Evaluation, evaluate
from mat2spec.figures import spectra_by_error
from mat2spec.normalization import SumNormalization
from mat2spec.predict import Predictor

CHECKPOINT, FIGURE, RESULT = "checkpoint", "predicted-and-true.png", "result.json"


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
        beginning: Checkpoint with which it began; what that saw, this one saw too.
        made_by: `checkpoint.environment` when it began.

    Returns:
        The result: best epoch, seconds, scores on validation rows and, by scaling, on test rows.
    """
    best = state["best"]
    record = TrainingRecord(
        labels=config.data.table,
        labels_fingerprint=splits.fingerprint,
        rows={"train": len(splits.train), "valid": len(splits.valid), "test": len(splits.test)},
        elements=tuple(sorted({*splits.train.elements, *(beginning.card.training.elements if beginning else ())})),
        epoch=best["epoch"],
        validation=best["scores"],
        seconds=round(state["seconds"], 1),
        environment=made_by,
        parents={beginning.card.name: beginning.fingerprint} if beginning else {},
    )
    seen = {*splits.train.material_ids, *splits.valid.material_ids, *(beginning.training_ids if beginning else ())}
    write_checkpoint(output / CHECKPOINT, name, config, best["weights"], record, sorted(seen))
    checkpoint = Checkpoint.load(output / CHECKPOINT)
    spectra_by_error(_on_test(checkpoint, splits), output / FIGURE)
    return judge(checkpoint, splits)


def judge(checkpoint: Checkpoint, splits: LabelledSplits) -> dict[str, Any]:
    """Give the result of a checkpoint: best epoch, seconds, scores on validation rows and, by scaling, on test rows."""
    training = checkpoint.card.training
    valid = evaluate(checkpoint, splits.valid, torch.device("cpu"), held_out=False)
    return {
        "epoch": training.epoch,
        "seconds": training.seconds,
        "environment": training.environment,
        "valid": valid.scores(),
        "test": _on_test(checkpoint, splits).scores_by_scaling(),
    }


def _on_test(checkpoint: Checkpoint, splits: LabelledSplits) -> Evaluation:
    return evaluate(checkpoint, splits.test, torch.device("cpu"))


def write_ensemble(output: Path, name: str, members: Sequence[Checkpoint], splits: LabelledSplits) -> dict[str, Any]:
    """Join finished trainings into one checkpoint, learn on the validation rows what their disagreement is worth, and judge it.

    The expected error is offset + slope · disagreement, neither of them negative, by least squares.

    Returns:
        The result, as `write_outcome` gives it; and how well the expected error tells the true one on the test rows: rank
        correlation, and the shares of materials whose error is at most the expected one and twice that.
    """
    first = members[0].card
    model = EnsembleConfig(architecture="ensemble", members=len(members), member=first.config.model)
    config = first.config.model_copy(update={"model": model})
    weights = {f"members.{i}.{key}": value for i, one in enumerate(members) for key, value in one.network.state_dict().items()}
    weights |= {key: value for key, value in members[0].network.state_dict().items() if key.startswith("normalization.")}
    seen = sorted(frozenset.union(*(member.training_ids for member in members)))
    record = first.training.model_copy(
        update={
            "seconds": round(sum(member.card.training.seconds for member in members), 1),
            "parents": {member.card.name: member.fingerprint for member in members},
        }
    )

    def written(calibration: Tensor, record: TrainingRecord) -> Checkpoint:
        write_checkpoint(output / CHECKPOINT, name, config, weights | {"calibration": calibration}, record, seen)
        return Checkpoint.load(output / CHECKPOINT)

    uncalibrated = written(torch.tensor([0.0, 1.0]), record)
    disagreement, errors = _expected_and_true_errors(uncalibrated, splits.valid)
    calibration, _ = nnls(np.stack([np.ones_like(disagreement), disagreement], axis=1), errors)
    valid = evaluate(uncalibrated, splits.valid, torch.device("cpu"), held_out=False).scores()
    checkpoint = written(torch.from_numpy(calibration).float(), record.model_copy(update={"validation": valid}))
    spectra_by_error(_on_test(checkpoint, splits), output / FIGURE)
    expected, errors = _expected_and_true_errors(checkpoint, splits.test)
    return judge(checkpoint, splits) | {
        "spread": {
            "rank_correlation": float(spearmanr(expected, errors).statistic),
            "within_expected": float((errors <= expected).mean()),
            "within_twice_expected": float((errors <= 2 * expected).mean()),
            "mean_expected": float(expected.mean()),
            "mean_error": float(errors.mean()),
        },
    }


def _expected_and_true_errors(checkpoint: Checkpoint, crystals: LabelledCrystals) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute errors of the ensemble's spectra, as it expects them and as they are [states per unit of the grid and atom]."""
    spectra, expected = Predictor(checkpoint, torch.device("cpu")).spectra_and_spread(crystals.graphs)
    assert expected is not None
    true = SumNormalization().to_states(crystals.spectra.numpy(), checkpoint.grid)
    return expected, np.abs(spectra - true).mean(axis=1)


def mark_finished(output: Path, result: dict[str, Any]) -> None:
    """Write the result: a directory that has one is done."""
    (output / RESULT).write_text(json.dumps(result, indent=1) + "\n")
