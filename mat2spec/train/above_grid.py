"""Heads for the modes above the phonon grid, fitted to whole spectra on the features of a finished network.

The network stays as it is, and so do the shapes that it predicts.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import nnls
from torch import Tensor

from mat2spec.config import AboveGridConfig, AdditiveConfig
from mat2spec.data.labels.above_grid import AboveGridLabels, read_above_grid_labels
from mat2spec.dos.above_grid import SHARE_OF_TAIL, ModesAboveGrid
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import CheckpointError
from mat2spec.model.above_grid import (
    OUTPUTS,
    AboveGridHead,
    AboveGridRecord,
    disagreement_of_shares,
    modes_above_grid,
    with_heads,
    without_heads,
)
from mat2spec.model.additive import Additive
from mat2spec.model.base import Network
from mat2spec.model.checkpoint import Checkpoint, write_checkpoint
from mat2spec.model.ensemble import Ensemble
from mat2spec.model.registry import build_network
from mat2spec.model.scatter import group_mean
from mat2spec.predict.forward import predict_outputs
from mat2spec.provenance import environment
from mat2spec.train.heads import atom_features, fit_head
from mat2spec.train.result import CHECKPOINT

EXCEEDS = 1010.0
"""[cm⁻¹] A crystal with a higher frequency exceeds the grid: the grid's end, and the Gaussian of 10 cm⁻¹ of labels."""

LABEL_ERROR = 0.03
"""Error of a labeled share at which a crystal counts half in the fit; 0.01 is the median where there are any modes."""

_NOT_ZERO = 1e-6
"""Least share whose logarithm is taken."""


def add_above_grid(
    checkpoint: Checkpoint, directory: Path, table: Path, name: str, config: AboveGridConfig
) -> AboveGridRecord:
    """Write a copy of a checkpoint with heads for the modes above the grid; heads that it has are replaced.

    Args:
        checkpoint: An additive network, or an ensemble of them.
        directory: Of the run; the checkpoint is written into its folder `checkpoint`.
        table: Labels, as `AboveGridLabels` describes them.
        name: Name of the new checkpoint.
        config: The settings.

    Returns:
        What is known of the heads: threshold, expected errors, and scores on validation and test rows.

    Raises:
        CheckpointError: If it is of another kind.
        TableError: If the labels cannot be used.
    """
    start = time.perf_counter()
    model = with_heads(checkpoint.card.config.model, config.hidden)
    if not isinstance(model, AdditiveConfig) and not isinstance(getattr(model, "member", None), AdditiveConfig):
        raise CheckpointError(
            f"{checkpoint.card.name}: heads for the modes above the grid need the features of an additive network, or "
            f"of an ensemble of them; it is {model.architecture}"
        )
    labels = read_above_grid_labels(table, checkpoint.card.config.graph)
    train_config = checkpoint.card.config.model_copy(update={"model": model})
    network = build_network(train_config)
    network.load_state_dict(without_heads(checkpoint.network.state_dict()), strict=False)
    members = cast(list[Additive], list(network.members) if isinstance(network, Ensemble) else [network])
    for number, member in enumerate(members):
        _fit(member.eval(), labels["train"], config, config.seed + number)

    record = AboveGridRecord(
        network=checkpoint.fingerprint,
        labels=config.table,
        labels_fingerprint=labels["train"].fingerprint,
        rows={part: len(rows) for part, rows in labels.items()},
        settings=config.model_dump(mode="json"),
        threshold=0.5,
        error_per_disagreement=0.0,
        error_per_share=0.0,
        validation={},
        test={},
        seconds=0.0,
        environment=environment(),
    )

    def write(**changes: Any) -> Checkpoint:
        nonlocal record
        record = record.model_copy(update=changes)
        ids, structures = sorted(checkpoint.training_ids), checkpoint.training_structures
        weights = network.state_dict()
        training = checkpoint.card.training
        write_checkpoint(directory / CHECKPOINT, name, train_config, weights, training, ids, structures, record)
        return Checkpoint.load(directory / CHECKPOINT)

    written = write().network  # with weights rounded as they are stored
    valid, test = labels["valid"], labels["test"]
    above, disagreement = _predict(written, valid)
    threshold = best_threshold(above.shares, valid.highest > EXCEEDS)
    terms, _ = nnls(np.stack([disagreement, above.shares], axis=1), np.abs(above.shares - valid.shares))
    write(
        threshold=threshold,
        error_per_disagreement=float(terms[0]),
        error_per_share=float(terms[1]),
        validation=above_grid_scores(replace(above, threshold=threshold), valid),
        test=above_grid_scores(replace(_predict(written, test)[0], threshold=threshold), test),
        seconds=round(time.perf_counter() - start, 1),
    )
    return record


