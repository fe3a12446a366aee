"""What training, checkpoints and prediction ask of every network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.dos.grid import Spectra, SpectrumGrid
from mat2spec.dos.metrics import SCALINGS, score
from mat2spec.model.losses import LOSSES
from mat2spec.model.normalization import make_normalization
from mat2spec.structure.graph import CrystalGraph, GraphBatch


class Network(nn.Module, ABC):
    """A network from crystals to numbers.

    Args:
        num_outputs: Numbers that it gives for a crystal.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    @abstractmethod
    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        """Learn from the training rows what fresh weights need."""

    @abstractmethod
    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals outputs"]:
        """Predict from crystals alone."""

    @abstractmethod
    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Compute the terms that add up to the loss of a batch."""

    @abstractmethod
    def judge(
        self, outputs: Float[Tensor, "crystals outputs"], labels: Float[Tensor, "crystals bins"], grid: SpectrumGrid
    ) -> dict[str, float]:
        """Score outputs against labels; the epoch with the lowest `mae` is the one that is kept."""


class SpectrumNetwork(Network):
    """A network from crystals to spectra.

    Args:
        bins: Bins of the spectrum.
        normalization: Name of the scale of its outputs.
        loss: Name of the distance between predicted and true spectra on that scale.
    """

    def __init__(self, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins)
        self.bins = bins
        self.normalization = make_normalization(normalization, bins)
        self.distance = LOSSES[loss]

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        """Learn the scale of the labels."""
        self.normalization.fit(labels)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Compute the terms that add up to the loss of a batch, from labels in their own scale."""
        return {"prediction": self.distance(self.outputs(graphs), self.normalization.normalize(labels))}

    def to_densities(self, outputs: Float[np.ndarray, "crystals outputs"]) -> Spectra:
        """Read outputs as non-negative densities, in the unit of the labels where the normalisation keeps it."""
        return self.normalization.densities(outputs[:, : self.bins])

    def judge(
        self, outputs: Float[Tensor, "crystals outputs"], labels: Float[Tensor, "crystals bins"], grid: SpectrumGrid
    ) -> dict[str, float]:
        """Score predicted spectra in the scale of the labels: as they are if the network knows that scale, else at the labels' sum."""
        loss = self.distance(outputs, self.normalization.normalize(labels))
        scaling = "self" if self.normalization.keeps_unit else "true-sum"
        true = labels.cpu().numpy()
        predicted = SCALINGS[scaling](self.to_densities(outputs.cpu().numpy()), true)
        return {"loss": loss.item(), **score(predicted, true, grid)}
