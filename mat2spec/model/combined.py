"""Electronic spectra as the paper screens with them: one network gives the shape, another the number of states, a third the gap."""

import torch
from jaxtyping import Float
from torch import Tensor

from mat2spec.model.band_gap import GapNetwork
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.mat2spec import Mat2Spec
from mat2spec.structure.graph import GraphBatch


class Combined(SpectrumNetwork):
    """Shape of one network × sum of another (Kong et al., 10.1038/s41467-022-28543-x), and the gap that is cut out of the spectrum.

    The first two read the same vector of a crystal, so that their costly part, the encoder, is computed once.

    Args:
        shape: Predicts shapes; fitted on normalization sum.
        scale: Predicts densities in the unit of the labels; fitted on normalization standard, with the encoder of `shape`.
        gap: Predicts metal or not, and the gap.
    """

    def __init__(self, shape: Mat2Spec, scale: Mat2Spec, gap: GapNetwork) -> None:
        super().__init__(shape.bins, "standard", "mae")
        self.num_outputs = shape.bins + gap.num_outputs
        shape.drop_training_parts()
        scale.drop_training_parts()
        del scale.encoder
        self.shape, self.scale, self.gap = shape, scale, gap

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals outputs"]:
        """Predict densities per atom, then what `GapNetwork` does."""
        crystals = self.shape.encoder(graphs)
        sums = self.scale.normalization.denormalize(self.scale.of_vectors(crystals)).sum(dim=1, keepdim=True)
        return torch.cat([self.shape.of_vectors(crystals) * sums, self.gap.outputs(graphs)], dim=1)
