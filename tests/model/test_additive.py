"""The network of atom-projected spectra: what it sees that a network of distances cannot."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import norm

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.model.additive import Peaks
from mat2spec.model.losses import kl_divergence, wasserstein
from mat2spec.model.registry import build_network
from mat2spec.model.vector_network import EdgeExpansion
from mat2spec.predict.forward import predict_outputs
from mat2spec.structure.graph import CrystalGraph, GraphBatch

CPU = torch.device("cpu")

SAME = 1e-6
"""Densities of a shape add to 1; float32."""


def bent(angle: float) -> CrystalGraph:
    """One silicon between two others at 2.35 Å, with an angle between its bonds [degrees]."""
    bonds = 2.35 * np.array([[1.0, 0, 0], [np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0]])
    edge_index = np.array([[1, 2, 0, 0], [0, 0, 1, 2]], np.int32)
    vectors = np.concatenate([bonds, -bonds]).astype(np.float32)
    return CrystalGraph(np.array([14, 14, 14], np.uint8), edge_index, np.full(4, 2.35, np.float32), vectors)


@pytest.mark.parametrize(("architecture", "sees"), [("additive", True), ("mat2spec", False), ("gatgnn", False)])
def test_angle_between_bonds_of_equal_length_is_seen_by_the_network_of_vectors_only(networks, architecture, sees):
    right, straight = predict_outputs(networks[architecture], [bent(90), bent(180)], CPU)
    assert (np.abs(right - straight).max() > 100 * SAME) == sees


def test_spectrum_is_the_mean_of_its_atoms(networks, real_graphs):
    network = networks["additive"]
    batch = GraphBatch.from_graphs(real_graphs)
    with torch.inference_mode():
        atoms, shapes = network.atomic_spectra(batch), network.outputs(batch)
    for crystal, shape in enumerate(shapes):
        mean = atoms[batch.batch == crystal].mean(dim=0)
        torch.testing.assert_close(shape, mean / mean.sum())


def test_each_atom_shares_out_its_vibrations_with_a_part_beyond_the_grid(networks, small_configs, real_graphs):
    batch = GraphBatch.from_graphs(real_graphs)
    torch.manual_seed(0)
    fresh = build_network(small_configs["additive"]).eval()
    with torch.inference_mode():
        for network in (fresh, networks["additive"]):
            atoms = network.atomic_spectra(batch)
            assert atoms.min() >= 0
            assert atoms.sum(dim=1).max() <= 1 + SAME
        fresh.head[-1].bias.chunk(3)[1].fill_(20.0)  # the means of all peaks
        assert fresh.atomic_spectra(batch).sum(dim=1).max() < 1e-4, (
            "peaks at 1.3 times the grid's end are no part of the spectrum"
        )


def test_peak_is_a_gaussian_integrated_over_bins():
    """Against scipy; half of the last bin lies beyond the last center, for labels are densities at centers."""
    peaks = Peaks(2, PHDOS_GRID)
    outputs = torch.tensor(
        [[0.0, -50.0, 0.4, 0.0, 1.5, 0.0], [0.0, -50.0, 8.0, 0.0, 1.5, 0.0]]
    )  # weights, means, widths of two peaks
    bins = peaks(outputs)
    edges = np.array([-np.inf, *PHDOS_GRID.edges[1:-1], 1010.0])
    width = 20 * (0.5 + 2.5 * np.log1p(np.exp(0.5)))
    for atom, shift in enumerate((0.4, 8.0)):
        mean = 1300 * expit(shift + logit(0.03))
        np.testing.assert_allclose(bins[atom].numpy(), np.diff(norm.cdf(edges, mean, width)), atol=1e-5)
    assert bins[0].sum().item() == pytest.approx(1)
    assert bins[1].sum() < 1e-4, "its mean is 1,286 cm⁻¹"


def test_peaks_are_spread_over_the_whole_grid_before_training():
    bins = Peaks(12, PHDOS_GRID)(torch.zeros(1, 36))[0]
    assert bins.min() > 0.1 / 51
    assert bins.max() < 4 / 51


def test_transport_has_its_weight_and_is_left_out_without(small_configs, splits):
    graphs, labels = GraphBatch.from_graphs(splits.train.graphs[:8]), splits.train.spectra[:8]
    results = []
    for weight in (0.5, 1.0, 0.0):
        config = small_configs["additive"]
        torch.manual_seed(0)
        network = build_network(
            config.model_copy(update={"model": config.model.model_copy(update={"transport_weight": weight})})
        )
        results.append((network(graphs, labels), network.outputs(graphs)))
    (half, shapes), (full, _), (without, _) = results
    assert list(without) == ["prediction"]
    assert full["transport"].item() == pytest.approx(wasserstein(shapes, labels).item(), rel=1e-5)
    assert half["transport"].item() == pytest.approx(full["transport"].item() / 2, rel=1e-5)
    assert (
        half["prediction"].item()
        == without["prediction"].item()
        == pytest.approx(kl_divergence(shapes, labels).item(), rel=1e-5)
    )


def test_equal_sites_have_equal_spectra(networks, real_crystals, real_graphs):
    """Both atoms of silicon, each the image of the other."""
    silicon = next(
        graph for crystal, graph in zip(real_crystals, real_graphs, strict=True) if crystal.material_id == "mp-149"
    )
    with torch.inference_mode():
        first, second = networks["additive"].atomic_spectra(GraphBatch.from_graphs([silicon]))
    torch.testing.assert_close(first, second, rtol=0, atol=10 * SAME)


def test_mass_of_an_atom_matters(networks, real_graphs, monkeypatch):
    """Silicon as if it were of the isotope 30: nothing else of its features changes."""
    network, graph = networks["additive"], bent(109.5)
    (before,) = predict_outputs(network, [graph], CPU)
    heavier = network.encoder.features.clone()
    heavier[14, -2:] = torch.tensor([np.log(30.0) / 3 - 1, 5 * 30.0**-0.5])
    monkeypatch.setitem(network.encoder._buffers, "features", heavier)
    (after,) = predict_outputs(network, [graph], CPU)
    assert np.abs(after - before).max() > 100 * SAME


def test_mass_features_are_those_of_the_element(networks):
    logarithm, root = networks["additive"].encoder.features[14, -2:].tolist()
    assert logarithm == pytest.approx(np.log(28.0855) / 3 - 1, abs=1e-4)
    assert root == pytest.approx(5 * 28.0855**-0.5, abs=1e-4)


def test_edge_fades_out_as_a_cosine_to_the_cutoff():
    """Gaussians at every step of their width add to √2π between the ends."""
    distances = torch.tensor([2.0, 4.0, 6.0, 8.0])
    weights = EdgeExpansion(8.0, 32)(distances).sum(dim=1) / (2 * np.pi) ** 0.5
    torch.testing.assert_close(weights, (1 + torch.cos(torch.pi * distances / 8)) / 2, rtol=1e-3, atol=SAME)


def test_weights_from_before_the_encoder_was_a_module_are_read(networks):
    """Those of the phdos that ships: `embed` and `layers` stood beside the head."""
    network = networks["additive"]
    weights = network.state_dict()
    old = {key.removeprefix("encoder."): value for key, value in weights.items()}
    assert {key.partition(".")[0] for key in old} >= {"embed", "layers", "head"}
    fresh = copy.deepcopy(network)
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    fresh.load_state_dict(old)
    assert all(value.equal(weights[key]) for key, value in fresh.state_dict().items())
