"""The preset "original": what the published code does by accident, and the corrected network does not."""

import dataclasses

import numpy as np
import pytest
import torch

from mat2spec.config import GraphConfig, Mat2SpecConfig
from mat2spec.model.encoder import CrystalEncoder
from mat2spec.model.mat2spec import SAMPLES, Mat2Spec
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import GraphBatch, build_graph
from mat2spec.train.loop import Training

CPU = torch.device("cpu")

FLOAT32 = 1e-5
"""Relative: sums over twice as many atoms."""


@pytest.fixture(scope="module")
def original(network) -> Mat2Spec:
    """The published sizes with the same weights as the corrected network."""
    original = Mat2Spec(Mat2SpecConfig(preset="original"), 51, "sum", "kl")
    original.load_state_dict(network.state_dict())
    return original.eval()


@pytest.fixture(scope="module")
def batch(real_graphs) -> GraphBatch:
    return GraphBatch.from_graphs(real_graphs)


def predict(network: Mat2Spec, batch: GraphBatch, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    with torch.inference_mode():
        return network.outputs(batch)


def test_original_predicts_by_chance_and_the_corrected_network_does_not(original, network, batch):
    first = predict(original, batch, seed=0)
    assert first.equal(predict(original, batch, seed=0)), "the same seed gives the same samples"
    is_equal = torch.isclose(first, predict(original, batch, seed=1)).all(dim=1)
    assert not is_equal.any(), "another seed gives every crystal another spectrum"
    assert predict(network, batch, seed=0).equal(predict(network, batch, seed=1))


def test_original_prediction_is_the_mean_of_three_samples(original, batch):
    torch.manual_seed(0)
    with torch.inference_mode():
        crystals = original.encoder(batch)
        mixture = original.crystal_mixture(crystals)
        samples = [original._predict(original._represent(crystals, mixture.sample())) for _ in range(3)]
    torch.testing.assert_close(predict(original, batch, seed=0), sum(samples) / 3)
    assert SAMPLES == 3


def doubled(crystal: Crystal) -> Crystal:
    """The same crystal in a cell of twice the length along its first vector."""
    frac_coords = np.concatenate([crystal.frac_coords, crystal.frac_coords + np.array([1, 0, 0])]) / [2, 1, 1]
    return Crystal(
        crystal.material_id, np.tile(crystal.atomic_numbers, 2), crystal.lattice * [[2], [1], [1]], frac_coords
    )


@pytest.mark.parametrize(("mean_of_weighted", "ratio"), [(True, 0.5), (False, 1.0)], ids=["original", "corrected"])
def test_vector_of_a_crystal_shrinks_with_its_cell_in_the_original_only(
    real_crystals, network, mean_of_weighted, ratio
):
    encoder = CrystalEncoder(Mat2SpecConfig(), mean_of_weighted).eval()
    encoder.load_state_dict(network.encoder.state_dict())
    single, double = (
        GraphBatch.from_graphs([build_graph(crystal, GraphConfig()) for crystal in cells])
        for cells in (real_crystals, [doubled(crystal) for crystal in real_crystals])
    )
    with torch.inference_mode():
        torch.testing.assert_close(encoder(double), ratio * encoder(single), rtol=FLOAT32, atol=FLOAT32)


@pytest.mark.parametrize("preset", ["original", "corrected"])
def test_unit_of_the_labels_matters_in_the_original_only(splits, preset):
    """Its label branch sees them as they are; what is compared with the prediction is normalized in both."""
    torch.manual_seed(0)
    network = Mat2Spec(Mat2SpecConfig(preset=preset, dropout=0.0), 51, "sum", "kl")
    graphs, labels = GraphBatch.from_graphs(splits.train.graphs[:8]), splits.train.spectra[:8]
    terms = []
    for scale in (1, 100):
        torch.manual_seed(1)
        terms.append(network(graphs, scale * labels))
    torch.testing.assert_close(terms[0]["prediction"], terms[1]["prediction"])
    for name in ("reconstruction", "alignment", "contrast"):
        same = torch.isclose(terms[0][name], terms[1][name], rtol=1e-4)
        assert same == (preset == "corrected"), name


@pytest.mark.parametrize("preset", ["original", "corrected"])
def test_standardizer_of_the_original_has_seen_validation_and_test_rows(train_config, splits, preset):
    model = train_config.model.model_copy(update={"preset": preset})
    config = train_config.model_copy(update={"normalization": "standard", "loss": "mae", "model": model})
    fitted = Training(config, splits, CPU).network.normalization
    parts = [splits.train, splits.valid, splits.test] if preset == "original" else [splits.train]
    known = np.concatenate([part.spectra.numpy() for part in parts]).astype(float)
    assert len(known) == (36 if preset == "original" else 24)
    np.testing.assert_allclose(fitted.mean.numpy(), known.mean(axis=0), rtol=FLOAT32, atol=1e-7)
    spread = known.std(axis=0, ddof=1)
    np.testing.assert_allclose(fitted.std.numpy(), np.where(spread > 0, spread, 1), rtol=FLOAT32)


def test_original_trains_with_the_settings_of_the_published_code(train_config, splits):
    """Ties cut, phantom edges, largest density 1, mean squared error."""
    graphs = GraphConfig(phantoms=True)
    parts = {
        name: part.with_graphs(part.crystals, graphs)
        for name, part in (("train", splits.train), ("valid", splits.valid), ("test", splits.test))
    }
    model = train_config.model.model_copy(update={"preset": "original"})
    config = train_config.model_copy(update={"normalization": "max", "loss": "mse", "model": model, "graph": graphs})
    training = Training(config, dataclasses.replace(splits, **parts), CPU)
    metrics = [training.run_epoch() for _ in range(4)]
    assert all(np.isfinite(list(epoch.values())).all() for epoch in metrics)
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
