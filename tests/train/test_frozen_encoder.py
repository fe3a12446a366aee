"""Training that starts from the encoder of another network, and training that freezes it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mat2spec.config import (
    DataConfig,
    GapConfig,
    GATGNNConfig,
    GraphConfig,
    Mat2SpecConfig,
    NetworkConfig,
    TrainConfig,
    validate,
)
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.errors import CheckpointError, ConfigError, TableError
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES
from mat2spec.structure.graph import GraphBatch
from mat2spec.train.inputs import TrainingInputs, initial_weights
from mat2spec.train.loop import Training

CPU = torch.device("cpu")

SIZES: dict[str, Any] = {"layers": 2, "heads": 2, "width": 16}

MODELS: dict[str, NetworkConfig] = {
    "mat2spec": Mat2SpecConfig(**SIZES, components=3, latent=8, representation=32, projection=32),
    "gatgnn": GATGNNConfig(architecture="gatgnn", **SIZES),
}

GAP = GapConfig(architecture="gap", **SIZES, head=16)

Start = Callable[..., Path]


def config_of(
    model: NetworkConfig, start: Path | None = None, training: dict[str, Any] | None = None, **others: Any
) -> TrainConfig:
    """A training of two batches an epoch."""
    record = {
        "data": {"table": "small.parquet"},
        "model": model.model_dump(mode="json"),
        "training": {"batch_size": 12, "learning_rate": 0.01, **(training or {})},
        "start_from": str(start) if start else None,
    }
    return validate(TrainConfig, record | others, "test")


@pytest.fixture(scope="module")
def start(splits: LabeledSplits, training_record: TrainingRecord, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Write the checkpoint of a network with BatchNorm statistics of real crystals, as after training."""

    def write(model: NetworkConfig = GAP, ids: tuple[str, ...] = ("gap-1",), **others: Any) -> Path:
        config = config_of(model, **others)
        torch.manual_seed(7)
        network = build_network(config).train()
        if getattr(network, "encoder", None) is not None:
            with torch.no_grad():
                for _ in range(3):
                    network.encoder(GraphBatch.from_graphs(splits.train.graphs))
        directory = tmp_path_factory.mktemp("start") / "before"
        write_checkpoint(directory, "before", config, network.state_dict(), training_record, ids, NO_STRUCTURES)
        return directory

    return write


@pytest.fixture(scope="module")
def gap_checkpoint(start: Start) -> Path:
    return start()


def encoder_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}


def initial_checkpoint(config: TrainConfig, splits: LabeledSplits) -> Checkpoint | None:
    return TrainingInputs.from_config(config).initial_checkpoint(config, splits)


def start_training(config: TrainConfig, splits: LabeledSplits) -> Training:
    return Training(config, splits, CPU, weights=initial_weights(config, initial_checkpoint(config, splits)))


