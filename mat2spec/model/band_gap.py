"""Metal or not, and the band gap: what an electronic spectrum with its gap cut out does not tell."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from mat2spec.config import GapConfig
from mat2spec.graph import CrystalGraph, GraphBatch
from mat2spec.metrics import mean_absolute_error
from mat2spec.model.encoder import CrystalEncoder
from mat2spec.model.network import Network
from mat2spec.spectrum import SpectrumGrid


class GapNetwork(Network):
    """Mat2Spec's encoder and a small head. Its outputs are the probability of a metal, and the gap in eV if it is none.

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
        """Nothing is needed."""

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals 2"]:
        metal, gap = self.head(self.encoder(graphs)).unbind(dim=1)
        return torch.stack([metal.sigmoid(), softplus(gap)], dim=1)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals 1"]) -> dict[str, Tensor]:
        """Compute the terms of the loss: cross entropy of metals, and the absolute error of the gap [eV] of all others.

        Args:
            graphs: Crystals.
            labels: Band gap of each [eV]; 0 is a metal.
        """
        logits, gap = self.head(self.encoder(graphs)).unbind(dim=1)
        true = labels[:, 0]
        metal = (true <= 0).to(logits)
        error = (softplus(gap) - true).abs() * (1 - metal)
        return {"metal": binary_cross_entropy_with_logits(logits, metal), "gap": error.mean()}

    def judge(self, outputs: Float[Tensor, "crystals 2"], labels: Float[Tensor, "crystals 1"], grid: SpectrumGrid) -> dict[str, float]:
        """Score predictions against known gaps, as `gap_scores`."""
        return gap_scores(outputs.cpu().numpy(), labels[:, 0].cpu().numpy())


def most_likely_gap(outputs: Float[np.ndarray, "crystals 2"]) -> Float[np.ndarray, " crystals"]:
    """Gap that is expected of each crystal [eV]: none where a metal is more likely than not."""
    return np.where(outputs[:, 0] > 0.5, 0, outputs[:, 1])


def gap_scores(outputs: Float[np.ndarray, "crystals 2"], true: Float[np.ndarray, " crystals"]) -> dict[str, float]:
    """Score probabilities of metals and gaps against known gaps.

    Args:
        outputs: Probability of a metal, and gap if it is none [eV].
        true: Known gaps [eV]; 0 is a metal.

    Returns:
        `roc_auc` (a metal has the higher probability than a non-metal; NaN if all are of one kind), `accuracy` at probability ½, `mae` of
        the most likely gap over all crystals [eV], and `mae_of_gapped` over those that have one.
    """
    metal, predicted = true <= 0, most_likely_gap(outputs)
    return {
        "roc_auc": roc_auc(outputs[:, 0], metal),
        "accuracy": float(((outputs[:, 0] > 0.5) == metal).mean()),
        "mae": mean_absolute_error(predicted, true),
        "mae_of_gapped": mean_absolute_error(predicted[~metal], true[~metal]) if not metal.all() else float("nan"),
    }


def roc_auc(scores: Float[np.ndarray, " crystals"], positive: np.ndarray) -> float:
    """Area under the receiver operating characteristic: how often a positive has the higher score, ties counting half."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
