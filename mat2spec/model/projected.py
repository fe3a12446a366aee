"""A network that predicts one electronic spectrum per atom; the crystal's is their sum, as of projected densities.

Every atom contributes states, never takes them away: its part is a non-negative density on the energy axis, whose zeros
are the band edges of the crystal. Only the sum is compared with a label, so the parts need not be those that a
calculation would project. Unlike a distribution, they keep their number of states, so that one network predicts shape
and scale.
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from mat2spec.config import ProjectedConfig
from mat2spec.model.losses import wasserstein
from mat2spec.model.vector_network import VectorNetwork, make_head
from mat2spec.structure.graph import GraphBatch

EMPTY = -1.0
"""Bias of the outputs before training: softplus of it is 0.31 states/eV per atom, about half the mean of the labels."""


class ProjectedDOS(VectorNetwork):
    """Mean over atoms of densities of states [states/eV per atom].

    Args:
        config: Sizes.
        cutoff: Distance at which the weight of an edge reaches zero [Å].
        bins: Bins of the spectrum.
        normalization: Name of the scale of its outputs.
        loss: Name of the distance between predicted and true spectra on that scale.
    """

    def __init__(self, config: ProjectedConfig, cutoff: float, bins: int, normalization: str, loss: str) -> None:
        super().__init__(config, cutoff, bins, normalization, loss)
        self.head = make_head(config, bins)
        nn.init.constant_(cast(nn.Linear, self.head[-1]).bias, EMPTY)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Return the terms of the loss: the distance of the densities, and the transport between their shapes."""
        densities = self.densities(graphs)
        true = self.normalization.normalize(labels)
        terms = {"prediction": self.distance(self.normalization.normalize(densities), true)}
        if self.transport_weight:
            terms["transport"] = self.transport_weight * wasserstein(densities, labels)
        return terms

    def atomic_spectra(self, graphs: GraphBatch) -> Float[Tensor, "atoms bins"]:
        """What each atom contributes."""
        return softplus(self.head(self.encoder(graphs)))
