"""Finished trainings made into one checkpoint: an ensemble of one network, or the parts of an electronic predictor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.stats import spearmanr
from torch import Tensor

from mat2spec.config import CombinedConfig, EnsembleConfig, GapConfig, Mat2SpecConfig, TrainConfig
from mat2spec.data.labels.dataset import LabelledCrystals, LabelledSplits
from mat2spec.errors import CheckpointError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.predict.predictor import Predictor
from mat2spec.train.result import CHECKPOINT, judge


def write_ensemble(output: Path, name: str, members: Sequence[Checkpoint], splits: LabelledSplits) -> dict[str, Any]:
    """Join finished trainings into one checkpoint, learn on the validation rows what their disagreement is worth, and judge it.

    The expected error is offset + slope · disagreement, neither of them negative, by least squares.

    Returns:
        The result, as `write_result` gives it; and how well the expected error tells the true one on the test rows: rank
        correlation, and the shares of materials whose error is at most the expected one and twice that.
    """
    first = members[0].card
    model = EnsembleConfig(architecture="ensemble", members=len(members), member=first.config.model)
    config = _joined(first.config, model)
    weights = {
        f"members.{i}.{key}": value for i, one in enumerate(members) for key, value in one.network.state_dict().items()
    }
    weights |= {
        key: value for key, value in members[0].network.state_dict().items() if key.startswith("normalization.")
    }
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
    expected, errors = _expected_and_true_errors(checkpoint, splits.test)
    return judge(checkpoint, splits, output) | {
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
    spectra, expected, _ = Predictor(checkpoint, torch.device("cpu")).predict_graphs(crystals.graphs)
    assert expected is not None
    true = checkpoint.grid.to_states(crystals.spectra.numpy())
    return expected, np.abs(spectra - true).mean(axis=1)


def write_combined(
    output: Path, name: str, shape: Checkpoint, scale: Checkpoint, gap: Checkpoint, splits: LabelledSplits
) -> dict[str, Any]:
    """Join three finished trainings into one checkpoint of `model.combined.Combined`, and judge it.

    Returns:
        The result, as `outcome.judge` gives it.

    Raises:
        CheckpointError: If one of them is not the part that it is taken for, or their grids or graphs differ, or two encoders.
    """
    config = _combined_config(shape, scale, gap)
    _check_encoders(shape, scale)
    parts = {"shape": shape, "scale": scale, "gap": gap}
    trained = {
        f"{role}.{key}": value for role, part in parts.items() for key, value in part.network.state_dict().items()
    }
    whole = build_network(config).state_dict()
    weights = whole | {key: value for key, value in trained.items() if key in whole}
    record = shape.card.training.model_copy(
        update={
            "seconds": round(sum(part.card.training.seconds for part in parts.values()), 1),
            "parents": {part.card.name: part.fingerprint for part in parts.values()},
        }
    )
    write_checkpoint(
        output / CHECKPOINT, name, config, weights, record, sorted(shape.training_ids | scale.training_ids)
    )
    return judge(Checkpoint.load(output / CHECKPOINT), splits, output)


def _combined_config(shape: Checkpoint, scale: Checkpoint, gap: Checkpoint) -> TrainConfig:
    """Configuration of the whole, that of the scale with the parts for its model."""
    parts = {
        "shape": (shape, Mat2SpecConfig, "sum"),
        "scale": (scale, Mat2SpecConfig, "standard"),
        "gap": (gap, GapConfig, None),
    }
    for role, (part, kind, normalization) in parts.items():
        config = part.card.config
        if not isinstance(config.model, kind) or normalization not in (None, config.normalization):
            needs = f"architecture {'gap' if kind is GapConfig else 'mat2spec'}{f', normalization {normalization}' if normalization else ''}"
            raise CheckpointError(f"{part.card.name}: cannot be the {role} of a combined network, which needs {needs}")
        for name in ("grid", "graph"):
            if getattr(config, name) != getattr(shape.card.config, name):
                raise CheckpointError(
                    f"{part.card.name}: its {name} is not that of {shape.card.name}; combine networks that have it in common"
                )
    models = {role: part.card.config.model for role, (part, _, _) in parts.items()}
    return _joined(scale.card.config, CombinedConfig(architecture="combined", **models))


def _joined(config: TrainConfig, model: CombinedConfig | EnsembleConfig) -> TrainConfig:
    """Settings of a part with the whole in its place, which was not trained and began with nothing."""
    training = config.training.model_copy(update={"freeze_encoder": False})
    return config.model_copy(update={"model": model, "training": training, "start_from": None, "start_with": "network"})


def _check_encoders(shape: Checkpoint, scale: Checkpoint) -> None:
    """Make sure that both read the same vectors of crystals.

    Raises:
        CheckpointError: If their encoders differ.
    """
    ours, theirs = _encoder(shape), _encoder(scale)
    if theirs.keys() != ours.keys() or any(not theirs[key].equal(ours[key]) for key in ours):
        how = f"train it with start_from {shape.card.name}, start_with encoder and freeze_encoder"
        raise CheckpointError(f"{scale.card.name}: its encoder is not that of {shape.card.name}; {how}")


def _encoder(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Everything on which its vectors depend."""
    weights = checkpoint.network.state_dict()
    return {
        key: value
        for key, value in weights.items()
        if key.startswith("encoder.") and not key.endswith("num_batches_tracked")
    }
