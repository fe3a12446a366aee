import sys

import numpy as np
import pytest
import torch
from e3nn import o3
from safetensors.torch import load, save
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mat2spec.config import E3NNConfig, GraphConfig, TrainConfig, TrainingConfig
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.errors import ConfigError
from mat2spec.model.e3nn import E3NN, DepthwiseProduct
from mat2spec.model.registry import build_network
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import GraphBatch, build_graph
from mat2spec.train.loop import Training

CUTOFF = 5.0
GRAPHS = GraphConfig(neighbors=None, cutoff=CUTOFF)
PUBLISHED = E3NNConfig(architecture="e3nn")
SMALL = E3NNConfig(architecture="e3nn", embedding=8, multiplicity=4, radial_functions=5, radial_neurons=8)

FIRST_LOSSES = [0.126192, 0.123010, 0.120217, 0.121223, 0.118030]
"""Total loss of five steps on eight materials, torch 2.13 on x86-64."""

OTHER_MACHINES = 1e-4
"""Relative: float32 sums in another order, through five steps; a changed formula shows in the first digits."""

FLOAT32 = {"rtol": 0.0, "atol": 1e-5}
"""Of spectra whose maximum is 1: edges turned in float32, sums in another order; three layers of them."""

ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
ROTATION *= np.linalg.det(ROTATION)


def make_network(config: E3NNConfig, normalization: str = "max") -> E3NN:
    torch.manual_seed(0)
    network = E3NN(config, CUTOFF, 51, normalization, "mse")
    network.num_neighbors.fill_(30.0)
    return network.eval()


def predict(network: E3NN, crystals: list[Crystal]) -> torch.Tensor:
    with torch.inference_mode():
        return network.outputs(GraphBatch.from_graphs([build_graph(crystal, GRAPHS) for crystal in crystals]))


def turned(crystal: Crystal) -> Crystal:
    return Crystal(crystal.material_id, crystal.atomic_numbers, crystal.lattice @ ROTATION.T, crystal.frac_coords)


def mirrored(crystal: Crystal) -> Crystal:
    return Crystal(crystal.material_id, crystal.atomic_numbers, crystal.lattice * [-1, 1, 1], crystal.frac_coords)


def shifted(crystal: Crystal) -> Crystal:
    return Crystal(
        crystal.material_id, crystal.atomic_numbers, crystal.lattice, crystal.frac_coords + np.array([0.1, 0.23, 0.37])
    )


def reordered(crystal: Crystal) -> Crystal:
    order = np.random.default_rng(0).permutation(len(crystal))
    return Crystal(crystal.material_id, crystal.atomic_numbers[order], crystal.lattice, crystal.frac_coords[order])


def doubled(crystal: Crystal) -> Crystal:
    twice = np.concatenate([crystal.frac_coords, crystal.frac_coords + np.array([0, 0, 1])]) / [1, 1, 2]
    return Crystal(crystal.material_id, np.tile(crystal.atomic_numbers, 2), crystal.lattice * [[1], [1], [2]], twice)


@pytest.fixture(
    scope="module", params=[{}, {"max_degree": 2, "layers": 3, "multiplicity": 8}], ids=["published", "deep"]
)
def config(request) -> E3NNConfig:
    return PUBLISHED.model_copy(update=request.param)


@pytest.fixture(scope="module")
def network(config) -> E3NN:
    return make_network(config)


@pytest.mark.parametrize("change", [turned, mirrored, shifted, reordered, doubled])
def test_spectrum_does_not_depend_on_how_a_crystal_is_written_down(network, real_crystals, change):
    expected = predict(network, real_crystals)
    assert expected.std(dim=0).max() > 0.01, "crystals differ"
    torch.testing.assert_close(predict(network, [change(crystal) for crystal in real_crystals]), expected, **FLOAT32)


def test_spectrum_depends_on_angles(network):
    """A chain of atoms, straight or bent: equal distances to two neighbors, all others beyond the cutoff."""
    straight = Crystal("straight", np.array([14], np.uint8), np.diag([3.0, 20, 20]), np.zeros((1, 3)))
    bent = Crystal(
        "bent", np.array([14, 14], np.uint8), np.diag([3 * 3**0.5, 20, 20]), np.array([[0, 0, 0], [0.5, 1.5 / 20, 0]])
    )
    edges = [sorted(build_graph(crystal, GRAPHS).distances.round(3)) for crystal in (straight, bent)]
    assert edges == [[3.0] * 2, [3.0] * 4]
    one, other = predict(network, [straight, bent])
    assert (one - other).abs().max() > 1e-3


def test_many_crystals_at_once_are_each_alone(network, real_crystals):
    alone = torch.cat([predict(network, [crystal]) for crystal in real_crystals])
    torch.testing.assert_close(predict(network, real_crystals), alone, **FLOAT32)


def test_a_bond_fades_before_the_cutoff_ends_it(network):
    def two_pairs(distance: float) -> Crystal:
        coords = np.array([[0, 0, 0], [2, 0, 0], [0, distance, 0], [-2, distance, 0]]) / 20
        return Crystal("two pairs", np.array([14] * 4, np.uint8), 20 * np.eye(3), coords)

    crystals = [two_pairs(distance) for distance in (CUTOFF - 0.5, CUTOFF - 0.01, CUTOFF + 0.01)]
    assert [build_graph(crystal, GRAPHS).num_edges for crystal in crystals] == [10, 6, 4]
    near, inside, outside = predict(network, crystals)
    torch.testing.assert_close(inside, outside, **FLOAT32)
    assert (near - outside).abs().max() > 1e-3


