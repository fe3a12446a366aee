"""What training, checkpoints and prediction ask of every network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.graph import CrystalGraph, GraphBatch
from mat2spec.model.losses import LOSSES
from mat2spec.normalization import make_normalization


class SpectrumNetwork(nn.Module, ABC):
    """A network from crystals to spectra.

    Args:
        bins: Bins of the spectrum.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance between predicted and true shapes.
    """

    def __init__(self, bins: int, normalization: str, loss: str) -> None:
        super().__init__()
        self.bins = bins
        self.normalization = make_normalization(normalization, bins)
        self.distance = LOSSES[loss]

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        """Learn from the training rows what fresh weights need: the scale of the labels."""
        self.normalization.fit(labels)

    @abstractmethod
    def shapes(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        """Predict spectra on the scale of the normalisation, from crystals alone."""

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Compute the terms that add up to the loss of a batch, from labels in their own scale."""
        return {"prediction": self.distance(self.shapes(graphs), self.normalization.normalize(labels))}
