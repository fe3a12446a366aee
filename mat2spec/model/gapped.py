"""Electronic spectra for screening, from a network that keeps the number of states and one for the band gap."""

import torch
from jaxtyping import Float
from torch import Tensor

from mat2spec.model.band_gap import BandGapNetwork
from mat2spec.model.base import SpectrumNetwork
from mat2spec.structure.graph import GraphBatch


class Gapped(SpectrumNetwork):
    """Spectra of one network, or of an ensemble, and the band gap of another.

    Args:
        spectrum: Predicts densities in the unit of the labels.
        gap: Predicts whether a crystal is a metal, and its gap.
        normalization: Name of the scale of the densities.
        loss: Name of the distance with which they were trained.
    """

    def __init__(self, spectrum: SpectrumNetwork, gap: BandGapNetwork, normalization: str, loss: str) -> None:
        super().__init__(spectrum.bins, normalization, loss)
        self.num_outputs = spectrum.bins + gap.num_outputs
        self.spectrum, self.gap = spectrum, gap

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals outputs"]:
        """Predict densities per atom, followed by the outputs of the gap network."""
        return torch.cat([self.spectrum.outputs(graphs), self.gap.outputs(graphs)], dim=1)
