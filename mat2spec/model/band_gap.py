"""The band gap network: whether a crystal is a metal, and its gap, which is cut out of electronic spectra."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from mat2spec.config import AnyGapConfig, VectorGapConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.metrics import gap_scores
from mat2spec.model.base import Network
from mat2spec.model.encoder import CrystalEncoder
from mat2spec.model.scatter import group_mean
from mat2spec.model.vector_network import VectorEncoder
from mat2spec.structure.graph import CrystalGraph, GraphBatch


class BandGapNetwork(Network):
    """An encoder and a small head. Outputs are the probability of a metal, and the gap in eV if it is none.

    Args:
        config: Sizes, of Mat2Spec's encoder or of the one on edge vectors, whose atoms are averaged.
        cutoff: Distance at which the weight of an edge reaches zero [Å], for edge vectors.
    """

    def __init__(self, config: AnyGapConfig, cutoff: float) -> None:
        super().__init__(2)
        self.encoder: nn.Module
        if isinstance(config, VectorGapConfig):
            self.encoder, self.is_per_atom = VectorEncoder(config, cutoff), True
        else:
            self.encoder, self.is_per_atom = CrystalEncoder(config), False
        self.head = nn.Sequential(
            nn.Linear(config.width, config.head), nn.Softplus(), nn.Dropout(config.dropout), nn.Linear(config.head, 2)
        )

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals 1"]) -> None:
        """Do nothing: the labels keep their own scale."""

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals 2"]:
        metal, gap = self._raw(graphs).unbind(dim=1)
        return torch.stack([metal.sigmoid(), softplus(gap)], dim=1)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals 1"]) -> dict[str, Tensor]:
        """Return the terms of the loss: cross entropy of metals, and the absolute error of the gap [eV] of non-metals.

        Args:
            graphs: Crystals.
            labels: Band gap of each [eV]; 0 is a metal.
        """
        logits, gap = self._raw(graphs).unbind(dim=1)
        true = labels[:, 0]
        metal = (true <= 0).to(logits)
        error = (softplus(gap) - true).abs() * (1 - metal)
        return {"metal": binary_cross_entropy_with_logits(logits, metal), "gap": error.mean()}

    def _raw(self, graphs: GraphBatch) -> Float[Tensor, "crystals 2"]:
        """Logit of a metal, and the gap before it is made positive."""
        raw: Tensor = self.head(self.encoder(graphs))
        return group_mean(raw, graphs.batch, graphs.num_graphs) if self.is_per_atom else raw

    def validation_scores(
        self, outputs: Float[Tensor, "crystals 2"], labels: Float[Tensor, "crystals 1"], grid: SpectrumGrid
    ) -> dict[str, float]:
        """Score predictions against known gaps with `gap_scores`."""
        return gap_scores(outputs.cpu().numpy(), labels[:, 0].cpu().numpy())
