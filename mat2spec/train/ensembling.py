"""Checkpoints made of finished trainings: ensembles of one network, and combined electronic predictors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from mat2spec.config import (
    AnyGapConfig,
    CombinedConfig,
    EnsembleConfig,
    GappedConfig,
    TrainConfig,
)
from mat2spec.data.labels.dataset import LabeledCrystals, LabeledSplits
from mat2spec.errors import CheckpointError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import TrainingStructures
from mat2spec.predict.predictor import Predictor
from mat2spec.train.result import CHECKPOINT, evaluate_on_test, mlflow_run_id


def write_ensemble(
    output: Path,
    name: str,
    members: Sequence[Checkpoint],
    splits: LabeledSplits,
    started_from: Checkpoint | None = None,
) -> dict[str, Any]:
    """Write an ensemble: calibrate member disagreement against validation errors, then evaluate on the test rows.

    Expected error = offset + slope · disagreement, both non-negative, fitted by least squares.

    Args:
        output: Directory of the run.
        name: Name of the checkpoint.
        members: Trainings of one network.
        splits: Training, validation and test rows.
        started_from: Ensemble that was fine-tuned to these members; it is a parent too.

    Returns:
        The result of `evaluate_on_test`, and under "spread" how well expected errors match true ones on the test rows:
        rank correlation, and the shares of materials whose error is at most the expected one and at most twice that.
    """
    first = members[0].card
    model = EnsembleConfig(architecture="ensemble", members=len(members), member=first.config.model)
    config = _config_of_whole(first.config, model)
    weights = _ensemble_weights(members)
    seen = _seen_by(members)
    record = _record_with_parents(output, first.training, members, started_from)

    def write(calibration: Tensor, record: TrainingRecord) -> Checkpoint:
        write_checkpoint(output / CHECKPOINT, name, config, weights | {"calibration": calibration}, record, *seen)
        return Checkpoint.load(output / CHECKPOINT)

    uncalibrated = write(torch.tensor([0.0, 1.0]), record)
    calibration = calibrate(*expected_and_true_errors(uncalibrated, splits.valid))
    scores = evaluate(uncalibrated, splits.valid, torch.device("cpu"), held_out=False).scores()
    # the precision of no hits is not a number, and a card has none
    valid = {metric: value for metric, value in scores.items() if np.isfinite(value)}
    checkpoint = write(torch.tensor(calibration), record.model_copy(update={"validation": valid}))
    return evaluate_on_test(checkpoint, splits, output) | {
        "spread": spread_scores(*expected_and_true_errors(checkpoint, splits.test))
    }


def calibrate(estimates: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Offset and slope, not negative, of the least squares of true errors = offset + slope · estimate."""
    (offset, slope), _ = nnls(np.stack([np.ones_like(estimates), estimates], axis=1), errors)
    return float(offset), float(slope)


def spread_scores(expected: np.ndarray, errors: np.ndarray) -> dict[str, float]:
    """How well expected errors match true ones: rank correlation, and the share that is within them and twice them."""
    return {
        "rank_correlation": _rank_correlation(expected, errors),
        "within_expected": float((errors <= expected).mean()),
        "within_twice_expected": float((errors <= 2 * expected).mean()),
        "mean_expected": float(expected.mean()),
        "mean_error": float(errors.mean()),
    }


