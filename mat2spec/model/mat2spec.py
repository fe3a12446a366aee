"""Mat2Spec: crystal and spectrum meet in a latent space, and one predictor reads the spectrum from it.

Kong et al., Nature Communications 13, 949 (2022), 10.1038/s41467-022-28543-x. The preset "corrected" is what the paper describes
where its code differs by accident; "original" does as the code does.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.config import Mat2SpecConfig
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.encoder import CrystalEncoder
from mat2spec.model.losses import contrastive, contrastive_as_published
from mat2spec.model.mixture import CrystalMixture, SpectrumMixture, alignment, tiled_pairs
from mat2spec.structure.graph import GraphBatch

PASSES = 3
"""Draws whose mean the published code takes as its prediction."""


class Mat2Spec(SpectrumNetwork):
    """The network. `outputs` predicts; `forward`, in training, also needs labels.

    Args:
        config: Sizes, preset and weights of the losses.
        bins: Bins of the spectrum.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance between predicted and true shapes.
    """

    def __init__(self, config: Mat2SpecConfig, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins, normalization, loss)
        self.config, self.original = config, config.preset == "original"
        self.encoder = CrystalEncoder(config, mean_of_weighted=self.original)
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
        if config.contrastive_weight:
            self.projector = nn.Linear(config.representation, config.projection)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Compute the terms of the loss; draws from both mixtures in training mode."""
        crystals = self.encoder(graphs)
        true = self.normalization.normalize(labels)
        of_crystals, of_spectra = (
            self.crystal_mixture(crystals),
            self.spectrum_mixture(labels if self.original else true),
        )
        from_crystal = self._represent(crystals, of_crystals.sample())
        from_spectrum = self._represent(crystals, of_spectra.sample(shared=self.original))
        terms = {
            "prediction": self.distance(self._read(from_crystal), true),
            "reconstruction": self.distance(self._read(from_spectrum), true),
        }
        if self.config.alignment_weight:
            counts = tiled_pairs(self.bins, self.config.components).to(true) if self.original else None
            terms["alignment"] = self.config.alignment_weight * alignment(of_spectra, of_crystals, counts)
        if self.config.contrastive_weight:
            contrast = contrastive_as_published if self.original else contrastive
            terms["contrast"] = self.config.contrastive_weight * contrast(
                self.projector(from_spectrum), self.projector(from_crystal)
            )
        return terms

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        """Predict spectra from crystals alone: from the means of the mixtures, or in the preset "original" from draws."""
        return self.of_vectors(self.encoder(graphs))

    def of_vectors(self, crystals: Float[Tensor, "crystals width"]) -> Float[Tensor, "crystals bins"]:
        """Read the encoder's vectors."""
        mixture = self.crystal_mixture(crystals)
        latents = [mixture.sample() for _ in range(PASSES)] if self.original else [mixture.mean()]
        return torch.stack([self._read(self._represent(crystals, latent)) for latent in latents]).mean(dim=0)

    def drop_training_parts(self) -> None:
        """Drop what predicting does not need."""
        for name in ("spectrum_mixture", "projector"):
            if hasattr(self, name):
                delattr(self, name)

    def _represent(self, crystals: Tensor, latent: Tensor) -> Float[Tensor, "crystals representation"]:
        """Translate a point of the latent space, beside the crystal's own vector."""
        return self.translator(torch.cat([crystals, latent], dim=1))

    def _read(self, representation: Tensor) -> Float[Tensor, "crystals bins"]:
        return self.normalization.activate(representation @ self.predictor)
