"""Mat2Spec: crystals and spectra share a latent space, from which one predictor reads the spectrum.

Kong et al., Nature Communications 13, 949 (2022), 10.1038/s41467-022-28543-x. Where the published code differs from the
paper by accident, the preset "corrected" follows the paper and "original" follows the code.
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

SAMPLES = 3
"""Number of samples whose mean is the prediction of the published code."""


class Mat2Spec(SpectrumNetwork):
    """The network. `outputs` predicts; `forward`, for training, also needs labels.

    Args:
        config: Sizes, preset and weights of the losses.
        bins: Bins of the spectrum.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance between predicted and true shapes.
    """

    def __init__(self, config: Mat2SpecConfig, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins, normalization, loss)
        self.config = config
        self.original = config.preset == "original"
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
        """Return the terms of the loss, from samples of both mixtures."""
        crystals = self.encoder(graphs)
        true = self.normalization.normalize(labels)
        crystal_mixture = self.crystal_mixture(crystals)
        spectrum_mixture = self.spectrum_mixture(labels if self.original else true)
        from_crystal = self._represent(crystals, crystal_mixture.sample())
        from_spectrum = self._represent(crystals, spectrum_mixture.sample(shared=self.original))
        terms = {
            "prediction": self.distance(self._predict(from_crystal), true),
            "reconstruction": self.distance(self._predict(from_spectrum), true),
        }
        if self.config.alignment_weight:
            counts = tiled_pairs(self.bins, self.config.components).to(true) if self.original else None
            terms["alignment"] = self.config.alignment_weight * alignment(spectrum_mixture, crystal_mixture, counts)
        if self.config.contrastive_weight:
            contrast = contrastive_as_published if self.original else contrastive
            terms["contrast"] = self.config.contrastive_weight * contrast(
                self.projector(from_spectrum), self.projector(from_crystal)
            )
        return terms

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        """Predict spectra from graphs alone: from means of the mixtures, or in the preset "original" from samples."""
        return self.decode(self.encoder(graphs))

    def decode(self, crystals: Float[Tensor, "crystals width"]) -> Float[Tensor, "crystals bins"]:
        """Predict spectra from the encoder's vectors."""
        mixture = self.crystal_mixture(crystals)
        latents = [mixture.sample() for _ in range(SAMPLES)] if self.original else [mixture.mean()]
        return torch.stack([self._predict(self._represent(crystals, latent)) for latent in latents]).mean(dim=0)

    def drop_training_parts(self) -> None:
        """Delete the parts that prediction does not need."""
        for name in ("spectrum_mixture", "projector"):
            if hasattr(self, name):
                delattr(self, name)

    def _represent(self, crystals: Tensor, latent: Tensor) -> Float[Tensor, "crystals representation"]:
        """Translate a point of the latent space together with the crystal's own vector."""
        return self.translator(torch.cat([crystals, latent], dim=1))

    def _predict(self, representation: Tensor) -> Float[Tensor, "crystals bins"]:
        return self.normalization.activate(representation @ self.predictor)
