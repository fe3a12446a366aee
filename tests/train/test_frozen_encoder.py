"""Training that begins with the encoder of another network, and training that keeps it."""

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
from mat2spec.data.labels.dataset import LabelledSplits
from mat2spec.errors import CheckpointError, ConfigError, TableError
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.structure.graph import GraphBatch
from mat2spec.train.inputs import Sources, first_weights
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
def start(splits: LabelledSplits, training_record: TrainingRecord, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Write the checkpoint of a network that a training has moved, with the statistics of real crystals."""

    def write(model: NetworkConfig = GAP, ids: tuple[str, ...] = ("gap-1",), **others: Any) -> Path:
        config = config_of(model, **others)
        torch.manual_seed(7)
        made = build_network(config).train()
        if getattr(made, "encoder", None) is not None:
            with torch.no_grad():
                for _ in range(3):
                    made.encoder(GraphBatch.from_graphs(splits.train.graphs))
        directory = tmp_path_factory.mktemp("start") / "before"
        write_checkpoint(directory, "before", config, made.state_dict(), training_record, ids)
        return directory

    return write


@pytest.fixture(scope="module")
def gap_checkpoint(start: Start) -> Path:
    return start()


def of_encoder(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}


def beginning_of(config: TrainConfig, splits: LabelledSplits) -> Checkpoint | None:
    return Sources.of(config).beginning(config, splits)


def begun(config: TrainConfig, splits: LabelledSplits) -> Training:
    return Training(config, splits, CPU, weights=first_weights(config, beginning_of(config, splits)))


def refusal(kind: type[Exception], act: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("architecture", MODELS)
def test_training_begins_with_the_encoder_and_nothing_else_of_the_other_network(splits, gap_checkpoint, architecture):
    config = config_of(MODELS[architecture], gap_checkpoint, start_with="encoder")
    theirs = Checkpoint.load(gap_checkpoint).network.state_dict()
    begins, fresh = begun(config, splits).network.state_dict(), Training(config, splits, CPU).network.state_dict()
    assert begins.keys() == fresh.keys()
    for name, tensor in begins.items():
        assert tensor.equal(theirs[name] if name.startswith("encoder.") else fresh[name]), name
    assert any(not tensor.equal(fresh[name]) for name, tensor in of_encoder(begins).items())
    assert begins["encoder.norms.0.num_batches_tracked"] == 3, "statistics of BatchNorm come along"


def test_first_weights_are_those_of_the_encoder_or_all(splits, gap_checkpoint):
    encoder, network = (config_of(GAP, gap_checkpoint, start_with=part) for part in ("encoder", "network"))
    theirs = Checkpoint.load(gap_checkpoint).network.state_dict()
    for config, expected in ((encoder, of_encoder(theirs)), (network, theirs)):
        found = first_weights(config, beginning_of(config, splits))
        assert found is not None
        assert found.keys() == expected.keys()
        assert all(found[name].equal(tensor) for name, tensor in expected.items())
    assert of_encoder(theirs).keys() < theirs.keys()
    assert first_weights(config_of(GAP), None) is None


@pytest.mark.parametrize("averaging", [None, 0.98])
@pytest.mark.parametrize("architecture", MODELS)
def test_frozen_encoder_stays_to_the_last_bit_while_the_rest_learns(splits, gap_checkpoint, architecture, averaging):
    """Its weights and the statistics of its BatchNorm; also in the running mean of the weights, which is what is kept."""
    settings = {"freeze_encoder": True, "averaging": averaging, "clip_gradient": 1.0}
    training = begun(config_of(MODELS[architecture], gap_checkpoint, settings, start_with="encoder"), splits)
    before = copy.deepcopy(training.network.state_dict())
    for _ in range(3):
        training.run_epoch()
    after = training.network.state_dict()
    for weights in (after, training.best["weights"]):
        for name, tensor in of_encoder(weights).items():
            assert tensor.equal(before[name]), name
    learnt = {name for name, _ in training.network.named_parameters()} - of_encoder(before).keys()
    assert learnt
    assert not [name for name in learnt if after[name].equal(before[name])]


def test_frozen_encoder_stays_through_an_interruption(splits, gap_checkpoint):
    config = config_of(MODELS["mat2spec"], gap_checkpoint, {"freeze_encoder": True}, start_with="encoder")
    whole, before, after = (begun(config, splits) for _ in range(3))
    metrics = [whole.run_epoch() for _ in range(3)]
    assert before.run_epoch() == metrics[0]
    after.load_state_dict(before.state_dict())
    assert [after.run_epoch() for _ in range(2)] == metrics[1:]
    for name, tensor in whole.network.state_dict().items():
        assert after.network.state_dict()[name].equal(tensor), name


def test_encoder_that_is_not_frozen_learns_too(splits, gap_checkpoint):
    """Else the claims above would hold of a training that does nothing."""
    training = begun(config_of(MODELS["mat2spec"], gap_checkpoint, start_with="encoder"), splits)
    before = copy.deepcopy(of_encoder(training.network.state_dict()))
    training.run_epoch()
    after = of_encoder(training.network.state_dict())
    assert not [name for name, tensor in before.items() if after[name].equal(tensor)]


def test_encoder_of_other_sizes_is_refused_in_one_line(splits, start):
    wide = start(GAP.model_copy(update={"width": 24}))
    config = config_of(MODELS["mat2spec"], wide, start_with="encoder")
    assert "its encoder is not of the sizes of this training's network" in refusal(
        CheckpointError, lambda: beginning_of(config, splits)
    )


def test_network_without_an_encoder_apart_is_refused_as_a_beginning(splits, start):
    mean = start(validate(TrainConfig, {"data": {"table": "a"}, "model": {"architecture": "mean"}}, "test").model)
    config = config_of(MODELS["mat2spec"], mean, start_with="encoder")
    assert "its encoder is not of the sizes" in refusal(CheckpointError, lambda: beginning_of(config, splits))


@pytest.mark.parametrize("change", [{"graph": {"neighbors": 8}}, {"grid": "edos"}])
def test_encoder_of_other_graphs_or_grids_is_refused_in_one_line(splits, start, change):
    other = start(GAP, **change)
    config = config_of(MODELS["mat2spec"], other, start_with="encoder")
    (part,) = change
    assert f"cannot start from it: its {part} is" in refusal(CheckpointError, lambda: beginning_of(config, splits))


def test_scale_of_the_other_network_matters_to_the_whole_but_not_to_its_encoder(splits, start):
    other = start(MODELS["mat2spec"], normalization="standard", loss="mae")
    encoder, network = (config_of(MODELS["mat2spec"], other, start_with=part) for part in ("encoder", "network"))
    assert beginning_of(encoder, splits) is not None
    assert "its normalization is standard, this training's is sum" in refusal(
        CheckpointError, lambda: beginning_of(network, splits)
    )


def test_another_architecture_lends_its_encoder_but_not_the_whole(splits, gap_checkpoint):
    network = config_of(MODELS["mat2spec"], gap_checkpoint)
    assert "cannot start from it: its model is" in refusal(CheckpointError, lambda: beginning_of(network, splits))


def test_encoder_that_saw_test_rows_is_refused_in_one_line(splits, start):
    seen = start(GAP, ids=(splits.test.material_ids[0], "gap-1"))
    config = config_of(MODELS["mat2spec"], seen, start_with="encoder")
    message = refusal(TableError, lambda: beginning_of(config, splits))
    assert f"1 of the 6 test rows ({splits.test.material_ids[0]}, …) were seen in its training" in message


@pytest.mark.parametrize("setting", [{"training": {"freeze_encoder": True}}, {"start_with": "encoder"}])
@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "additive"},
        {"architecture": "e3nn"},
        {"architecture": "mean"},
        {"architecture": "elemental"},
        {"architecture": "ensemble", "members": 2, "member": {"architecture": "gatgnn"}},
        {"architecture": "combined", "shape": {}, "scale": {}, "gap": {"architecture": "gap"}},
    ],
    ids=lambda model: model["architecture"],
)
def test_network_without_an_encoder_apart_cannot_keep_it(model, setting):
    record = {"data": {"table": "labels.parquet"}, "model": model}
    assert validate(TrainConfig, record, "test").model.architecture == model["architecture"]
    message = refusal(ConfigError, lambda: validate(TrainConfig, record | setting, "test"))
    assert (
        f"architecture {model['architecture']} has no encoder of crystals apart; leave out freeze_encoder and start_with"
        in message
    )


@pytest.mark.parametrize("model", [{}, {"architecture": "gatgnn"}, {"architecture": "gap"}])
def test_network_with_an_encoder_can_keep_it(model):
    record = {
        "data": {"table": "labels.parquet"},
        "model": model,
        "training": {"freeze_encoder": True},
        "start_with": "encoder",
    }
    config = validate(TrainConfig, record, "test")
    assert config.training.freeze_encoder
    assert config.start_with == "encoder"


def test_defaults_freeze_nothing_and_take_the_whole_network():
    config = TrainConfig(data=DataConfig(table="labels.parquet"), graph=GraphConfig())
    assert (config.training.freeze_encoder, config.start_with) == (False, "network")
