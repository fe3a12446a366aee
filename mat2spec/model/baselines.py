"""Baselines without training, which a network has to beat: the mean spectrum, and means by element."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mat2spec.elements import COMPOSITION_SIZE
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.encoder import atomic_fractions
from mat2spec.structure.graph import CrystalGraph, GraphBatch


class MeanSpectrum(SpectrumNetwork):
    """The mean of the training spectra, whatever the crystal.

    Args:
        bins: Bins of the spectrum.
        normalization: Name of the scale on which the mean is taken.
        loss: Name of the distance with which it is compared.
    """

    mean: Tensor

    def __init__(self, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins, normalization, loss)
        self.register_buffer("mean", torch.zeros(bins))

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        super().fit(graphs, labels)
        self.mean.copy_(self.normalization.normalize(labels).mean(dim=0))

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return self.mean.expand(graphs.num_graphs, -1)


class ElementalSpectra(SpectrumNetwork):
    """Spectra of the elements, weighted by their fractions in the crystal.

    An element's spectrum is the mean over training crystals of that element alone. Without such crystals, it is the
    mean over the crystals that contain the element, weighted by its fraction; without these, the mean over all
    crystals.

    Args:
        bins: Bins of the spectrum.
        normalization: Name of the scale on which means are taken.
        loss: Name of the distance with which they are compared.
    """

    elements: Tensor

    def __init__(self, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins, normalization, loss)
        self.register_buffer("elements", torch.zeros(COMPOSITION_SIZE, bins))

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        super().fit(graphs, labels)
        shapes = self.normalization.normalize(labels)
        fractions = _fractions(GraphBatch.from_graphs(graphs))
        pure = (fractions == 1).to(fractions)
        weights = torch.where(pure.sum(dim=0) > 0, pure, fractions)
        weights = torch.where(weights.sum(dim=0) > 0, weights, 1.0)
        self.elements.copy_((weights / weights.sum(dim=0)).T @ shapes)

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return _fractions(graphs) @ self.elements


def _fractions(graphs: GraphBatch) -> Float[Tensor, "crystals elements"]:
    return atomic_fractions(graphs.atomic_numbers, graphs.batch, graphs.num_graphs)
