"""Crystal and spectrum as mixtures of Gaussians in one latent space, and the divergence that aligns them."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.config import Mat2SpecConfig


class Mixture(NamedTuple):
    """Diagonal Gaussians with mixing weights.

    The mixture of crystals has Gaussians of its own for each crystal; that of spectra has one per bin, shared by all.
    """

    weights: Float[Tensor, "crystals components"]
    means: Float[Tensor, "*crystals components latent"]
    log_variances: Float[Tensor, "*crystals components latent"]

    def mean(self) -> Float[Tensor, "crystals latent"]:
        """Mean of the convex combination z = Σ wₖ zₖ of independent samples, one from each Gaussian."""
        return (self.weights[..., None] * self.means).sum(-2)

    def sample(self, *, shared: bool = False) -> Float[Tensor, "crystals latent"]:
        """Sample z = Σ wₖ zₖ with fresh noise for each crystal, or with the same zₖ for all crystals.

        A weighted sum of independent Gaussians is Gaussian with variance Σ wₖ² σₖ², so that one sample is enough for
        all components.

        Args:
            shared: Sample zₖ once for the batch, as the published code does for spectra, whose Gaussians all crystals
                share.
        """
        if shared:
            return self.weights @ (self.means + (self.log_variances / 2).exp() * torch.randn_like(self.means))
        variance = (self.weights.square()[..., None] * self.log_variances.exp()).sum(-2)
        return self.mean() + variance.sqrt() * torch.randn_like(variance)


class CrystalMixture(nn.Module):
    """Maps the vector of a crystal to its K Gaussians."""

    def __init__(self, config: Mat2SpecConfig) -> None:
        super().__init__()
        self.shape = (config.components, config.latent)
        self.body = _dropout_mlp(config.width, 256, 512, 256, drop=config.dropout)
        self.means = nn.Linear(256, config.components * config.latent)
        self.log_variances = nn.Linear(256, config.components * config.latent)
        self.mixing = nn.Linear(256, config.components)

    def forward(self, crystals: Float[Tensor, "crystals width"]) -> Mixture:
        hidden = self.body(crystals)
        means, log_variances = (head(hidden).unflatten(1, self.shape) for head in (self.means, self.log_variances))
        return Mixture(self.mixing(hidden).softmax(-1), means, log_variances)


class SpectrumMixture(nn.Module):
    """One Gaussian per bin, shared by all materials, with weights from the spectrum. Exists in training only."""

    bins: Tensor

    def __init__(self, config: Mat2SpecConfig, bins: int) -> None:
        super().__init__()
        self.register_buffer("bins", torch.eye(bins), persistent=False)
        self.body = _dropout_mlp(bins, 512, 256, drop=config.dropout)
        self.means = nn.Linear(256, config.latent)
        self.log_variances = nn.Linear(256, config.latent)
        self.mixing = nn.Sequential(nn.Linear(bins, 128), nn.ReLU(), nn.Linear(128, bins))

    def forward(self, spectra: Float[Tensor, "crystals bins"]) -> Mixture:
        hidden = self.body(self.bins)
        return Mixture(self.mixing(spectra).softmax(-1), self.means(hidden), self.log_variances(hidden))


def tiled_pairs(bins: int, components: int) -> Float[Tensor, "bins components"]:
    """Return how often the published code counts each pair of Gaussians.

    It tiles both lists to bins · components entries and pairs entry m of each: (m mod bins, m mod components). Numbers
    without a common divisor, such as 51 and 10, give every pair once; 128 and 10 give the 640 pairs of equal parity,
    twice each.
    """
    entry = torch.arange(bins * components)
    counts = torch.zeros(bins, components)
    return counts.index_put_((entry % bins, entry % components), torch.ones(len(entry)), accumulate=True)


def alignment(
    spectra: Mixture, crystals: Mixture, counts: Float[Tensor, "bins components"] | None = None
) -> Float[Tensor, ""]:
    """Symmetrized divergence of two mixtures over all pairs of their Gaussians, mean over crystals.

    Σ over l, k of w_l w_k ½[KL(N_l‖N_k) + KL(N_k‖N_l)]; for diagonal Gaussians the bracket is
    ½ Σ_d [v_l/v_k + v_k/v_l − 2 + (μ_l − μ_k)² (1/v_l + 1/v_k)], so that four matrix products give every pair.
    Eqs. 5–7 of Kong et al. (10.1038/s41467-022-28543-x), symmetrized as in the published code.

    Args:
        spectra: One Gaussian per bin.
        crystals: A few Gaussians per crystal.
        counts: How often each pair enters the sum; default: once.
    """
    pairs = _symmetric_divergence(spectra.means, spectra.log_variances, crystals.means, crystals.log_variances)
    return torch.einsum(
        "cl,clk,ck->c", spectra.weights, pairs if counts is None else pairs * counts, crystals.weights
    ).mean()


def _symmetric_divergence(
    means_l: Float[Tensor, "bins latent"],
    log_variances_l: Float[Tensor, "bins latent"],
    means_k: Float[Tensor, "crystals components latent"],
    log_variances_k: Float[Tensor, "crystals components latent"],
) -> Float[Tensor, "crystals bins components"]:
    """½[KL(l‖k) + KL(k‖l)] of every Gaussian l with every Gaussian k."""
    (var_l, inv_l), (var_k, inv_k) = ((v.exp(), (-v).exp()) for v in (log_variances_l, log_variances_k))
    against_inv_k = torch.stack([var_l + means_l.square(), -2 * means_l], dim=1)
    against_inv_l = torch.stack([var_k + means_k.square(), -2 * means_k], dim=2)
    terms = (
        torch.einsum("lsd,cksd->clk", against_inv_k, torch.stack([inv_k, means_k * inv_k], dim=2))
        + torch.einsum("cksd,lsd->clk", against_inv_l, torch.stack([inv_l, means_l * inv_l], dim=1))
        + (means_k.square() * inv_k).sum(-1)[:, None, :]
        + (means_l.square() * inv_l).sum(-1)[:, None]
    )
    return terms / 4 - means_l.shape[-1] / 2


def _dropout_mlp(*widths: int, drop: float) -> nn.Sequential:
    """Linear maps, each with ReLU and dropout."""
    steps = [(nn.Linear(a, b), nn.ReLU(), nn.Dropout(drop)) for a, b in pairwise(widths)]
    return nn.Sequential(*(module for step in steps for module in step))