def refusal(kind: type[Exception], act: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("architecture", MODELS)
def test_training_starts_from_the_encoder_and_nothing_else_of_the_other_network(splits, gap_checkpoint, architecture):
    config = config_of(MODELS[architecture], gap_checkpoint, start_with="encoder")
    theirs = Checkpoint.load(gap_checkpoint).network.state_dict()
    initial = start_training(config, splits).network.state_dict()
    fresh = Training(config, splits, CPU).network.state_dict()
    assert initial.keys() == fresh.keys()
    for name, tensor in initial.items():
        assert tensor.equal(theirs[name] if name.startswith("encoder.") else fresh[name]), name
    assert any(not tensor.equal(fresh[name]) for name, tensor in encoder_weights(initial).items())
    assert initial["encoder.norms.0.num_batches_tracked"] == 3, "statistics of BatchNorm come along"


def test_initial_weights_are_those_of_the_encoder_or_all(splits, gap_checkpoint):
    encoder, network = (config_of(GAP, gap_checkpoint, start_with=part) for part in ("encoder", "network"))
    theirs = Checkpoint.load(gap_checkpoint).network.state_dict()
    for config, expected in ((encoder, encoder_weights(theirs)), (network, theirs)):
        weights = initial_weights(config, initial_checkpoint(config, splits))
        assert weights is not None
        assert weights.keys() == expected.keys()
        assert all(weights[name].equal(tensor) for name, tensor in expected.items())
    assert encoder_weights(theirs).keys() < theirs.keys()
    assert initial_weights(config_of(GAP), None) is None


@pytest.mark.parametrize("averaging", [None, 0.98])
@pytest.mark.parametrize("architecture", MODELS)
def test_frozen_encoder_stays_the_same_to_the_last_bit_while_the_rest_is_trained(
    splits, gap_checkpoint, architecture, averaging
):
    """Its weights and BatchNorm statistics, also in the averaged weights, which are the ones saved."""
    settings = {"freeze_encoder": True, "averaging": averaging, "clip_gradient": 1.0}
    training = start_training(config_of(MODELS[architecture], gap_checkpoint, settings, start_with="encoder"), splits)
    before = copy.deepcopy(training.network.state_dict())
    for _ in range(3):
        training.run_epoch()
    after = training.network.state_dict()
    for weights in (after, training.best["weights"]):
        for name, tensor in encoder_weights(weights).items():
            assert tensor.equal(before[name]), name
    trained = {name for name, _ in training.network.named_parameters()} - encoder_weights(before).keys()
    assert trained
    assert not [name for name in trained if after[name].equal(before[name])]


def test_frozen_encoder_stays_the_same_when_training_is_resumed(splits, gap_checkpoint):
    config = config_of(MODELS["mat2spec"], gap_checkpoint, {"freeze_encoder": True}, start_with="encoder")
    whole, before, after = (start_training(config, splits) for _ in range(3))
    metrics = [whole.run_epoch() for _ in range(3)]
    assert before.run_epoch() == metrics[0]
    after.load_state_dict(before.state_dict())
    assert [after.run_epoch() for _ in range(2)] == metrics[1:]
    for name, tensor in whole.network.state_dict().items():
        assert after.network.state_dict()[name].equal(tensor), name


def test_encoder_that_is_not_frozen_is_trained_too(splits, gap_checkpoint):
    """Else the claims above would hold of a training that does nothing."""
    training = start_training(config_of(MODELS["mat2spec"], gap_checkpoint, start_with="encoder"), splits)
    before = copy.deepcopy(encoder_weights(training.network.state_dict()))
    training.run_epoch()
    after = encoder_weights(training.network.state_dict())
    assert not [name for name, tensor in before.items() if after[name].equal(tensor)]


def test_encoder_of_other_sizes_is_refused_in_one_line(splits, start):
    wide = start(GAP.model_copy(update={"width": 24}))
    config = config_of(MODELS["mat2spec"], wide, start_with="encoder")
    message = refusal(CheckpointError, lambda: initial_checkpoint(config, splits))
    assert str(wide) in message
    assert "encoder" in message


def test_network_without_an_encoder_is_refused_as_a_start(splits, start):
    mean = start(validate(TrainConfig, {"data": {"table": "a"}, "model": {"architecture": "mean"}}, "test").model)
    config = config_of(MODELS["mat2spec"], mean, start_with="encoder")
    assert "encoder" in refusal(CheckpointError, lambda: initial_checkpoint(config, splits))


@pytest.mark.parametrize("change", [{"graph": {"neighbors": 8}}, {"grid": "edos"}])
def test_encoder_of_other_graphs_or_grids_is_refused_in_one_line(splits, start, change):
    other = start(GAP, **change)
    config = config_of(MODELS["mat2spec"], other, start_with="encoder")
    (part,) = change
    assert f"cannot start from it: its {part} is" in refusal(
        CheckpointError, lambda: initial_checkpoint(config, splits)
    )


def test_scale_of_the_other_network_matters_to_the_whole_but_not_to_its_encoder(splits, start):
    other = start(MODELS["mat2spec"], normalization="standard", loss="mae")
    encoder, network = (config_of(MODELS["mat2spec"], other, start_with=part) for part in ("encoder", "network"))
    assert initial_checkpoint(encoder, splits) is not None
    assert "its normalization is standard, this training's is sum" in refusal(
        CheckpointError, lambda: initial_checkpoint(network, splits)
    )


def test_another_architecture_can_provide_its_encoder_but_not_the_whole_network(splits, gap_checkpoint):
    network = config_of(MODELS["mat2spec"], gap_checkpoint)
    assert "cannot start from it: its model is" in refusal(CheckpointError, lambda: initial_checkpoint(network, splits))


def test_encoder_that_was_trained_on_test_rows_is_refused_in_one_line(splits, start):
    seen = start(GAP, ids=(splits.test.material_ids[0], "gap-1"))
    config = config_of(MODELS["mat2spec"], seen, start_with="encoder")
    message = refusal(TableError, lambda: initial_checkpoint(config, splits))
    assert f"1 of the 6 test rows ({splits.test.material_ids[0]}, …)" in message


@pytest.mark.parametrize("setting", [{"training": {"freeze_encoder": True}}, {"start_with": "encoder"}])
@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "e3nn"},
        {"architecture": "mean"},
        {"architecture": "elemental"},
        {"architecture": "ensemble", "members": 2, "member": {"architecture": "gatgnn"}},
        {"architecture": "combined", "shape": {}, "scale": {}, "gap": {"architecture": "gap"}},
        {"architecture": "gapped", "spectrum": {"architecture": "projected"}, "gap": {"architecture": "gap"}},
    ],
    ids=lambda model: model["architecture"],
)
def test_network_without_an_encoder_cannot_freeze_it(model, setting):
    record = {"data": {"table": "labels.parquet"}, "model": model}
    assert validate(TrainConfig, record, "test").model.architecture == model["architecture"]
    message = refusal(ConfigError, lambda: validate(TrainConfig, record | setting, "test"))
    assert all(word in message for word in (f"architecture {model['architecture']}", "freeze_encoder", "start_with"))


@pytest.mark.parametrize("model", [{}, {"architecture": "gatgnn"}, {"architecture": "gap"}])
def test_network_with_an_encoder_can_freeze_it(model):
    record = {
        "data": {"table": "labels.parquet"},
        "model": model,
        "training": {"freeze_encoder": True},
        "start_with": "encoder",
    }
    config = validate(TrainConfig, record, "test")
    assert config.training.freeze_encoder
    assert config.start_with == "encoder"


def test_defaults_freeze_nothing_and_start_from_the_whole_network():
    config = TrainConfig(data=DataConfig(table="labels.parquet"), graph=GraphConfig())
    assert (config.training.freeze_encoder, config.start_with) == (False, "network")
