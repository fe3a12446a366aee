"""The head that predicts how many of an atom's vibrations lie above a phonon grid, and its record in a checkpoint.

The labels that networks of shapes are trained on end with the grid, so they cannot teach this: the head is fitted
afterwards, to whole spectra, on the features of a trained network, whose shapes stay as they are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from mat2spec.config import AdditiveConfig, EnsembleConfig
from mat2spec.config.base import Section
from mat2spec.dos.above_grid import ModesAboveGrid

OUTPUTS = 2
"""Numbers that a network with this head predicts after its spectrum: share, and share × mean frequency [cm⁻¹].

Both are means over atoms and over the members of an ensemble; mean frequencies are not."""

_FEW = -3.0
"""Logit of the share of an atom before training: most atoms have no vibrations above the grid."""


class AboveGridHead(nn.Module):
    """Share of an atom's vibrations above the grid, and their mean frequency, from the features of the atom.

    Args:
        width: Features of an atom.
        hidden: Hidden neurons.
        end: Last point of the grid [cm⁻¹].
    """

    def __init__(self, width: int, hidden: int, end: float) -> None:
        super().__init__()
        self.end = end
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, OUTPUTS)
        )

    def forward(self, features: Float[Tensor, "atoms width"]) -> Float[Tensor, "atoms 2"]:
        """Return share and share × mean frequency [cm⁻¹] of each atom."""
        share, frequency = self.layers(features).unbind(dim=1)
        share = torch.sigmoid(share + _FEW)
        return torch.stack([share, share * self.end * (1 + softplus(frequency))], dim=1)


def with_heads(model: Any, hidden: int) -> Any:
    """Give additive networks, alone or in an ensemble, heads with so many hidden neurons; other networks have none."""
    match model:
        case AdditiveConfig():
            return model.model_copy(update={"above_grid": hidden})
        case EnsembleConfig(member=AdditiveConfig() as member):
            return model.model_copy(update={"member": with_heads(member, hidden)})
    return model


def without_heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the rest of a network."""
    return {key: value for key, value in weights.items() if "above_grid." not in key}


def modes_above_grid(outputs: Float[np.ndarray, "members crystals 2"], end: float, threshold: float) -> ModesAboveGrid:
    """Mean of the members' outputs.

    Args:
        outputs: Share, and share × mean frequency [cm⁻¹].
        end: Last point of the grid [cm⁻¹], the mean frequency of no modes.
        threshold: Share from which a crystal exceeds the grid.
    """
    shares, moments = outputs.mean(axis=0).T
    frequencies = np.divide(moments, shares, out=np.full_like(shares, end), where=shares > 0)
    return ModesAboveGrid(shares, frequencies, threshold)


def disagreement_of_shares(outputs: Float[np.ndarray, "members crystals 2"]) -> Float[np.ndarray, " crystals"]:
    """Mean absolute deviation of the members' shares from their mean."""
    shares = outputs[:, :, 0]
    return np.abs(shares - shares.mean(axis=0)).mean(axis=0)


class AboveGridRecord(Section):
    """Origin of the heads of a checkpoint, and how their predictions are read."""

    network: str = Field(description="SHA-256 of the card of the checkpoint that they were added to")
    labels: str = Field(description="table of labels")
    labels_fingerprint: str = Field(description="SHA-256 of ids, structures, labels and split")
    rows: dict[str, int] = Field(description="rows of each part")
    settings: dict[str, Any] = Field(description="settings of the fit")
    threshold: float = Field(gt=0, lt=1, description="share from which a crystal exceeds the grid")
    error_per_disagreement: float = Field(
        ge=0, description="expected error of a share = this × mean absolute deviation of the members + …"
    )
    error_per_share: float = Field(ge=0, description="… this × the share")
    validation: dict[str, float] = Field(description="scores on the validation rows")
    test: dict[str, float] = Field(description="scores on the test rows")
    seconds: float = Field(description="wall time")
    environment: dict[str, str] = Field(description="versions, commit and hardware")
