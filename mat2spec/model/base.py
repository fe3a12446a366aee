"""The interface of every network, as training, checkpoints and prediction use it."""

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
        num_outputs: Numbers that it predicts for a crystal.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    @abstractmethod
    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        """Set what is computed from the training rows rather than trained, such as the scale of the labels."""

    @abstractmethod
    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals outputs"]:
        """Predict from graphs alone."""

    @abstractmethod
    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Return the terms that add up to the loss of a batch."""

    @abstractmethod
    def validation_scores(
        self, outputs: Float[Tensor, "crystals outputs"], labels: Float[Tensor, "crystals bins"], grid: SpectrumGrid
    ) -> dict[str, float]:
        """Score outputs against labels; the checkpoint is of the epoch with the lowest `mae`."""


class SpectrumNetwork(Network):
    """A network from crystals to spectra.

    Args:
        bins: Bins of the spectrum.
        normalization: Name of the scale of its outputs.
        loss: Name of the distance between predicted and true spectra on that scale.
    """

    predicts_above_grid = False
    """Whether outputs go on, after the spectrum, with those of `model.above_grid`."""

    predicts_error = False
    """Whether the last output is the error to be expected (`model.expected_error`)."""

    def __init__(self, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins)
        self.bins = bins
        self.normalization = make_normalization(normalization, bins)
        self.distance = LOSSES[loss]

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        """Fit the scale of the labels."""
        self.normalization.fit(labels)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Return the terms that add up to the loss of a batch.

        Args:
            graphs: Crystals.
            labels: In their own scale.
        """
        return {"prediction": self.distance(self.outputs(graphs), self.normalization.normalize(labels))}

    def to_densities(self, outputs: Float[np.ndarray, "crystals outputs"]) -> Spectra:
        """Convert outputs to non-negative densities, in the unit of the labels where the normalization keeps it."""
        return self.normalization.densities(outputs[:, : self.bins])

    def validation_scores(
        self, outputs: Float[Tensor, "crystals outputs"], labels: Float[Tensor, "crystals bins"], grid: SpectrumGrid
    ) -> dict[str, float]:
        """Score predicted spectra: unscaled if the network keeps the unit of the labels, else scaled to their sum."""
        loss = self.distance(outputs, self.normalization.normalize(labels))
        scaling = "self" if self.normalization.keeps_unit else "true-sum"
        true = labels.cpu().numpy()
        predicted = SCALINGS[scaling](self.to_densities(outputs.cpu().numpy()), true)
        return {"loss": loss.item(), **score(predicted, true, grid)}
