"""What training and prediction ask of every network, whatever is inside it."""

from itertools import product

import numpy as np
import pytest
import torch

from mat2spec.config import TrainConfig
from mat2spec.errors import CheckpointError
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint, write_checkpoint
from mat2spec.model.losses import LOSSES
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.graph import GraphBatch

CPU = torch.device("cpu")

SCALES = [
    (scale, loss)
    for scale, loss in product(("sum", "max", "standard", "none"), LOSSES)
    if scale != "standard" or loss in ("mse", "mae")
]
"""All pairs that a configuration allows."""


@pytest.fixture(params=["mat2spec", "gatgnn", "additive", "projected"])
def config(small_configs, request) -> TrainConfig:
    if (
        request.param == "additive"
        and getattr(request.node, "callspec", None)
        and request.node.callspec.params.get("scale") in ("standard", "none")
    ):
        pytest.skip("spectra of atoms are distributions; these scales are none")
    return small_configs[request.param]


def fresh(config: TrainConfig, splits, **changes: str) -> SpectrumNetwork:
    """A network in training mode that knows the scale of the labels."""
    torch.manual_seed(0)
    network = build_network(config.model_copy(update=changes))
    network.fit(splits.train.graphs, splits.train.spectra)
    return network.train()


def step(network: SpectrumNetwork, graphs: GraphBatch, labels: torch.Tensor) -> torch.Tensor:
    """Forward and backward of one batch; the loss."""
    loss = torch.stack(list(network(graphs, labels).values())).sum()
    loss.backward()
    return loss.detach()


def gradients_are_finite(network: SpectrumNetwork) -> bool:
    return all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_every_parameter_learns(config, splits):
    network = fresh(config, splits)
    step(network, GraphBatch.from_graphs(splits.train.graphs[:8]), splits.train.spectra[:8])
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


@pytest.mark.parametrize(("scale", "loss"), SCALES)
def test_spectrum_of_zeros_in_a_batch_leaves_loss_and_gradients_finite(config, splits, scale, loss):
    network = fresh(config, splits, normalization=scale, loss=loss)
    labels = splits.train.spectra[:4].clone()
    labels[1] = 0
    assert step(network, GraphBatch.from_graphs(splits.train.graphs[:4]), labels).isfinite()
    assert gradients_are_finite(network)


@pytest.mark.parametrize(("scale", "loss"), SCALES)
def test_batch_of_one_crystal_leaves_loss_and_gradients_finite(config, splits, scale, loss):
    """mp-1000, two atoms."""
    network = fresh(config, splits, normalization=scale, loss=loss)
    graphs = GraphBatch.from_graphs(splits.train.graphs[:1])
    assert step(network, graphs, splits.train.spectra[:1]).isfinite()
    assert gradients_are_finite(network)
    assert network.eval().outputs(graphs).isfinite().all()


@pytest.mark.parametrize("scale", ["sum", "max", "standard"])
def test_batch_of_many_predicts_what_each_crystal_alone_does(config, splits, scale):
    network = fresh(config, splits, normalization=scale, loss="mae").eval()
    graphs = splits.train.graphs
    together = predict_outputs(network, graphs, CPU)
    alone = np.concatenate([predict_outputs(network, [graph], CPU) for graph in graphs])
    np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(together).max())  # float32 sums in another order


@pytest.mark.parametrize("scale", ["sum", "max"])
def test_shapes_are_on_the_scale_of_the_normalization(config, splits, real_graphs, scale):
    """Sum 1 or maximum 1, nowhere negative."""
    network = fresh(config, splits, normalization=scale).eval()
    shapes = predict_outputs(network, real_graphs, CPU)
    assert shapes.min() >= 0
    total = shapes.sum(axis=1) if scale == "sum" else shapes.max(axis=1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_checkpoint_predicts_what_the_network_did(
    config, splits, training_record, real_crystals, real_graphs, tmp_path
):
    network = fresh(config, splits).eval()
    write_checkpoint(tmp_path / "made", "made", config, network.state_dict(), training_record, [], NO_STRUCTURES)
    loaded = Checkpoint.load(tmp_path / "made")
    assert loaded.card.config == config
    expected = loaded.grid.to_states(network.to_densities(predict_outputs(network, real_graphs, CPU)))
    np.testing.assert_array_equal(Predictor(loaded, CPU).predict_spectra(real_crystals), expected.astype(np.float32))


def test_weights_of_another_network_are_refused(config, splits, training_record, tmp_path):
    """The card says one network, the file holds another."""
    weights = {f"other.{name}": tensor for name, tensor in fresh(config, splits).state_dict().items()}
    write_checkpoint(tmp_path / "made", "made", config, weights, training_record, [], NO_STRUCTURES)
    with pytest.raises(CheckpointError, match="the weights do not fit the network"):
        Checkpoint.load(tmp_path / "made")
