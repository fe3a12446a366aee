import pytest
import torch
from torch import nn

from mat2spec.config import Mat2SpecConfig
from mat2spec.model.encoder import GaussianExpansion, atomic_fractions
from mat2spec.model.mat2spec import Mat2Spec
from mat2spec.structure.graph import GraphBatch


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def published(bins: int, **changes: float) -> Mat2Spec:
    return Mat2Spec(Mat2SpecConfig(**changes), bins, "sum", "kl")


@pytest.mark.parametrize(("bins", "total", "inference"), [(51, 2_561_270, 1_798_979), (128, 2_659_907, 1_838_403)])
def test_network_has_the_published_number_of_parameters(bins, total, inference):
    """None of the corrections adds or removes one: they change which neighbors, pairs and negatives count."""
    network = published(bins)
    assert count(network) == total
    assert count(network) - count(network.spectrum_mixture) - count(network.projector) == inference
    assert count(network.encoder) == 422_201


def test_prediction_needs_neither_label_branch_nor_projector(network, real_graphs):
    batch = GraphBatch.from_graphs(real_graphs)
    with torch.inference_mode():
        expected = network.outputs(batch)
    label_branch, projector = network.spectrum_mixture, network.projector
    try:
        del network.spectrum_mixture, network.projector
        with torch.inference_mode():
            assert network.outputs(batch).equal(expected)
    finally:
        network.spectrum_mixture, network.projector = label_branch, projector


def test_prediction_is_deterministic_and_a_distribution(network, real_graphs):
    batch = GraphBatch.from_graphs(real_graphs)
    with torch.inference_mode():
        shapes = network.outputs(batch)
        assert network.outputs(batch).equal(shapes), "mixture means, no draws"
    assert (shapes >= 0).all()
    torch.testing.assert_close(shapes.sum(1), torch.ones(len(real_graphs)))


def test_losses_do_not_depend_on_the_scale_of_the_labels(splits):
    network, batch = published(51), GraphBatch.from_graphs(splits.train.graphs[:8])
    torch.manual_seed(0)
    losses = network(batch, splits.train.spectra[:8])
    torch.manual_seed(0)
    network.load_state_dict(network.state_dict())
    scaled = network(batch, 100 * splits.train.spectra[:8])
    torch.testing.assert_close(losses, scaled)


def test_loss_weighs_alignment_and_contrast_as_published(splits):
    """1.1 and 0.1, against weights of one."""
    graphs, labels = GraphBatch.from_graphs(splits.train.graphs[:8]), splits.train.spectra[:8]
    losses = []
    for weights in ({}, {"alignment_weight": 1.0, "contrastive_weight": 1.0}):
        torch.manual_seed(0)
        losses.append(published(51, **weights)(graphs, labels))
    ours, plain = losses
    assert list(ours) == ["prediction", "reconstruction", "alignment", "contrast"]
    expected = {"prediction": 1.0, "reconstruction": 1.0, "alignment": 1.1, "contrast": 0.1}
    for name, weight in expected.items():
        assert ours[name].item() == pytest.approx(weight * plain[name].item(), rel=1e-5), name
        assert ours[name].item() != 0


def test_term_of_weight_zero_is_left_out_and_the_projector_with_it(splits):
    graphs, labels = GraphBatch.from_graphs(splits.train.graphs[:8]), splits.train.spectra[:8]
    unaligned, uncontrasted = published(51, alignment_weight=0.0), published(51, contrastive_weight=0.0)
    assert list(unaligned(graphs, labels)) == ["prediction", "reconstruction", "contrast"]
    assert list(uncontrasted(graphs, labels)) == ["prediction", "reconstruction", "alignment"]
    assert not [name for name, _ in uncontrasted.named_parameters() if "projector" in name]
    assert count(unaligned) - count(uncontrasted) == count(unaligned.projector) > 0


def test_distances_are_expanded_without_half_in_the_exponent():
    expansion = GaussianExpansion(8.0, 41)(torch.tensor([0.0, 2.3, 8.0]))
    steps = torch.arange(41) * 0.2
    expected = torch.stack([torch.exp(-((d - steps) ** 2) / 0.2**2) for d in (0.0, 2.3, 8.0)])
    torch.testing.assert_close(expansion, expected, rtol=1e-4, atol=1e-6)  # float32 of exponents up to 1600


def test_composition_is_fractions_of_elements():
    numbers, batch = torch.tensor([11, 17, 14, 8, 8]), torch.tensor([0, 0, 1, 1, 1])
    fractions = atomic_fractions(numbers, batch, 2)
    assert fractions.shape == (2, 103)
    torch.testing.assert_close(fractions.sum(1), torch.ones(2))
    torch.testing.assert_close(fractions[1, [13, 7]], torch.tensor([1 / 3, 2 / 3]))


def test_pooling_weights_of_a_crystal_add_to_one(network, real_graphs):
    batch = GraphBatch.from_graphs(real_graphs)
    alike = torch.ones(len(batch.atomic_numbers), 128)
    with torch.inference_mode():
        torch.testing.assert_close(network.encoder.pool(alike, batch), torch.ones(len(real_graphs), 128))
