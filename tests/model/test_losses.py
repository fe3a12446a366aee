import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from scipy.stats import wasserstein_distance
from torch.distributions import Categorical
from torch.distributions import kl_divergence as kl_of_distributions

from mat2spec.model.losses import LOSSES, kl_divergence, wasserstein

FLOOR = 2e-6
"""Absolute: 51 bins, each with 1e-8 added to its density under the logarithm."""


@pytest.fixture
def shapes() -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and true shapes."""
    torch.manual_seed(0)
    predicted, true = torch.randn(2, 6, 51, dtype=torch.float64).softmax(-1)
    return predicted, true


def test_divergence_is_that_of_the_prediction_from_the_truth(shapes):
    predicted, true = shapes
    expected = kl_of_distributions(Categorical(true), Categorical(predicted)).mean()
    assert kl_divergence(predicted, true).item() == pytest.approx(expected.item(), abs=FLOOR)


def test_divergence_of_real_spectra_with_empty_bins_is_that_of_scipy(shapes, splits):
    true = splits.valid.spectra.double()
    true = true / true.sum(1, keepdim=True)
    assert (true == 0).any()
    expected = rel_entr(true.numpy(), shapes[0].numpy()).sum(axis=1).mean()
    assert kl_divergence(shapes[0], true).item() == pytest.approx(expected, abs=FLOOR)


def test_divergence_of_the_truth_is_zero(shapes):
    assert kl_divergence(shapes[1], shapes[1]).item() == 0


@pytest.mark.parametrize("empty", ["predicted", "true", "both"])
@pytest.mark.parametrize("name", LOSSES)
def test_spectra_of_zeros_leave_loss_and_gradients_finite(shapes, name, empty):
    predicted, true = (s.float() for s in shapes)
    predicted = (torch.zeros_like(predicted) if empty != "true" else predicted).requires_grad_()
    true = torch.zeros_like(true) if empty != "predicted" else true
    loss = LOSSES[name](predicted, true)
    loss.backward()
    assert loss.isfinite()
    assert predicted.grad.isfinite().all()


def test_wasserstein_is_that_of_scipy_over_numbers_of_bins(shapes):
    predicted, true = shapes
    bins = np.arange(51)
    expected = [wasserstein_distance(bins, bins, p, t) for p, t in zip(predicted.numpy(), true.numpy(), strict=True)]
    assert wasserstein(predicted, true).item() == pytest.approx(np.mean(expected), rel=1e-10)


def test_wasserstein_of_a_line_that_moves_is_how_far_it_moves():
    lines = torch.eye(51)
    assert wasserstein(lines[[3]], lines[[10]]).item() == pytest.approx(7)
    assert wasserstein(lines[[10, 0]], lines[[3, 0]]).item() == pytest.approx(7 / 2), "mean over crystals"


def test_absolute_and_squared_errors_are_means_over_crystals_and_bins(shapes):
    difference = (shapes[0] - shapes[1]).numpy()
    assert LOSSES["mae"](*shapes).item() == pytest.approx(np.abs(difference).mean(), rel=1e-12)
    assert LOSSES["mse"](*shapes).item() == pytest.approx((difference**2).mean(), rel=1e-12)


@pytest.mark.parametrize("name", ["kl", "wasserstein"])
def test_scale_of_neither_spectrum_matters_to_a_distance_of_distributions(shapes, name):
    predicted, true = shapes
    expected = LOSSES[name](predicted, true).item()
    assert expected > 0
    assert LOSSES[name](100 * predicted, true).item() == pytest.approx(expected, rel=1e-9)
    assert LOSSES[name](predicted, 0.01 * true).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["mse", "mae"])
def test_scale_matters_to_a_distance_of_numbers(shapes, name):
    predicted, true = shapes
    assert LOSSES[name](100 * predicted, true) > 10 * LOSSES[name](predicted, true)
