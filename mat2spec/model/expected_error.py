"""The head that predicts the error to be expected of a spectrum, in a network that an ensemble was distilled into.

One network has no members that could disagree. What their disagreement was for a crystal, it learns from the ensemble:
on the features of the finished network, so that its spectra stay as they are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from mat2spec.config import AdditiveConfig
from mat2spec.model.scatter import group_mean

_SMALL = -3.0
"""Argument of softplus before training: most atoms add little to the error."""


class ExpectedErrorHead(nn.Module):
    """Mean absolute error to be expected of a crystal's spectrum, from the features of its atoms.

    The estimate is the mean of what the atoms add; the error is a line of it, as that of an ensemble is of its
    disagreement.

    Args:
        width: Features of an atom.
        hidden: Hidden neurons.
    """

    calibration: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        self.register_buffer("calibration", torch.tensor([0.0, 1.0]))  # error = first + second · estimate

    def estimates(
        self, features: Float[Tensor, "atoms width"], batch: Tensor, num_graphs: int
    ) -> Float[Tensor, "crystals 1"]:
        """Return the estimate of each crystal, in units of the mean of the labels."""
        return group_mean(softplus(self.layers(features) + _SMALL), batch, num_graphs)

    def forward(
        self, features: Float[Tensor, "atoms width"], batch: Tensor, num_graphs: int
    ) -> Float[Tensor, "crystals 1"]:
        """Return the expected error of each crystal [states per unit of the grid and atom]."""
        return self.calibration[0] + self.calibration[1] * self.estimates(features, batch, num_graphs)


def with_expected_error(model: Any, hidden: int) -> Any:
    """Give an additive network such a head with so many hidden neurons, or none; other networks have none."""
    return model.model_copy(update={"expected_error": hidden}) if isinstance(model, AdditiveConfig) else model


def without_expected_error(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the rest of a network."""
    return {key: value for key, value in weights.items() if not key.startswith("expected_error.")}
