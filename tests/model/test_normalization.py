"""The three scales of spectra, and the way back from each."""

import numpy as np
import pytest
import torch

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.model.checkpoint import Checkpoint, write_checkpoint
from mat2spec.model.normalization import Normalization, make_normalization
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES
from mat2spec.predict.predictor import Predictor

SCALES = ("sum", "max", "standard")

FLOAT32 = 1e-5
"""Relative: single precision through a sum over 51 bins."""


def fitted(name: str, labels: torch.Tensor) -> Normalization:
    scale = make_normalization(name, labels.shape[1])
    scale.fit(labels)
    return scale


def test_each_scale_is_what_its_name_says(splits):
    labels = splits.train.spectra
    shapes = {name: fitted(name, labels).normalize(labels) for name in SCALES}
    torch.testing.assert_close(shapes["sum"].sum(dim=1), torch.ones(24))
    assert shapes["max"].amax(dim=1).equal(torch.ones(24))
    varying = labels.std(dim=0) > 0
    torch.testing.assert_close(
        shapes["standard"][:, varying].mean(dim=0), torch.zeros(int(varying.sum())), rtol=0, atol=FLOAT32
    )
    torch.testing.assert_close(shapes["standard"][:, varying].std(dim=0), torch.ones(int(varying.sum())))


@pytest.mark.parametrize("name", SCALES)
def test_states_hold_three_modes_per_atom(splits, name):
    scale = fitted(name, splits.train.spectra)
    shapes = scale.normalize(splits.valid.spectra).numpy()
    states = PHDOS_GRID.to_states(scale.densities(shapes))
    np.testing.assert_allclose(PHDOS_GRID.integrate(states), 3, rtol=FLOAT32)
    expected = splits.valid.spectra.numpy()
    np.testing.assert_allclose(
        states / states.max(axis=1)[:, None], expected / expected.max(axis=1)[:, None], atol=FLOAT32
    )


@pytest.mark.parametrize("name", SCALES)
def test_activated_outputs_hold_three_modes_per_atom(splits, name):
    scale = fitted(name, splits.train.spectra)
    torch.manual_seed(0)
    states = PHDOS_GRID.to_states(scale.densities(scale.activate(torch.randn(8, 51)).numpy()))
    assert states.min() >= 0
    np.testing.assert_allclose(PHDOS_GRID.integrate(states), 3, rtol=FLOAT32)


@pytest.mark.parametrize("name", ["sum", "max"])
def test_spectrum_of_zeros_stays_zero(name):
    scale, nothing = make_normalization(name, 51), torch.zeros(2, 51)
    assert not scale.normalize(nothing).any()
    assert not PHDOS_GRID.to_states(scale.densities(nothing.numpy())).any()


def test_outputs_that_are_nowhere_positive_are_an_empty_spectrum_on_the_max_scale():
    scale = make_normalization("max", 51)
    outputs = torch.full((2, 51), -1.0, requires_grad=True)
    shapes = scale.activate(outputs)
    shapes.sum().backward()
    assert not shapes.any()
    assert outputs.grad.isfinite().all()


def test_bin_that_never_varies_is_only_shifted():
    labels = torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, 3.0]])
    scale = fitted("standard", labels)
    assert scale.normalize(labels)[:, :2].equal(torch.zeros(2, 2))
    assert scale.normalize(torch.tensor([[0.5, 7.0, 2.0]])).tolist() == [[0.5, 2.0, 0.0]]


def test_single_training_row_is_only_shifted():
    labels = torch.tensor([[0.0, 5.0, 1.0]])
    assert not fitted("standard", labels).normalize(labels).any()


def test_standardized_spectra_go_back_to_the_labels_and_negative_densities_are_cut(splits):
    scale = fitted("standard", splits.train.spectra)
    true = splits.valid.spectra
    np.testing.assert_allclose(scale.densities(scale.normalize(true).numpy()), true.numpy(), atol=FLOAT32)
    below = scale.densities(scale.normalize(true - 0.5).numpy())
    np.testing.assert_allclose(below, (true.numpy() - 0.5).clip(0), atol=FLOAT32)
    assert (below == 0).any()
    assert (below > 0).any()


def test_only_the_standard_scale_has_something_to_remember():
    assert [len(make_normalization(name, 51).state_dict()) for name in SCALES] == [0, 0, 2]


def test_checkpoint_keeps_mean_and_deviation_of_the_training_labels(
    train_config, splits, training_record, real_graphs, real_crystals, tmp_path
):
    config = train_config.model_copy(update={"normalization": "standard", "loss": "mae"})
    network = build_network(config).eval()
    network.fit(splits.train.graphs, splits.train.spectra)
    write_checkpoint(tmp_path / "made", "made", config, network.state_dict(), training_record, [], NO_STRUCTURES)
    loaded = Checkpoint.load(tmp_path / "made")
    for name in ("mean", "std"):
        assert getattr(loaded.network.normalization, name).equal(getattr(network.normalization, name)), name
    assert loaded.network.normalization.mean.equal(splits.train.spectra.mean(dim=0))
    predicted = Predictor(loaded, torch.device("cpu")).predict_spectra(real_crystals)
    np.testing.assert_allclose(PHDOS_GRID.integrate(predicted), 3, rtol=FLOAT32)
