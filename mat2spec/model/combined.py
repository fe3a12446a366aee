"""Electronic spectra for screening, from three networks: shape, number of states, and band gap."""

import torch
from jaxtyping import Float
from torch import Tensor

from mat2spec.model.band_gap import BandGapNetwork
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.mat2spec import Mat2Spec
from mat2spec.structure.graph import GraphBatch


class Combined(SpectrumNetwork):
    """Shape of one network × sum of another (Kong et al., 10.1038/s41467-022-28543-x), and the band gap of a third.

    The first two share the encoder, their expensive part, so that it runs once.

    Args:
        shape: Predicts shapes; trained with normalization sum.
        scale: Predicts densities in the unit of the labels; trained with normalization standard and the encoder of
            `shape`.
        gap: Predicts whether a crystal is a metal, and its gap.
    """

    def __init__(self, shape: Mat2Spec, scale: Mat2Spec, gap: BandGapNetwork) -> None:
        super().__init__(shape.bins, "standard", "mae")
        self.num_outputs = shape.bins + gap.num_outputs
        shape.drop_training_parts()
        scale.drop_training_parts()
        del scale.encoder
        self.shape, self.scale, self.gap = shape, scale, gap

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals outputs"]:
        """Predict densities per atom, followed by the outputs of the gap network."""
        crystals = self.shape.encoder(graphs)
        densities = self.scale.normalization.denormalize(self.scale.decode(crystals))
        sums = densities.sum(dim=1, keepdim=True)
        return torch.cat([self.shape.decode(crystals) * sums, self.gap.outputs(graphs)], dim=1)
