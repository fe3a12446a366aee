"""Fine-tuning: never worse on validation rows than before, each member of an ensemble, and the whole made again."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from scipy.optimize import nnls

from mat2spec.config import (
    DataConfig,
    GapConfig,
    GraphConfig,
    ProjectedConfig,
    TrainConfig,
    TrainingConfig,
    load_config,
    validate,
)
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import CheckpointError, ConfigError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.model.checkpoint import SHIPPED, Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.train.ensembling import write_ensemble, write_gapped
from mat2spec.train.fine_tuning import parts_to_train, settings_with_start, write_tuned
from mat2spec.train.inputs import TrainingInputs, initial_weights
from mat2spec.train.loop import Training
from mat2spec.train.result import CHECKPOINT

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"commit": "test"}
TUNING = {"epochs": 3, "batch_size": 12, "learning_rate": 3e-3}
PROJECTED = ProjectedConfig(architecture="projected", layers=1, width=8, gaussians=4, head=8)
GAP = GapConfig(architecture="gap", layers=1, heads=2, width=16, head=16)


def write_start(
    directory: Path, config: TrainConfig, record: TrainingRecord, seed: int, splits: LabeledSplits
) -> Checkpoint:
    """Write a network of random weights, whose scale fits the labels, as a finished training."""
    torch.manual_seed(seed)
    network = build_network(config)
    if config.model != GAP:
        network.fit(splits.train.graphs, splits.train.spectra)
    write_checkpoint(directory, directory.name, config, network.state_dict(), record, ["old"], NO_STRUCTURES)
    return Checkpoint.load(directory)


@pytest.fixture(scope="module")
def ensemble(small_ensemble) -> Checkpoint:
    return Checkpoint.load(small_ensemble)


def tuning_of(start: Checkpoint, training: dict[str, Any] | None = None, **data: Any) -> TrainConfig:
    """A fine-tuning of a checkpoint, with complete settings."""
    settings = {
        "data": {"table": "small.parquet"} | data,
        "training": TUNING | (training or {}),
        "start_from": "start",
        "start_with": "checkpoint",
    }
    return settings_with_start(validate(TrainConfig, settings, "test"), start)


def train_parts(
    config: TrainConfig, start: Checkpoint, rows: Callable[[str], LabeledSplits], *, has_gaps: bool = False
) -> dict[str, dict[str, Any]]:
    """Train each part to its end; return the states by name."""
    states = {}
    for part in parts_to_train(config, initial_weights(config, start), lambda: has_gaps):
        training = Training(part.config, rows(part.name), CPU, weights=part.weights)
        while not training.is_finished:
            training.run_epoch()
        states[part.name] = training.state_dict()
    return states


def mae(checkpoint: Checkpoint, splits: LabeledSplits) -> float:
    return evaluate(checkpoint, splits.valid, CPU, held_out=False).scores()["mae"]


@pytest.fixture(scope="module")
def tuned(ensemble, splits, tmp_path_factory) -> tuple[Checkpoint, dict, dict, Path]:
    config = tuning_of(ensemble)
    states = train_parts(config, ensemble, lambda _: splits)
    output = tmp_path_factory.mktemp("tuned")
    result = write_tuned(output, "tuned", config, states, splits, None, ensemble, ENVIRONMENT)
    return Checkpoint.load(output / CHECKPOINT), states, result, output


def test_each_member_starts_from_its_own_weights_and_ends_with_its_own_best(ensemble, tuned):
    checkpoint, states, _, _ = tuned
    assert list(states) == ["member-1", "member-2"]
    before, after = ensemble.network.state_dict(), checkpoint.network.state_dict()
    for i, state in enumerate(states.values()):
        assert state["best"]["epoch"] >= 0, "random networks become better"
        for name, tensor in state["best"]["weights"].items():
            assert tensor.equal(after[f"members.{i}.{name}"]), name
    assert any(not before[name].equal(after[name]) for name in before if name.startswith("members.0."))


def test_whole_is_an_ensemble_again_that_knows_its_origin(ensemble, tuned, splits):
    checkpoint, _, result, output = tuned
    card = checkpoint.card
    assert card.config.model == ensemble.card.config.model
    members = [Checkpoint.load(output / "members" / name / CHECKPOINT) for name in ("member-1", "member-2")]
    assert card.training.parents == {part.card.name: part.fingerprint for part in (ensemble, *members)}
    assert checkpoint.training_ids == {"old", *splits.train.material_ids, *splits.valid.material_ids}
    assert mae(checkpoint, splits) == pytest.approx(result["valid"]["mae"])
    assert mae(checkpoint, splits) < mae(ensemble, splits)


def test_spread_is_calibrated_on_the_validation_rows_of_the_new_labels(tuned, splits):
    checkpoint, _, _, _ = tuned
    network = checkpoint.network
    shapes = [network.to_densities(predict_outputs(one, splits.valid.graphs, CPU)) for one in network.members]
    states = [checkpoint.grid.to_states(shape) for shape in shapes]
    mean = Predictor(checkpoint, CPU).predict_graphs(splits.valid.graphs).spectra
    disagreement = np.mean([np.abs(state - mean).mean(axis=1) for state in states], axis=0)
    errors = np.abs(mean - checkpoint.grid.to_states(splits.valid.spectra.numpy())).mean(axis=1)
    expected, _ = nnls(np.stack([np.ones_like(disagreement), disagreement], axis=1), errors)
    assert network.calibration.numpy() == pytest.approx(expected, rel=1e-4)


def misleading(splits: LabeledSplits) -> LabeledSplits:
    """Training spectra with their frequencies in reverse: whoever learns them is wrong about the validation rows."""
    return dataclasses.replace(splits, train=dataclasses.replace(splits.train, spectra=splits.train.spectra.flip(1)))


@pytest.mark.parametrize("architecture", ["mat2spec", "additive"])
def test_training_that_only_harms_leaves_the_weights_as_they_were_and_stops(
    architecture, small_configs, splits, training_record, tmp_path
):
    training = TrainingConfig(epochs=15, batch_size=8, learning_rate=5e-3)
    config = small_configs[architecture].model_copy(update={"training": training})
    first = Training(config, splits, CPU)
    while not first.is_finished:
        first.run_epoch()
    weights = first.best["weights"]
    write_checkpoint(tmp_path / "start", "start", config, weights, training_record, ["old"], NO_STRUCTURES)
    start = Checkpoint.load(tmp_path / "start")
    tuning = tuning_of(start, {"learning_rate": 5e-3, "epochs": 9, "stop_after": 2})
    (state,) = train_parts(tuning, start, lambda _: misleading(splits)).values()
    assert min(epoch["valid_mae"] for epoch in state["history"]) > state["start"]["mae"]
    assert state["best"]["epoch"] == -1
    assert state["best"]["scores"] == state["start"]
    assert all(tensor.equal(weights[name]) for name, tensor in state["best"]["weights"].items())
    assert len(state["history"]) == 2, "two epochs without a better one"
    assert state["start"]["mae"] == pytest.approx(first.best["scores"]["mae"])


def test_stop_counts_from_the_best_epoch(splits, train_config):
    training = Training(
        train_config.model_copy(
            update={"training": train_config.training.model_copy(update={"epochs": 30, "stop_after": 3})}
        ),
        splits,
        CPU,
    )
    errors = []
    while not training.is_finished:
        errors.append(training.run_epoch()["valid_mae"])
    assert training.next_epoch == 30 or len(errors) - 1 - int(np.argmin(errors)) == 3
    assert training.best["epoch"] == int(np.argmin(errors))


def test_members_that_are_worse_together_are_left_as_they_were(tuned, splits, tmp_path):
    """Each of them claims that its last epoch is its best, after misleading labels."""
    ensemble = tuned[0]
    config = tuning_of(ensemble, {"epochs": 8})
    states = train_parts(config, ensemble, lambda _: misleading(splits))
    for state in states.values():
        state["best"] = {"epoch": 7, "scores": {"mae": 0.0}, "weights": state["network"]}
    result = write_tuned(tmp_path, "tuned", config, states, splits, None, ensemble, ENVIRONMENT)
    checkpoint = Checkpoint.load(tmp_path / CHECKPOINT)
    assert result["valid"]["mae"] == pytest.approx(mae(ensemble, splits))
    before = ensemble.network.state_dict()
    for name, tensor in checkpoint.network.state_dict().items():
        assert name == "calibration" or tensor.equal(before[name]), name


def test_frozen_batch_norm_keeps_its_statistics_and_other_weights_learn(splits, train_config):
    frozen, free = (
        Training(
            train_config.model_copy(
                update={"training": train_config.training.model_copy(update={"freeze_batch_norm": freeze})}
            ),
            splits,
            CPU,
        )
        for freeze in (True, False)
    )
    before = copy.deepcopy(frozen.network.state_dict())
    for training in (frozen, free):
        training.run_epoch()
    statistics = [name for name in before if "running_" in name]
    assert statistics
    assert all(frozen.network.state_dict()[name].equal(before[name]) for name in statistics)
    assert not any(free.network.state_dict()[name].equal(before[name]) for name in statistics)
    assert not frozen.network.state_dict()["encoder.norms.0.weight"].equal(before["encoder.norms.0.weight"])


@pytest.fixture(scope="module")
def electronic(bundled, tmp_path_factory) -> Path:
    """Fifty electronic spectra of insulators, so that a band-gap network of random weights is wrong."""
    table = pq.read_table(bundled.with_name("edos_gpaw.parquet"))
    table = table.filter(pc.greater(table["band_gap"], 1.0)).slice(0, 50)
    path = tmp_path_factory.mktemp("labels") / "edos.parquet"
    pq.write_table(table, path)
    return path


def labels_of(path: Path, label: str) -> LabeledSplits:
    return read_labels(path, DataConfig(table=str(path), label=label, fold=1), GraphConfig(), EDOS_GRID)


@pytest.fixture(scope="module")
def gapped(electronic, training_record, tmp_path_factory) -> Checkpoint:
    """An ensemble of two networks of spectra, and a band-gap network."""
    folder = tmp_path_factory.mktemp("gapped")
    splits = labels_of(electronic, "edos")
    data = DataConfig(table=str(electronic), label="edos", fold=1)
    spectra = TrainConfig(grid="edos", normalization="none", loss="mae", data=data, model=PROJECTED)
    members = [write_start(folder / f"old-{i}", spectra, training_record, i, splits) for i in range(2)]
    write_ensemble(folder / "spectra", "spectra", members, splits)
    gap = write_start(folder / "gap", TrainConfig(grid="edos", data=data, model=GAP), training_record, 5, splits)
    spectrum = Checkpoint.load(folder / "spectra" / CHECKPOINT)
    write_gapped(folder / "whole", "whole", spectrum, gap, splits)
    return Checkpoint.load(folder / "whole" / CHECKPOINT)


@pytest.mark.parametrize("has_gaps", [True, False])
def test_band_gap_network_is_tuned_where_the_labels_have_gaps(has_gaps, gapped, electronic, tmp_path):
    config = tuning_of(gapped, {"learning_rate": 0.02, "epochs": 8}, table=str(electronic), label="edos", fold=1)
    spectra, gaps = labels_of(electronic, "edos"), labels_of(electronic, "band_gap")
    states = train_parts(config, gapped, lambda name: gaps if name == "gap" else spectra, has_gaps=has_gaps)
    assert list(states) == ["member-1", "member-2", *(["gap"] if has_gaps else [])]
    write_tuned(tmp_path, "tuned", config, states, spectra, gaps if has_gaps else None, gapped, ENVIRONMENT)
    checkpoint = Checkpoint.load(tmp_path / CHECKPOINT)
    assert checkpoint.card.config.model == gapped.card.config.model
    before, after = gapped.network.state_dict(), checkpoint.network.state_dict()
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    assert changed == ({"spectrum", "gap"} if has_gaps else {"spectrum"})
    assert mae(checkpoint, spectra) <= mae(gapped, spectra)


@pytest.mark.parametrize(
    ("name", "file", "parts"),
    [
        ("phdos", "fine-tune-phdos", ["member-1", "member-2", "member-3"]),
        ("phdos-mat2spec", "fine-tune-phdos", [""]),
        ("edos", "fine-tune-edos", ["member-1", "member-2", "member-3", "gap"]),
    ],
)
def test_configurations_that_ship_tune_every_network_of_the_checkpoints_that_ship(name, file, parts):
    config = load_config(TrainConfig, ROOT / "configs" / f"{file}.yaml", changes={"start_from": name})
    start = TrainingInputs.from_config(config).named_checkpoint()
    complete = settings_with_start(config, start)
    assert complete.model == start.card.config.model
    trained = parts_to_train(complete, initial_weights(complete, start), lambda: True)
    assert [part.name for part in trained] == parts
    for part in trained:
        assert build_network(part.config).state_dict().keys() == part.weights.keys()
        assert part.config.training.freeze_batch_norm


def test_network_that_starts_from_an_ensemble_of_its_kind_becomes_one(ensemble, small_configs):
    config = small_configs["additive"].model_copy(update={"start_from": "start"})
    assert settings_with_start(config, ensemble).model == ensemble.card.config.model
    assert settings_with_start(small_configs["gatgnn"], ensemble).model == small_configs["gatgnn"].model


def test_setting_that_the_checkpoint_decides_is_refused_where_it_differs(ensemble):
    settings = {"data": {"table": "t"}, "start_from": "start", "start_with": "checkpoint"}
    with pytest.raises(ConfigError, match=r"^normalization: max differs from that of whole, sum; remove it") as caught:
        settings_with_start(validate(TrainConfig, settings | {"normalization": "max"}, "test"), ensemble)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="start_with checkpoint fine-tunes start_from; add start_from"):
        validate(TrainConfig, settings | {"start_from": None}, "test")


def test_combined_checkpoint_is_refused_with_the_trainings_that_it_was_made_of(ensemble):
    model = {
        "architecture": "combined",
        "shape": {"architecture": "mat2spec"},
        "scale": {"architecture": "mat2spec"},
        "gap": {"architecture": "gap"},
    }
    config = validate(TrainConfig, {"data": {"table": "t"}, "model": model}, "test")
    card = ensemble.card.model_copy(update={"config": config, "name": "edos"})
    combined = Checkpoint(card, ensemble.network, ensemble.grid, frozenset(), NO_STRUCTURES, "")
    with pytest.raises(CheckpointError, match=r"edos: a combined .* lacks .* fine-tune .*old-1, old-2") as caught:
        tuning_of(combined)
    assert "\n" not in str(caught.value)


def test_what_ships_is_of_kinds_that_can_be_tuned():
    for card in SHIPPED.glob("*/card.json"):
        assert '"combined"' not in card.read_text(), card
