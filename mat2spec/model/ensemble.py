"""Ensembles: the mean of several trainings of one network, whose disagreement estimates the error."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.model.base import SpectrumNetwork
from mat2spec.structure.graph import GraphBatch


class Ensemble(SpectrumNetwork):
    """Mean of several trained networks (Lakshminarayanan et al., arXiv:1612.01474).

    Args:
        members: Networks on the same grid and scale.
        bins: Bins of the spectrum.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance with which they were trained.
    """

    members: Any
    calibration: Tensor

    def __init__(self, members: Iterable[SpectrumNetwork], bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins, normalization, loss)
        self.members = nn.ModuleList(members)
        self.num_outputs = self.members[0].num_outputs
        self.predicts_above_grid = self.members[0].predicts_above_grid
        self.register_buffer("calibration", torch.tensor([0.0, 1.0]))  # expected error = first + second · disagreement

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals outputs"]:
        return torch.stack([member.outputs(graphs) for member in self.members]).mean(dim=0)
