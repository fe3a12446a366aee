"""Mat2Spec: crystal and spectrum meet in a latent space, and one predictor reads the spectrum from it.

Kong et al., Nature Communications 13, 949 (2022), 10.1038/s41467-022-28543-x, in the preset "corrected".
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.config import ModelConfig, TrainingConfig
from mat2spec.graph import GraphBatch
from mat2spec.model.encoder import CrystalEncoder
from mat2spec.model.losses import contrastive, kl_divergence
from mat2spec.model.mixture import CrystalMixture, SpectrumMixture, alignment
from mat2spec.normalization import SumNormalization


class Losses(NamedTuple):
    """The parts of the loss of one batch."""

    prediction: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    alignment: Float[Tensor, ""]
    contrast: Float[Tensor, ""]

    def total(self, config: TrainingConfig) -> Float[Tensor, ""]:
        """Weighted sum that training minimises."""
        aligned = config.alignment_weight * self.alignment + config.contrastive_weight * self.contrast
        return self.prediction + self.reconstruction + aligned


class Mat2Spec(nn.Module):
    """The network. `shapes` predicts; `losses`, in training, also needs labels.

    Args:
        config: Sizes.
        cutoff: Longest edge of the graphs [Å].
        bins: Bins of the spectrum.
        normalization: Scale of the shapes.
    """

    def __init__(self, config: ModelConfig, cutoff: float, bins: int, normalization: SumNormalization) -> None:
        super().__init__()
        self.normalization = normalization
        self.encoder = CrystalEncoder(config, cutoff)
        self.crystal_mixture = CrystalMixture(config)
        self.spectrum_mixture = SpectrumMixture(config, bins)
        self.translator = nn.Sequential(
            nn.Linear(config.width + config.latent, config.representation),
            nn.ReLU(),
            nn.Linear(config.representation, config.representation),
            nn.LeakyReLU(),
        )
        self.predictor = nn.Parameter(torch.empty(config.representation, bins))
        nn.init.uniform_(self.predictor, -(bins**-0.5), bins**-0.5)
        self.projector = nn.Linear(config.representation, config.projection)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> Losses:
        """Compute the losses of a batch with labels in any scale; draws from both mixtures in training mode."""
        crystals = self.encoder(graphs)
        true = self.normalization.normalize(labels)
        of_crystals, of_spectra = self.crystal_mixture(crystals), self.spectrum_mixture(true)
        from_crystal = self._represent(crystals, of_crystals.sample())
        from_spectrum = self._represent(crystals, of_spectra.sample())
        return Losses(
            kl_divergence(self._read(from_crystal), true),
            kl_divergence(self._read(from_spectrum), true),
            alignment(of_spectra, of_crystals),
            contrastive(self.projector(from_spectrum), self.projector(from_crystal)),
        )

    def shapes(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        """Predict normalised spectra from crystals alone, with the means of the mixtures: deterministic in eval mode."""
        crystals = self.encoder(graphs)
        return self._read(self._represent(crystals, self.crystal_mixture(crystals).mean()))

    def _represent(self, crystals: Tensor, latent: Tensor) -> Float[Tensor, "crystals representation"]:
        """Translate a point of the latent space, beside the crystal's own vector."""
        return self.translator(torch.cat([crystals, latent], dim=1))

    def _read(self, representation: Tensor) -> Float[Tensor, "crystals bins"]:
        return self.normalization.activate(representation @ self.predictor)
