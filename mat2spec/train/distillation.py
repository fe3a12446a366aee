"""One network in place of an ensemble: it was trained on the ensemble's spectra, and gets its expected errors.

Distillation as in Hinton, Vinyals, Dean (arXiv:1503.02531).
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from mat2spec.config import AdditiveConfig, EnsembleConfig, ExpectedErrorConfig
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.errors import CheckpointError, TableError
from mat2spec.model.additive import Additive
from mat2spec.model.checkpoint import Checkpoint, write_checkpoint
from mat2spec.model.ensemble import Ensemble
from mat2spec.model.expected_error import ExpectedErrorHead, with_expected_error
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import TrainingStructures
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.train.ensembling import calibrate, expected_and_true_errors, spread_scores
from mat2spec.train.heads import atom_features, fit_head
from mat2spec.train.result import CHECKPOINT, evaluate_on_test, mlflow_run_id

_SMALLEST = 1e-3
"""Smallest estimate whose logarithm is taken, in units of the mean."""


def write_member(output: Path, ensemble: Checkpoint) -> Checkpoint:
    """Write the first network of an ensemble as a checkpoint of its own, without heads, for a training to start from.

    Args:
        output: Directory of the run; the checkpoint is written into its folder `checkpoint`.
        ensemble: It.

    Raises:
        CheckpointError: If it is no ensemble.
    """
    whole = ensemble.without_heads()
    network, model = whole.network, whole.card.config.model
    if not isinstance(network, Ensemble) or not isinstance(model, EnsembleConfig):
        raise CheckpointError(f"{ensemble.card.name}: is not an ensemble, but one network ({model.architecture})")
    config = whole.card.config.model_copy(update={"model": model.member})
    record = whole.card.training.model_copy(update={"parents": {ensemble.card.name: ensemble.fingerprint}})
    seen = sorted(whole.training_ids), whole.training_structures
    weights = network.members[0].state_dict()
    write_checkpoint(output / CHECKPOINT, f"{ensemble.card.name}-member", config, weights, record, *seen)
    return Checkpoint.load(output / CHECKPOINT)


def write_distilled(
    output: Path,
    name: str,
    student: Checkpoint,
    teacher: Checkpoint,
    table: Path,
    splits: LabeledSplits,
    config: ExpectedErrorConfig,
) -> dict[str, Any]:
    """Write a network with a head for the error to be expected, fitted to the `spread` of the ensemble that it learnt.

    As that of the ensemble, the head is calibrated against the errors on validation rows. What the teacher was trained
    on counts as seen, as do the training and validation rows with labels by DFT, and not what it only made labels for.

    Args:
        output: Directory of the run; the checkpoint is written into its folder `checkpoint`.
        name: Name of the checkpoint.
        student: Training of an additive network on spectra of the teacher.
        teacher: The ensemble.
        table: Materials table with the teacher's `spread`; compositions of validation and test rows are left out.
        splits: Training, validation and test rows with labels by DFT.
        config: The fit.

    Returns:
        The result of `evaluate_on_test`, and under "spread" how well expected errors match true ones on the test rows.

    Raises:
        CheckpointError: If the student is no additive network.
        TableError: If the table has no `spread`.
    """
    student = student.without_heads()
    model = with_expected_error(student.card.config.model, config.hidden)
    if not isinstance(model, AdditiveConfig):
        raise CheckpointError(
            f"{student.card.name}: only an additive network has such a head; it is {model.architecture}"
        )
    graphs, spread = _labels(table, student, splits, config)
    train_config = student.card.config.model_copy(update={"model": model})
    network = cast(Additive, build_network(train_config))
    network.load_state_dict(student.network.state_dict(), strict=False)
    unit = float(spread.mean())
    network.expected_error = _fit(network.eval(), graphs, spread / unit, config)
    parents = {parent.card.name: parent.fingerprint for parent in (teacher, student)}
    record = student.card.training.model_copy(update={"mlflow_run_id": mlflow_run_id(output), "parents": parents})
    labeled = splits.train + splits.valid
    structures = TrainingStructures.from_crystals(labeled.crystals)
    seen = (
        sorted(teacher.training_ids.union(labeled.material_ids)),
        TrainingStructures.union([teacher.training_structures, structures]),
    )

    def write(calibration: Tensor) -> Checkpoint:
        weights = network.state_dict() | {"expected_error.calibration": calibration}
        write_checkpoint(output / CHECKPOINT, name, train_config, weights, record, *seen)
        return Checkpoint.load(output / CHECKPOINT)

    uncalibrated = write(torch.tensor([0.0, unit]))
    offset, slope = calibrate(*expected_and_true_errors(uncalibrated, splits.valid))
    checkpoint = write(torch.tensor([offset, slope * unit]))
    return evaluate_on_test(checkpoint, splits, output) | {
        "spread": spread_scores(*expected_and_true_errors(checkpoint, splits.test))
    }


def _labels(
    table: Path, student: Checkpoint, splits: LabeledSplits, config: ExpectedErrorConfig
) -> tuple[list[CrystalGraph], Float[np.ndarray, " crystals"]]:
    """Graphs and the teacher's expected errors, of crystals whose composition no validation or test row has."""
    rows = read_whole_table(table, "table of the teacher's predictions")
    if "spread" not in rows.column_names:
        raise TableError(
            f"{table}: missing column spread; make the table with python benchmarks/distillation.py teacher"
        )
    held_out = {crystal.composition for part in (splits.valid, splits.test) for crystal in part.crystals}
    order = np.random.default_rng(config.seed).permutation(len(rows))
    graphs: list[CrystalGraph] = []
    chosen: list[int] = []
    for start in range(0, len(order), 1000):
        if len(chosen) == config.rows:
            break
        some = order[start : start + 1000]
        for row, crystal in zip(some, read_crystals(rows.take(pa.array(some))), strict=True):
            if isinstance(crystal, Crystal) and crystal.composition not in held_out and len(chosen) < config.rows:
                graphs.append(build_graph(crystal, student.card.config.graph))
                chosen.append(int(row))
    return graphs, rows["spread"].to_numpy()[chosen].astype(np.float64)


def _fit(
    network: Additive, graphs: list[CrystalGraph], labels: Float[np.ndarray, " crystals"], config: ExpectedErrorConfig
) -> ExpectedErrorHead:
    """Fit the head to expected errors in units of their mean: mean absolute difference of their logarithms."""
    features = atom_features(network, graphs)
    targets = torch.from_numpy(labels).float().clamp(min=_SMALLEST).log()

    def make() -> ExpectedErrorHead:
        return ExpectedErrorHead(features[0].shape[1], config.hidden)

    def loss(head: ExpectedErrorHead, atoms: Tensor, crystal: Tensor, rows: np.ndarray) -> Tensor:
        estimates = head.estimates(atoms, crystal, len(rows))[:, 0]
        return (estimates.clamp(min=_SMALLEST).log() - targets[rows]).abs().mean()

    return fit_head(make, loss, features, config, config.seed)
