"""An encoder that learns another model's features of atoms, and the networks that start from it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mat2spec.config import TrainConfig, validate
from mat2spec.elements import feature_table
from mat2spec.errors import CheckpointError, ConfigError, TableError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.model.checkpoint import Checkpoint, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import GraphBatch, build_graph
from mat2spec.train.inputs import TrainingInputs, initial_weights
from mat2spec.train.loop import Training
from mat2spec.train.result import CHECKPOINT, write_result

CPU = torch.device("cpu")
SIZES = {"layers": 1, "width": 32}


def config_of(table: Path, **settings) -> TrainConfig:
    record = {
        "data": {"table": str(table), "label": "teacher"},
        "model": {"architecture": "features", "features": 3, **SIZES},
        "training": {"epochs": 40, "batch_size": 8, "learning_rate": 0.01},
    }
    return validate(TrainConfig, record | settings, "test")


def features_of(crystal: Crystal) -> np.ndarray:
    """A teacher of three properties of elements for each atom; one is far from zero, one negative."""
    return feature_table()[crystal.atomic_numbers][:, :3] * [1, 10, -1] + [0, 100, 0]


@pytest.fixture(scope="module")
def table(small_table: pa.Table, splits, tmp_path_factory) -> Path:
    """The small table with a teacher's features as labels."""
    crystals = {c.material_id: c for part in (splits.train, splits.valid, splits.test) for c in part.crystals}
    rows = [features_of(crystals[name]).ravel() for name in small_table["material_id"].to_pylist()]
    path = tmp_path_factory.mktemp("teacher") / "labels.parquet"
    pq.write_table(small_table.append_column("teacher", pa.array(rows, pa.list_(pa.float64()))), path)
    return path


@pytest.fixture(scope="module")
def training(table: Path) -> Training:
    config = config_of(table)
    training = Training(config, TrainingInputs.from_config(config).splits(config), CPU)
    while training.next_epoch < config.training.epochs:
        training.run_epoch()
    return training


@pytest.fixture(scope="module")
def checkpoint(training: Training, tmp_path_factory) -> Checkpoint:
    output = tmp_path_factory.mktemp("run")
    environment = {"commit": "none", "hardware": "none", "packages": "none"}
    write_result(output, "student", training.config, training.state_dict(), training.splits, None, environment)
    return Checkpoint.load(output / CHECKPOINT)


def test_student_learns_what_the_teacher_says(training, checkpoint):
    """Properties of elements, in units of their standard deviation; a mean has R² 0 on the rows of training."""
    assert evaluate(checkpoint, training.splits.train, CPU, held_out=False).scores()["r2"] > 0.8
    scores = evaluate(checkpoint, training.splits.test, CPU).scores()
    train = np.concatenate([features_of(crystal) for crystal in training.splits.train.crystals])
    known = np.stack([features_of(crystal).mean(axis=0) for crystal in training.splits.test.crystals])
    predicted = predict_outputs(checkpoint.network, training.splits.test.graphs, CPU)
    expected = np.abs(predicted - (known - train.mean(axis=0)) / train.std(axis=0, ddof=1)).mean()
    assert scores["mae"] == pytest.approx(expected, rel=1e-4)


def test_loss_compares_each_atom_with_its_own_label(training):
    """Labels of crystals of different sizes, in a batch."""
    crystals = sorted(training.splits.train.crystals, key=len)
    rows = [training.splits.train.crystals.index(crystal) for crystal in (crystals[-1], crystals[0], crystals[1])]
    batch = GraphBatch.from_graphs([training.splits.train.graphs[row] for row in rows])
    network = training.network.eval()
    with torch.no_grad():
        predicted = network.head(network.encoder(batch))
        loss = network(batch, training.splits.train.spectra[rows])["features"]
    true = np.concatenate([features_of(training.splits.train.crystals[row]) for row in rows]).astype(np.float32)
    scaled = (true - network.normalization.mean.numpy()) / network.normalization.std.numpy()
    assert loss.item() == pytest.approx(np.abs(predicted.numpy() - scaled).mean(), rel=1e-5)


def test_features_of_a_supercell_are_those_of_the_cell(checkpoint, real_crystals):
    crystal = real_crystals[0]
    doubled = Crystal(
        crystal.material_id,
        np.tile(crystal.atomic_numbers, 2),
        crystal.lattice * [[1], [1], [2]],
        np.concatenate([crystal.frac_coords * [1, 1, 0.5], crystal.frac_coords * [1, 1, 0.5] + [0, 0, 0.5]]),
    )
    graphs = [build_graph(one, checkpoint.card.config.graph) for one in (crystal, doubled)]
    once, twice = predict_outputs(checkpoint.network, graphs, CPU)
    np.testing.assert_allclose(twice, once, atol=1e-5)


def test_network_of_spectra_starts_from_the_encoder(training, checkpoint, splits, tmp_path):
    """Also with test rows whose features it has seen: they are no labels."""
    weights = checkpoint.network.state_dict()
    ids = [*splits.train.material_ids, *splits.test.material_ids]
    write_checkpoint(
        tmp_path / "student", "student", training.config, weights, checkpoint.card.training, ids, NO_STRUCTURES
    )
    config = config_of(
        tmp_path,
        model={"architecture": "projected", **SIZES},
        normalization="none",
        loss="mae",
        start_from=str(tmp_path / "student"),
        start_with="encoder",
    )
    inputs = TrainingInputs.from_config(config)
    weights = initial_weights(config, inputs.initial_checkpoint(config, splits))
    theirs = checkpoint.network.encoder.state_dict()
    ours = Training(config, splits, CPU, weights=weights).network.encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in theirs)


def test_features_are_no_spectra(checkpoint):
    with pytest.raises(CheckpointError, match="predicts features, not spectra"):
        Predictor(checkpoint, CPU)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values[:-1], r"teacher is \d+ values; \d+ atoms need 3 each"),
        (lambda values: None, r"teacher is NULL; \d+ atoms need 3 each"),
        (lambda values: [*values[:-1], float("nan")], "teacher must be finite"),
    ],
)
def test_row_that_cannot_be_a_label_is_named(table, tmp_path, change, reason):
    rows = pq.read_table(table)
    values = rows["teacher"].to_pylist()
    values[4] = change(values[4])
    column = rows.schema.get_field_index("teacher")
    pq.write_table(
        rows.set_column(column, "teacher", pa.array(values, pa.list_(pa.float64()))), tmp_path / "bad.parquet"
    )
    config = config_of(tmp_path / "bad.parquet")
    name = rows["material_id"][4].as_py()
    with pytest.raises(TableError, match=f"{name}: {reason}"):
        TrainingInputs.from_config(config).splits(config)


def test_other_number_of_features_than_the_network_predicts_is_refused(table):
    config = config_of(table, model={"architecture": "features", "features": 5})
    with pytest.raises(TableError, match=r"teacher is \d+ values; \d+ atoms need 5 each"):
        TrainingInputs.from_config(config).splits(config)


def test_features_from_two_tables_are_refused(table):
    data = {"table": str(table), "label": "teacher", "extra_train": str(table)}
    with pytest.raises(ConfigError, match=r"features has labels of atoms, from one table; remove data\.extra_train"):
        config_of(table, data=data)


def test_weights_are_trained_like_any_others(table):
    """Every parameter has a gradient."""
    config = config_of(table)
    splits = TrainingInputs.from_config(config).splits(config)
    network = build_network(config)
    network.fit(splits.train.graphs, splits.train.spectra)
    sum(network(GraphBatch.from_graphs(splits.train.graphs), splits.train.spectra).values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
