"""What training minimises besides the alignment: distance of shapes, and contrast between materials."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def kl_divergence(predicted: Float[Tensor, "crystals bins"], true: Float[Tensor, "crystals bins"]) -> Float[Tensor, ""]:
    """Kullback–Leibler divergence Σ p ln(p/q) of the predicted shape q from the true shape p, mean over crystals."""
    tiny = 1e-8  # keeps empty bins finite, as in the published code
    return (true * ((true + tiny).log() - (predicted + tiny).log())).sum(dim=1).mean()


def contrastive(spectra: Float[Tensor, "crystals projection"], crystals: Float[Tensor, "crystals projection"]) -> Float[Tensor, ""]:
    """InfoNCE in both directions with cosine similarity and temperature 1: each crystal must know its own spectrum.

    van den Oord et al. (arXiv:1807.03748); the pair itself is in the denominator. A batch of one has nothing to tell apart: 0.
    """
    similarity = normalize(spectra, dim=1) @ normalize(crystals, dim=1).T
    own = torch.arange(len(similarity), device=similarity.device)
    return (cross_entropy(similarity, own) + cross_entropy(similarity.T, own)) / 2