def _rank_correlation(expected: np.ndarray, errors: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where all expected errors are the same, which tell no material from another."""
    if np.ptp(expected) == 0 or np.ptp(errors) == 0:
        return 0.0
    from scipy.stats import spearmanr  # a second, in every training worker

    return float(spearmanr(expected, errors).statistic)


def _ensemble_weights(members: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """Weights of all members, and the normalization that they share."""
    states = [member.network.state_dict() for member in members]
    weights = {f"members.{i}.{key}": value for i, state in enumerate(states) for key, value in state.items()}
    return weights | _normalization(states[0])


def _normalization(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network's scale, which the whole that it becomes part of has too."""
    return {key: value for key, value in state.items() if key.startswith("normalization.")}


def expected_and_true_errors(checkpoint: Checkpoint, crystals: LabeledCrystals) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute errors of predicted spectra, expected and true [states per unit of the grid and atom]."""
    prediction = Predictor(checkpoint, torch.device("cpu")).predict_graphs(crystals.graphs)
    assert prediction.spread is not None
    true = checkpoint.grid.to_states(crystals.spectra.numpy())
    return prediction.spread, np.abs(prediction.spectra - true).mean(axis=1)


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
    record = _record_with_parents(output, shape.card.training, list(parts.values()))
    write_checkpoint(output / CHECKPOINT, name, config, weights, record, *_seen_by([shape, scale]))
    return evaluate_on_test(Checkpoint.load(output / CHECKPOINT), splits, output)


def _seen_by(parts: Sequence[Checkpoint]) -> tuple[list[str], TrainingStructures]:
    """Names and structures that any of several checkpoints was trained or selected on."""
    ids = frozenset.union(*(part.training_ids for part in parts))
    return sorted(ids), TrainingStructures.union([part.training_structures for part in parts])


def _record_with_parents(
    output: Path, record: TrainingRecord, parents: Sequence[Checkpoint], started_from: Checkpoint | None = None
) -> TrainingRecord:
    """Training record of a checkpoint made of others: their total time, and their fingerprints."""
    origin = [started_from] if started_from else []
    return record.model_copy(
        update={
            "seconds": round(sum(parent.card.training.seconds for parent in parents), 1),
            "mlflow_run_id": mlflow_run_id(output),
            "parents": {parent.card.name: parent.fingerprint for parent in [*origin, *parents]},
        }
    )


def write_gapped(
    output: Path,
    name: str,
    spectrum: Checkpoint,
    gap: Checkpoint,
    splits: LabeledSplits,
    started_from: Checkpoint | None = None,
) -> dict[str, Any]:
    """Write a checkpoint of spectra and band gaps (`model.gapped.Gapped`) and evaluate it on the test rows.

    Args:
        output: Directory of the run.
        name: Name of the checkpoint.
        spectrum: Training of a network of spectra, or an ensemble of them.
        gap: Training of a band-gap network.
        splits: Training, validation and test rows.
        started_from: Gapped checkpoint that was fine-tuned to these two; it is a parent too.

    Returns:
        The result of `evaluate_on_test`.

    Raises:
        CheckpointError: If one of them cannot play its role, or they differ in grid or graphs.
    """
    _check_role(gap, "gap", "a gapped network", ("gap", "vector-gap"))
    theirs = spectrum.card.config
    predicts_gaps = isinstance(theirs.model, AnyGapConfig | CombinedConfig | GappedConfig)
    if predicts_gaps or theirs.normalization not in ("none", "standard"):
        raise CheckpointError(
            f"{spectrum.card.name}: cannot be the spectrum of a gapped network, which needs a network of spectra, "
            "normalization none or standard"
        )
    _check_same_input(spectrum, gap)
    config = _config_of_whole(
        theirs, GappedConfig(architecture="gapped", spectrum=theirs.model, gap=gap.card.config.model)
    )
    states = {"spectrum": spectrum.network.state_dict(), "gap": gap.network.state_dict()}
    weights = {f"{role}.{key}": value for role, state in states.items() for key, value in state.items()}
    weights |= _normalization(states["spectrum"])
    record = _record_with_parents(output, spectrum.card.training, [spectrum, gap], started_from)
    write_checkpoint(output / CHECKPOINT, name, config, weights, record, *_seen_by([spectrum]))
    return evaluate_on_test(Checkpoint.load(output / CHECKPOINT), splits, output)


def _combined_config(shape: Checkpoint, scale: Checkpoint, gap: Checkpoint) -> TrainConfig:
    """Configuration of the combined network: that of the scale, with the models of all three parts."""
    parts = {"shape": shape, "scale": scale, "gap": gap}
    _check_role(shape, "shape", "a combined network", ("mat2spec",), "sum")
    _check_role(scale, "scale", "a combined network", ("mat2spec",), "standard")
    _check_role(gap, "gap", "a combined network", ("gap",))
    for part in (scale, gap):
        _check_same_input(shape, part)
    models = {role: part.card.config.model for role, part in parts.items()}
    return _config_of_whole(scale.card.config, CombinedConfig(architecture="combined", **models))


def _check_role(
    part: Checkpoint, role: str, whole: str, architectures: tuple[str, ...], normalization: str | None = None
) -> None:
    """Check that a checkpoint can play a role in a whole.

    Raises:
        CheckpointError: If its network or its normalization is another than the role needs.
    """
    config = part.card.config
    if config.model.architecture in architectures and normalization in (None, config.normalization):
        return
    needs = f"architecture {' or '.join(architectures)}" + (f", normalization {normalization}" if normalization else "")
    raise CheckpointError(f"{part.card.name}: cannot be the {role} of {whole}, which needs {needs}")


def _check_same_input(first: Checkpoint, other: Checkpoint) -> None:
    """Check that two networks read the same graphs and mean the same grid.

    Raises:
        CheckpointError: If they do not.
    """
    for name in ("grid", "graph"):
        if getattr(other.card.config, name) != getattr(first.card.config, name):
            raise CheckpointError(
                f"{other.card.name}: its {name} differs from that of {first.card.name}; "
                f"combine networks with the same {name}"
            )


def _config_of_whole(config: TrainConfig, model: CombinedConfig | EnsembleConfig | GappedConfig) -> TrainConfig:
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