@pytest.mark.parametrize("normalization", ["max", "sum", "standard"])
def test_output_is_on_the_scale_of_the_normalization(real_crystals, normalization):
    shapes = predict(make_network(SMALL, normalization), real_crystals)
    if normalization == "max":
        torch.testing.assert_close(shapes.amax(dim=1), torch.ones(len(real_crystals)))
    if normalization == "sum":
        torch.testing.assert_close(shapes.sum(dim=1), torch.ones(len(real_crystals)))
    assert (shapes.min() >= 0) == (normalization != "standard")


def test_sum_over_atoms_is_their_mean_times_their_number(real_crystals):
    mean, total = (
        predict(make_network(SMALL.model_copy(update={"pooling": pooling}), "standard"), real_crystals)
        for pooling in ("mean", "sum")
    )
    torch.testing.assert_close(total, mean * torch.tensor([[len(crystal)] for crystal in real_crystals]))


@pytest.mark.parametrize("max_degree", [0, 1, 2])
@pytest.mark.parametrize("layers", [1, 3])
def test_every_parameter_learns(splits, max_degree, layers):
    network = make_network(SMALL.model_copy(update={"max_degree": max_degree, "layers": layers})).train()
    (loss,) = network(GraphBatch.from_graphs(splits.train.graphs[:8]), splits.train.spectra[:8]).values()
    loss.backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_hidden_features_are_those_from_which_a_spectrum_follows():
    def hidden(layers: int, max_degree: int = 1) -> list[o3.Irreps]:
        return [
            gate.irreps_out
            for gate in make_network(SMALL.model_copy(update={"layers": layers, "max_degree": max_degree})).gates
        ]

    assert hidden(2) == [o3.Irreps("4x0e+4x1o")] * 2, (
        "1e would be reached in the second layer, but no scalar from there"
    )
    assert hidden(3) == [o3.Irreps(kinds) for kinds in ("4x0e+4x1o", "4x0e+4x1o+4x1e", "4x0e+4x1o")]
    assert hidden(2, 0) == [o3.Irreps("4x0e")] * 2


def test_product_is_that_of_the_package():
    features, harmonics, wanted = (
        o3.Irreps("3x0e+4x1o+2x1e+5x2e"),
        o3.Irreps.spherical_harmonics(2),
        o3.Irreps("0e+0o+1o+1e+2e+2o"),
    )
    ours = DepthwiseProduct(features, harmonics, wanted)
    paths = [(i, j, number, "uvu", True) for number, (_, i, j) in enumerate(ours.paths)]
    irreps_out = o3.Irreps([(features[i].mul, kind) for kind, i, _ in ours.paths])
    theirs = o3.TensorProduct(features, harmonics, irreps_out, paths, shared_weights=False, internal_weights=False)
    torch.manual_seed(0)
    inputs = features.randn(20, -1), harmonics.randn(20, -1), torch.randn(20, theirs.weight_numel)
    torch.testing.assert_close(ours(*inputs), theirs(*inputs))


def test_published_sizes_have_this_many_parameters():
    assert sum(p.numel() for p in make_network(PUBLISHED).parameters()) == 628_472


def test_fit_counts_the_edges_of_an_average_atom(splits):
    network = make_network(SMALL)
    network.fit(splits.train.graphs, splits.train.spectra)
    batch = GraphBatch.from_graphs(splits.train.graphs)
    assert network.num_neighbors.item() == pytest.approx(len(batch.distances) / len(batch.atomic_numbers))


def test_weights_on_disk_make_the_same_network_again(config, network, real_crystals):
    again = E3NN(config, CUTOFF, 51, "max", "mse").eval()
    again.load_state_dict(load(save(network.state_dict())))
    assert predict(again, real_crystals).equal(predict(network, real_crystals))


def test_running_mean_of_equal_weights_is_the_network(config, network, real_crystals):
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(2):
        averaged.update_parameters(network)
    again = E3NN(config, CUTOFF, 51, "max", "mse").eval()
    again.load_state_dict(averaged.module.state_dict())
    expected = predict(network, real_crystals)
    torch.testing.assert_close(predict(averaged.module, real_crystals), expected, **FLOAT32)
    torch.testing.assert_close(predict(again, real_crystals), expected, **FLOAT32)


def test_five_steps_give_the_losses_they_always_gave(splits):
    config = TrainConfig(
        normalization="max",
        loss="mse",
        data={"table": "small.parquet"},
        model=SMALL,
        training=TrainingConfig(batch_size=8, learning_rate=5e-3),
    )
    eight = splits.train.take(np.arange(8))
    training = Training(
        config, LabeledSplits(eight, splits.valid, splits.test, splits.fingerprint), torch.device("cpu")
    )
    losses = [training.run_epoch()["train_loss"] for _ in range(5)]
    assert losses == pytest.approx(FIRST_LOSSES, rel=OTHER_MACHINES)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "e3nn", None)
    monkeypatch.delitem(sys.modules, "mat2spec.model.e3nn")
    with pytest.raises(ConfigError, match=r"needs e3nn: pip install 'mat2spec\[e3nn\]'"):
        build_network(TrainConfig(data={"table": "small.parquet"}, model=SMALL))
