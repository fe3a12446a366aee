"""The band gap network: whether a crystal is a metal, and its gap, which is cut out of electronic spectra."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from mat2spec.config import GapConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.metrics import gap_scores
from mat2spec.model.base import Network
from mat2spec.model.encoder import CrystalEncoder
from mat2spec.structure.graph import CrystalGraph, GraphBatch


class BandGapNetwork(Network):
    """Mat2Spec's encoder and a small head. Outputs are the probability of a metal, and the gap in eV if it is none.

    Args:
        config: Sizes.
    """

    def __init__(self, config: GapConfig) -> None:
        super().__init__(2)
        self.encoder = CrystalEncoder(config)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.head), nn.Softplus(), nn.Dropout(config.dropout), nn.Linear(config.head, 2)
        )

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals 1"]) -> None:
        """Do nothing: the labels keep their own scale."""

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals 2"]:
        metal, gap = self.head(self.encoder(graphs)).unbind(dim=1)
        return torch.stack([metal.sigmoid(), softplus(gap)], dim=1)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals 1"]) -> dict[str, Tensor]:
        """Return the terms of the loss: cross entropy of metals, and the absolute error of the gap [eV] of non-metals.

        Args:
            graphs: Crystals.
            labels: Band gap of each [eV]; 0 is a metal.
        """
        logits, gap = self.head(self.encoder(graphs)).unbind(dim=1)
        true = labels[:, 0]
        metal = (true <= 0).to(logits)
        error = (softplus(gap) - true).abs() * (1 - metal)
        return {"metal": binary_cross_entropy_with_logits(logits, metal), "gap": error.mean()}

    def validation_scores(
        self, outputs: Float[Tensor, "crystals 2"], labels: Float[Tensor, "crystals 1"], grid: SpectrumGrid
    ) -> dict[str, float]:
        """Score predictions against known gaps with `gap_scores`."""
        return gap_scores(outputs.cpu().numpy(), labels[:, 0].cpu().numpy())
