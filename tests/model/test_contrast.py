import pytest
import torch

from mat2spec.model.losses import contrastive, contrastive_as_published


def test_contrast_is_a_softmax_over_the_batch_in_both_directions():
    torch.manual_seed(0)
    spectra, crystals = torch.randn(2, 5, 32, dtype=torch.float64)
    expected = 0.0
    for i in range(5):
        alike = torch.stack([torch.cosine_similarity(spectra[i], crystals[j], dim=0) for j in range(5)])
        others = torch.stack([torch.cosine_similarity(spectra[j], crystals[i], dim=0) for j in range(5)])
        expected -= (alike[i].exp() / alike.exp().sum()).log() + (others[i].exp() / others.exp().sum()).log()
    assert contrastive(spectra, crystals).item() == pytest.approx(expected.item() / 10, rel=1e-12)


@pytest.mark.parametrize("form", [contrastive, contrastive_as_published])
def test_contrast_falls_when_each_crystal_knows_its_spectrum(form):
    spectra = torch.eye(4, 8)
    assert form(spectra, spectra) < form(spectra, spectra.flip(0))


def test_published_contrast_is_of_each_spectrum_against_the_other_crystals_only():
    torch.manual_seed(0)
    spectra, crystals = torch.randn(2, 5, 32, dtype=torch.float64)
    expected = 0.0
    for i in range(5):
        alike = [torch.cosine_similarity(spectra[i], crystals[j], dim=0).exp() for j in range(5)]
        expected -= (alike[i] / sum(alike[j] for j in range(5) if j != i)).log() / 5
    assert contrastive_as_published(spectra, crystals).item() == pytest.approx(expected.item(), rel=1e-12)


def test_published_contrast_can_be_negative_and_ours_cannot():
    """Two opposite crystals that know their spectra: exp(1) over exp(−1) alone."""
    spectra = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert contrastive_as_published(spectra, spectra).item() == pytest.approx(-2)
    assert contrastive(spectra, spectra).item() > 0


@pytest.mark.parametrize("form", [contrastive, contrastive_as_published])
def test_batch_of_one_has_no_contrast(form):
    lonely = torch.randn(1, 32, requires_grad=True)
    loss = form(lonely, torch.randn(1, 32))
    loss.backward()
    assert loss.item() == 0
    assert not lonely.grad.any()


@pytest.mark.parametrize("form", [contrastive, contrastive_as_published])
def test_contrast_of_vectors_of_zeros_is_finite(form):
    nothing = torch.zeros(3, 32, requires_grad=True)
    loss = form(nothing, torch.randn(3, 32))
    loss.backward()
    assert loss.isfinite()
    assert nothing.grad.isfinite().all()
