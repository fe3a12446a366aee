import pytest
import torch
from scipy.special import rel_entr
from torch.distributions import Categorical
from torch.distributions import kl_divergence as kl_of_distributions

from mat2spec.model.losses import contrastive, kl_divergence

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
def test_spectra_of_zeros_leave_loss_and_gradients_finite(shapes, empty):
    predicted, true = (s.float() for s in shapes)
    predicted = (torch.zeros_like(predicted) if empty != "true" else predicted).requires_grad_()
    true = torch.zeros_like(true) if empty != "predicted" else true
    loss = kl_divergence(predicted, true)
    loss.backward()
    assert loss.isfinite()
    assert predicted.grad.isfinite().all()


def test_contrast_is_a_softmax_over_the_batch_in_both_directions():
    torch.manual_seed(0)
    spectra, crystals = torch.randn(2, 5, 32, dtype=torch.float64)
    expected = 0.0
    for i in range(5):
        alike = torch.stack([torch.cosine_similarity(spectra[i], crystals[j], dim=0) for j in range(5)])
        others = torch.stack([torch.cosine_similarity(spectra[j], crystals[i], dim=0) for j in range(5)])
        expected -= (alike[i].exp() / alike.exp().sum()).log() + (others[i].exp() / others.exp().sum()).log()
    assert contrastive(spectra, crystals).item() == pytest.approx(expected.item() / 10, rel=1e-12)


def test_contrast_falls_when_each_crystal_knows_its_spectrum():
    spectra = torch.eye(4, 8)
    assert contrastive(spectra, spectra) < contrastive(spectra, spectra.flip(0))


def test_batch_of_one_has_no_contrast():
    lonely = torch.randn(1, 32, requires_grad=True)
    loss = contrastive(lonely, torch.randn(1, 32))
    loss.backward()
    assert loss.item() == 0
    assert not lonely.grad.any()


def test_contrast_of_vectors_of_zeros_is_finite():
    nothing = torch.zeros(3, 32, requires_grad=True)
    loss = contrastive(nothing, torch.randn(3, 32))
    loss.backward()
    assert loss.isfinite()
    assert nothing.grad.isfinite().all()