def best_threshold(shares: Float[np.ndarray, " crystals"], exceed: Bool[np.ndarray, " crystals"]) -> float:
    """Return the share above which flags have the highest F1: halfway, in the logarithm, between two crystals.

    Args:
        shares: Predicted shares.
        exceed: Which crystals have modes above the grid.
    """
    order = np.argsort(-shares, kind="stable")
    ordered = np.append(shares[order].astype(np.float64), 0.0).clip(_NOT_ZERO)
    f1 = 2 * np.cumsum(exceed[order]) / (np.arange(1, len(order) + 1) + exceed.sum())
    best = int(np.where(ordered[:-1] > ordered[1:], f1, -1).argmax())  # no threshold separates equal shares
    return float(np.sqrt(ordered[best] * ordered[best + 1]))


def above_grid_scores(above: ModesAboveGrid, labels: AboveGridLabels) -> dict[str, float]:
    """Recall and precision of exceeds_grid, of all crystals and of those with hydrogen, and errors of the shares.

    Errors are of the crystals that exceed the grid; the labels themselves have `label_error` in the median.

    Args:
        above: Predictions.
        labels: Of the same crystals.
    """
    flagged, exceed = above.exceed, labels.highest > EXCEEDS
    hydrogen = np.array([1 in crystal.atomic_numbers for crystal in labels.crystals])
    error = np.abs(above.shares - labels.shares)
    off = np.abs(above.frequencies / labels.frequencies - 1)
    return {
        "crystals": float(len(labels)),
        "exceed": float(exceed.sum()),
        "recall": float(flagged[exceed].mean()),
        "precision": float(exceed[flagged].mean()),
        "exceed_with_hydrogen": float((exceed & hydrogen).sum()),
        "recall_with_hydrogen": float(flagged[exceed & hydrogen].mean()),
        "share_mae": float(error[exceed].mean()),
        "share_median_error": float(np.median(error[exceed])),
        "label_error": float(np.median(labels.errors[exceed])),
        "share_mae_of_others": float(error[~exceed].mean()),
        "frequency_median_error": float(np.median(off[exceed & flagged])),
    }


def _predict(network: Network, labels: AboveGridLabels) -> tuple[ModesAboveGrid, Float[np.ndarray, " crystals"]]:
    """Modes above the grid, and the mean absolute deviation of the members' shares."""
    members = network.members if isinstance(network, Ensemble) else [network]
    outputs = [predict_outputs(member, labels.graphs, torch.device("cpu")) for member in members]
    start = len(PHDOS_GRID)
    each = np.stack([one[:, start : start + OUTPUTS] for one in outputs])
    return modes_above_grid(each, PHDOS_GRID.centers[-1], SHARE_OF_TAIL), disagreement_of_shares(each)


def _fit(network: Additive, labels: AboveGridLabels, config: AboveGridConfig, seed: int) -> None:
    """Fit the head of a network to labels, on the features of its atoms, which are computed once."""
    features = atom_features(network, labels.graphs)
    shares, frequencies, weights = _targets(labels)

    def make() -> AboveGridHead:
        return AboveGridHead(features[0].shape[1], config.hidden, network.above_grid.end)

    def loss(head: AboveGridHead, atoms: Tensor, crystal: Tensor, rows: np.ndarray) -> Tensor:
        predicted = group_mean(head(atoms), crystal, len(rows))
        return _loss(predicted, shares[rows], frequencies[rows], weights[rows])

    network.above_grid = fit_head(make, loss, features, config, seed)


def _loss(
    predicted: Float[Tensor, "crystals 2"],
    shares: Float[Tensor, " crystals"],
    frequencies: Float[Tensor, " crystals"],
    weights: Float[Tensor, " crystals"],
) -> Tensor:
    """Cross-entropy between modes above and on the grid, and relative error of the mean frequency, for each mode."""
    share = predicted[:, 0].clamp(_NOT_ZERO, 1 - _NOT_ZERO)
    entropy = -shares * share.log() - (1 - shares) * (1 - share).log()
    off = (predicted[:, 1] / share).log() - frequencies.log()
    return (weights * (entropy + shares * off.abs())).mean()


def _targets(labels: AboveGridLabels) -> tuple[Tensor, Tensor, Tensor]:
    """Shares, mean frequencies and weights of the crystals."""
    certainty = 1 / (1 + (labels.errors / LABEL_ERROR) ** 2)
    shares, frequencies, weights = (
        torch.from_numpy(values).float() for values in (labels.shares, labels.frequencies, certainty)
    )
    return shares, frequencies, weights
