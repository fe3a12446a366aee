"""Checkpoints made of finished trainings: ensembles of one network, and combined electronic predictors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.stats import spearmanr
from torch import Tensor

from mat2spec.config import CombinedConfig, EnsembleConfig, GapConfig, Mat2SpecConfig, TrainConfig
from mat2spec.data.labels.dataset import LabeledCrystals, LabeledSplits
from mat2spec.errors import CheckpointError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.predict.predictor import Predictor
from mat2spec.train.result import CHECKPOINT, evaluate_on_test


def write_ensemble(output: Path, name: str, members: Sequence[Checkpoint], splits: LabeledSplits) -> dict[str, Any]:
    """Write an ensemble: calibrate member disagreement against validation errors, then evaluate on the test rows.

    Expected error = offset + slope · disagreement, both non-negative, fitted by least squares.

    Returns:
        The result of `evaluate_on_test`, and under "spread" how well expected errors match true ones on the test rows:
        rank correlation, and the shares of materials whose error is at most the expected one and at most twice that.
    """
    first = members[0].card
    model = EnsembleConfig(architecture="ensemble", members=len(members), member=first.config.model)
    config = _config_of_whole(first.config, model)
    weights = _ensemble_weights(members)
    seen = sorted(frozenset.union(*(member.training_ids for member in members)))
    record = _record_with_parents(first.training, members)

    def write(calibration: Tensor, record: TrainingRecord) -> Checkpoint:
        write_checkpoint(output / CHECKPOINT, name, config, weights | {"calibration": calibration}, record, seen)
        return Checkpoint.load(output / CHECKPOINT)

    uncalibrated = write(torch.tensor([0.0, 1.0]), record)
    disagreement, errors = _expected_and_true_errors(uncalibrated, splits.valid)
    calibration, _ = nnls(np.stack([np.ones_like(disagreement), disagreement], axis=1), errors)
    valid = evaluate(uncalibrated, splits.valid, torch.device("cpu"), held_out=False).scores()
    checkpoint = write(torch.from_numpy(calibration).float(), record.model_copy(update={"validation": valid}))
    expected, errors = _expected_and_true_errors(checkpoint, splits.test)
    return evaluate_on_test(checkpoint, splits, output) | {
        "spread": {
            "rank_correlation": float(spearmanr(expected, errors).statistic),
            "within_expected": float((errors <= expected).mean()),
            "within_twice_expected": float((errors <= 2 * expected).mean()),
            "mean_expected": float(expected.mean()),
            "mean_error": float(errors.mean()),
        },
    }


def _ensemble_weights(members: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """Weights of all members, and the normalization that they share."""
    states = [member.network.state_dict() for member in members]
    weights = {f"members.{i}.{key}": value for i, state in enumerate(states) for key, value in state.items()}
    return weights | {key: value for key, value in states[0].items() if key.startswith("normalization.")}


def _expected_and_true_errors(checkpoint: Checkpoint, crystals: LabeledCrystals) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute errors of an ensemble's spectra, expected and true [states per unit of the grid and atom]."""
    spectra, expected, _ = Predictor(checkpoint, torch.device("cpu")).predict_graphs(crystals.graphs)
    assert expected is not None
    true = checkpoint.grid.to_states(crystals.spectra.numpy())
    return expected, np.abs(spectra - true).mean(axis=1)


def write_combined(
    output: Path, name: str, shape: Checkpoint, scale: Checkpoint, gap: Checkpoint, splits: LabeledSplits
) -> dict[str, Any]:
    """Write a combined checkpoint (`model.combined.Combined`) of three trainings and evaluate it on the test rows.

    Returns:
        The result of `evaluate_on_test`.

    Raises:
        CheckpointError: If one of them cannot play its role, or they differ in grid, graphs or encoder.
    """
    config = _combined_config(shape, scale, gap)
    _check_shared_encoder(shape, scale)
    parts = {"shape": shape, "scale": scale, "gap": gap}
    trained = {
        f"{role}.{key}": value for role, part in parts.items() for key, value in part.network.state_dict().items()
    }
    whole = build_network(config).state_dict()
    weights = whole | {key: value for key, value in trained.items() if key in whole}
    record = _record_with_parents(shape.card.training, list(parts.values()))
    seen = sorted(shape.training_ids | scale.training_ids)
    write_checkpoint(output / CHECKPOINT, name, config, weights, record, seen)
    return evaluate_on_test(Checkpoint.load(output / CHECKPOINT), splits, output)


def _record_with_parents(record: TrainingRecord, parents: Sequence[Checkpoint]) -> TrainingRecord:
    """Training record of a checkpoint made of others: their total time, and their fingerprints."""
    return record.model_copy(
        update={
            "seconds": round(sum(parent.card.training.seconds for parent in parents), 1),
            "parents": {parent.card.name: parent.fingerprint for parent in parents},
        }
    )


def _combined_config(shape: Checkpoint, scale: Checkpoint, gap: Checkpoint) -> TrainConfig:
    """Configuration of the combined network: that of the scale, with the models of all three parts."""
    parts = {
        "shape": (shape, Mat2SpecConfig, "sum"),
        "scale": (scale, Mat2SpecConfig, "standard"),
        "gap": (gap, GapConfig, None),
    }
    for role, (part, kind, normalization) in parts.items():
        config = part.card.config
        if not isinstance(config.model, kind) or normalization not in (None, config.normalization):
            needs = f"architecture {'gap' if kind is GapConfig else 'mat2spec'}"
            if normalization:
                needs += f", normalization {normalization}"
            raise CheckpointError(f"{part.card.name}: cannot be the {role} of a combined network, which needs {needs}")
        for name in ("grid", "graph"):
            if getattr(config, name) != getattr(shape.card.config, name):
                raise CheckpointError(
                    f"{part.card.name}: its {name} differs from that of {shape.card.name}; "
                    f"combine networks with the same {name}"
                )
    models = {role: part.card.config.model for role, (part, _, _) in parts.items()}
    return _config_of_whole(scale.card.config, CombinedConfig(architecture="combined", **models))


def _config_of_whole(config: TrainConfig, model: CombinedConfig | EnsembleConfig) -> TrainConfig:
    """Configuration of a part, with the model of the whole and without the part's own start."""
    training = config.training.model_copy(update={"freeze_encoder": False})
    return config.model_copy(update={"model": model, "training": training, "start_from": None, "start_with": "network"})


def _check_shared_encoder(shape: Checkpoint, scale: Checkpoint) -> None:
    """Check that both networks have the same encoder.

    Raises:
        CheckpointError: If their encoders differ.
    """
    ours = _encoder_weights(shape)
    theirs = _encoder_weights(scale)
    if theirs.keys() != ours.keys() or any(not theirs[key].equal(ours[key]) for key in ours):
        raise CheckpointError(
            f"{scale.card.name}: its encoder differs from that of {shape.card.name}; train it with "
            f"start_from {shape.card.name}, start_with encoder and freeze_encoder"
        )


def _encoder_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Weights and statistics that determine the crystal vectors."""
    weights = checkpoint.network.state_dict()
    return {
        key: value
        for key, value in weights.items()
        if key.startswith("encoder.") and not key.endswith("num_batches_tracked")
    }
