"""Heads for the modes above the grid: fitted to a finished network, which stays as it is."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mat2spec.config import AboveGridConfig, TrainConfig
from mat2spec.errors import CheckpointError, ConfigError, TableError
from mat2spec.model.checkpoint import CARD, Checkpoint
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.train.above_grid import add_above_grid, best_threshold
from mat2spec.train.loop import check_trainable

CPU = torch.device("cpu")

QUICK = AboveGridConfig(table="labels.parquet", hidden=8, epochs=30, batch_size=8)


@pytest.fixture(scope="module")
def table(bundled: Path) -> pa.Table:
    """Small crystals of each part: at most 20 with modes above the grid, and 20 without."""
    whole = pq.read_table(bundled.with_name(Path(AboveGridConfig().table).name))
    small = whole.filter(pc.less(whole["nsites"], 9))
    parts = []
    for part in ("train", "valid", "test"):
        of_part = small.filter(pc.equal(small["split"], part))
        above = pc.greater(of_part["max_frequency"], 1010)
        parts += [of_part.filter(above).slice(0, 20), of_part.filter(pc.invert(above)).slice(0, 20)]
    return pa.concat_tables(parts)


@pytest.fixture(scope="module")
def labels(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def with_heads(additive, labels, tmp_path_factory) -> Checkpoint:
    directory = tmp_path_factory.mktemp("heads")
    add_above_grid(additive, directory, labels, "with heads", QUICK)
    return Checkpoint.load(directory / "checkpoint")


def test_heads_learn_and_leave_the_shapes_as_they_are(additive, with_heads, table, real_graphs):
    record = with_heads.card.above_grid
    assert record.validation["recall"] > 0.5
    assert record.validation["precision"] > 0.6
    assert record.rows == {part: table["split"].to_pylist().count(part) for part in ("train", "valid", "test")}
    assert record.network == additive.fingerprint
    assert record.settings["hidden"] == 8
    assert with_heads.fingerprint != additive.fingerprint
    assert with_heads.training_ids == additive.training_ids
    before = predict_outputs(additive.network, real_graphs, CPU)
    after = predict_outputs(with_heads.network, real_graphs, CPU)
    np.testing.assert_array_equal(after[:, :51], before)
    prediction = Predictor(with_heads, CPU).predict_graphs(real_graphs)
    modes = with_heads.grid.integrate(prediction.spectra)
    np.testing.assert_allclose(modes, 3 * (1 - prediction.above.shares), rtol=1e-5)
    assert prediction.spread is None


def test_the_same_fit_gives_the_same_weights_also_to_a_network_that_has_heads(with_heads, labels, tmp_path):
    again = add_above_grid(with_heads, tmp_path, labels, "again", QUICK)
    assert again.threshold == with_heads.card.above_grid.threshold
    weights = Checkpoint.load(tmp_path / "checkpoint").network.state_dict()
    for key, value in with_heads.network.state_dict().items():
        assert weights[key].equal(value), key


def test_share_does_not_depend_on_the_cell(with_heads, real_crystals):
    predictor = Predictor(with_heads, CPU)
    doubled = real_crystals[0].to_structure().make_supercell([2, 1, 1])
    one, two = predictor.predict([real_crystals[0], doubled])
    assert two.row["share_above_grid"] == pytest.approx(one.row["share_above_grid"], rel=1e-4)


def test_network_without_features_of_atoms_is_refused(checkpoint, labels, tmp_path):
    with pytest.raises(CheckpointError, match=r"need the features of an additive network, .* it is mat2spec") as caught:
        add_above_grid(checkpoint, tmp_path, labels, "x", QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop_columns(["share_error"]), "missing column share_error; it has material_id"),
        (lambda table: table.filter(pc.not_equal(table["split"], "valid")), "no row with split 'valid'"),
        (
            lambda table: table.set_column(
                table.column_names.index("share_above_grid"),
                "share_above_grid",
                pa.array([1.5] + [0.0] * (len(table) - 1)),
            ),
            r"share_above_grid is 1\.5, must be 0 … 1; remove the row",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_refused(additive, table, tmp_path, change, reason):
    pq.write_table(change(table), tmp_path / "bad.parquet")
    with pytest.raises(TableError, match=reason) as caught:
        add_above_grid(additive, tmp_path / "run", tmp_path / "bad.parquet", "x", QUICK)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_heads_without_their_record_are_refused(with_heads, additive, labels, tmp_path):
    add_above_grid(additive, tmp_path, labels, "x", QUICK.model_copy(update={"epochs": 1}))
    card = tmp_path / "checkpoint" / CARD
    card.write_text(json.dumps(json.loads(card.read_text()) | {"above_grid": None}))
    with pytest.raises(CheckpointError, match=r"model\.above_grid and the record above_grid do not agree; copy"):
        Checkpoint.load(tmp_path / "checkpoint")


def test_training_does_not_train_heads_and_says_what_does(small_configs):
    config: TrainConfig = small_configs["additive"]
    with_head = config.model_copy(update={"model": config.model.model_copy(update={"above_grid": 8})})
    with pytest.raises(ConfigError, match=r"train with 0, then run python benchmarks/above_grid\.py fit"):
        check_trainable(with_head)
    check_trainable(config)


def test_network_without_its_heads_is_the_one_that_got_them(additive, with_heads, real_graphs):
    """A training starts from it: heads were fitted to features that the training changes."""
    without = with_heads.without_heads()
    assert without.card.config == additive.card.config
    assert without.card.above_grid is None
    before, after = (Predictor(one, CPU).predict_graphs(real_graphs) for one in (additive, without))
    np.testing.assert_array_equal(after.spectra, before.spectra)
    assert after.above is None
    assert additive.without_heads() is additive


@given(st.lists(st.tuples(st.sampled_from([0.001, 0.01, 0.02, 0.1, 0.5, 0.9]), st.booleans()), min_size=1))
def test_no_other_threshold_finds_more(pairs):
    shares, exceed = (np.array(values) for values in zip(*pairs, strict=True))

    def f1(threshold: float) -> float:
        flagged = shares > threshold
        return 2 * (flagged & exceed).sum() / max(flagged.sum() + exceed.sum(), 1)

    assert f1(best_threshold(shares, exceed)) == pytest.approx(
        max(f1(other) for other in [0.0, *shares[shares < shares.max()]])
    )
