"""Terms of the loss: distances between spectra, and contrast between materials. The alignment is in mixture.py."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss, mse_loss, normalize

SpectrumLoss = Callable[[Float[Tensor, "crystals bins"], Float[Tensor, "crystals bins"]], Float[Tensor, ""]]


def kl_divergence(predicted: Float[Tensor, "crystals bins"], true: Float[Tensor, "crystals bins"]) -> Float[Tensor, ""]:
    """Kullback–Leibler divergence Σ p ln(p/q) of the predicted shape q from the true shape p, mean over crystals."""
    tiny = 1e-8  # keeps empty bins finite, as in the published code
    true, predicted = _distribution(true), _distribution(predicted)
    return (true * ((true + tiny).log() - (predicted + tiny).log())).sum(dim=1).mean()


def wasserstein(predicted: Float[Tensor, "crystals bins"], true: Float[Tensor, "crystals bins"]) -> Float[Tensor, ""]:
    """Wasserstein distance between two shapes in bins, Σ |difference of the cumulative sums|, mean over crystals."""
    return (_distribution(predicted) - _distribution(true)).cumsum(dim=1).abs().sum(dim=1).mean()


def _distribution(densities: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
    """Scale densities to add to 1; zeros stay zero."""
    return densities / (densities.sum(dim=1, keepdim=True) + 1e-14)


LOSSES: dict[str, SpectrumLoss] = {"mse": mse_loss, "mae": l1_loss, "kl": kl_divergence, "wasserstein": wasserstein}
"""Distances between predicted and true spectra on the scale of the normalization, by name."""


def contrastive(
    spectra: Float[Tensor, "crystals projection"], crystals: Float[Tensor, "crystals projection"]
) -> Float[Tensor, ""]:
    """InfoNCE in both directions with cosine similarity and temperature 1: each crystal must identify its own spectrum.

    van den Oord et al. (arXiv:1807.03748); the pair itself is in the denominator. A batch of one has no contrast: 0.
    """
    similarity = normalize(spectra, dim=1) @ normalize(crystals, dim=1).T
    own = torch.arange(len(similarity), device=similarity.device)
    return (cross_entropy(similarity, own) + cross_entropy(similarity.T, own)) / 2


def contrastive_as_published(
    spectra: Float[Tensor, "crystals projection"], crystals: Float[Tensor, "crystals projection"]
) -> Float[Tensor, ""]:
    """InfoNCE as in the published code: from spectra to crystals only, without the pair itself in the denominator.

    It can be negative. For a batch of one the denominator is empty and the published loss infinite; here it is 0.
    """
    similarity = normalize(spectra, dim=1) @ normalize(crystals, dim=1).T
    if len(similarity) == 1:
        return similarity.sum() * 0
    others = similarity.masked_fill(torch.eye(len(similarity), dtype=torch.bool, device=similarity.device), -torch.inf)
    return (others.logsumexp(dim=1) - similarity.diagonal()).mean()
