"""One network in place of an ensemble: it learns the ensemble's expected errors, and its spectra stay as they are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mat2spec.config import ExpectedErrorConfig
from mat2spec.errors import CheckpointError, ConfigError, TableError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import GraphBatch, build_graph
from mat2spec.train.distillation import write_distilled, write_member
from mat2spec.train.loop import check_trainable

CPU = torch.device("cpu")

QUICK = ExpectedErrorConfig(hidden=16, epochs=600, batch_size=32, learning_rate=0.02)

WITH_OXYGEN, WITHOUT = 8e-4, 2e-4
"""[states per cm⁻¹ and atom] What the teacher of these tests expects."""


@pytest.fixture(scope="module")
def teacher(small_ensemble) -> Checkpoint:
    return Checkpoint.load(small_ensemble)


@pytest.fixture(scope="module")
def table(small_table, tmp_path_factory) -> pa.Table:
    spread = [WITH_OXYGEN if 8 in numbers else WITHOUT for numbers in small_table["atomic_numbers"].to_pylist()]
    return small_table.append_column("spread", pa.array(spread, pa.float32()))


@pytest.fixture(scope="module")
def path(table, tmp_path_factory):
    made = tmp_path_factory.mktemp("teacher") / "teacher.parquet"
    pq.write_table(table, made)
    return made


@pytest.fixture(scope="module")
def distilled(additive, teacher, path, splits, tmp_path_factory) -> tuple[Checkpoint, dict]:
    output = tmp_path_factory.mktemp("distilled")
    result = write_distilled(output, "distilled", additive, teacher, path, splits, QUICK)
    return Checkpoint.load(output / "checkpoint"), result


def estimates_of(checkpoint: Checkpoint, crystals) -> torch.Tensor:
    """What the head says of crystals before its calibration."""
    network, graphs = checkpoint.network, GraphBatch.from_graphs(crystals)
    with torch.no_grad():
        return network.expected_error.estimates(network.encoder(graphs), graphs.batch, graphs.num_graphs)[:, 0]


def test_spectra_stay_and_what_the_teacher_was_trained_on_counts_as_seen(
    additive, teacher, distilled, splits, real_graphs
):
    checkpoint, _ = distilled
    before, after = (predict_outputs(one.network, real_graphs, CPU) for one in (additive, checkpoint))
    np.testing.assert_array_equal(after[:, : before.shape[1]], before)
    assert after.shape[1] == before.shape[1] + 1
    assert checkpoint.training_ids == {*teacher.training_ids, *splits.train.material_ids, *splits.valid.material_ids}
    assert all(checkpoint.has_seen(crystal) for crystal in splits.valid.crystals)
    assert checkpoint.card.training.parents == {parent.card.name: parent.fingerprint for parent in (additive, teacher)}


def test_estimates_are_those_of_the_teacher(distilled, splits):
    """Before the calibration, in units of their mean, and on rows that the head was fitted to."""
    estimates = estimates_of(distilled[0], splits.train.graphs)
    has_oxygen = torch.tensor([8 in crystal.atomic_numbers for crystal in splits.train.crystals])
    assert 0 < has_oxygen.sum() < len(has_oxygen)
    ratio = estimates[has_oxygen].mean() / estimates[~has_oxygen].mean()
    assert ratio.item() == pytest.approx(WITH_OXYGEN / WITHOUT, rel=0.3)
    assert estimates.mean().item() == pytest.approx(1, abs=0.2)


def test_expected_errors_are_calibrated_on_the_validation_rows(distilled, splits):
    """A line by least squares leaves no mean error, unless its offset or slope would be negative."""
    checkpoint, result = distilled
    prediction = Predictor(checkpoint, CPU).predict_graphs(splits.valid.graphs)
    errors = np.abs(prediction.spectra - checkpoint.grid.to_states(splits.valid.spectra.numpy())).mean(axis=1)
    assert (prediction.spread > 0).all()
    assert np.square(errors - prediction.spread).mean() <= np.square(errors - errors.mean()).mean() * (1 + 1e-6)
    assert result["spread"].keys() >= {"rank_correlation", "within_expected", "within_twice_expected"}


def test_expected_error_does_not_depend_on_the_cell(distilled, real_crystals):
    checkpoint, _ = distilled
    crystal = real_crystals[0]
    doubled = Crystal(
        crystal.material_id,
        np.concatenate([crystal.atomic_numbers] * 2),
        crystal.lattice * [[2], [1], [1]],
        np.concatenate([(crystal.frac_coords + np.array([shift, 0, 0])) / [2, 1, 1] for shift in (0, 1)]),
    )
    config = checkpoint.card.config.graph
    graphs = [build_graph(one, config) for one in (crystal, doubled, *real_crystals[1:])]
    once, twice, *others = estimates_of(checkpoint, graphs).tolist()
    assert once == pytest.approx(twice, rel=1e-4)
    assert max(others) > 1.5 * min(others), "before the calibration, which may make all of them equal"


def test_training_starts_without_the_head_and_does_not_train_it(distilled, additive):
    checkpoint, _ = distilled
    assert checkpoint.without_heads().card.config == additive.card.config
    with pytest.raises(ConfigError, match=r"model\.expected_error: 16 asks for a head .*distillation\.py finish"):
        check_trainable(checkpoint.card.config)


def test_what_cannot_be_used_is_one_line(additive, teacher, checkpoint, path, table, splits, tmp_path):
    with pytest.raises(CheckpointError, match="only an additive network has such a head; it is mat2spec"):
        write_distilled(tmp_path, "x", checkpoint, teacher, path, splits, QUICK)
    pq.write_table(table.drop_columns("spread"), tmp_path / "without.parquet")
    with pytest.raises(TableError, match=r"without\.parquet: missing column spread; make the table with"):
        write_distilled(tmp_path, "x", additive, teacher, tmp_path / "without.parquet", splits, QUICK)


def test_member_predicts_what_it_does_in_its_ensemble_and_has_seen_as_much(teacher, real_graphs, tmp_path):
    member = write_member(tmp_path, teacher)
    expected = predict_outputs(teacher.network.members[0], real_graphs, CPU)
    np.testing.assert_array_equal(predict_outputs(member.network, real_graphs, CPU), expected)
    assert member.training_ids == teacher.training_ids
    assert member.card.training.parents == {teacher.card.name: teacher.fingerprint}


def test_one_network_has_no_members(additive, tmp_path):
    with pytest.raises(CheckpointError, match=r"^additive: is not an ensemble, but one network \(additive\)$"):
        write_member(tmp_path, additive)
