"""Fits of heads on the features of a finished network, which stays as it is."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mat2spec.config import HeadConfig
from mat2spec.model.additive import Additive
from mat2spec.structure.graph import CrystalGraph, GraphBatch

AnyHead = TypeVar("AnyHead", bound=nn.Module)

RowLoss = Callable[[AnyHead, Float[Tensor, "atoms width"], Int[Tensor, " atoms"], np.ndarray], Tensor]
"""Loss of a head on some rows: features of their atoms, to which of them each atom belongs, and their numbers."""


def fit_head(
    make: Callable[[], AnyHead],
    loss: RowLoss[AnyHead],
    features: Sequence[Float[Tensor, "_ width"]],
    config: HeadConfig,
    seed: int,
) -> AnyHead:
    """Make a head and fit it; its weights depend on the seed alone.

    Args:
        make: Makes the head.
        loss: Its loss.
        features: Of the atoms of each crystal (`atom_features`).
        config: Length and rate.
        seed: Of the first weights and of the order of the rows.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = make()
        optimizer = torch.optim.AdamW(head.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        steps = -(-len(features) // config.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.epochs * steps)
        for epoch in range(config.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(features))
            for rows in np.array_split(order, steps):
                sizes = torch.tensor([len(features[row]) for row in rows])
                crystal = torch.arange(len(rows)).repeat_interleave(sizes)
                optimizer.zero_grad()
                loss(head, torch.cat([features[row] for row in rows]), crystal, rows).backward()
                optimizer.step()
                schedule.step()
    return head.eval()


def atom_features(network: Additive, graphs: Sequence[CrystalGraph], batch: int = 32) -> list[Float[Tensor, "_ width"]]:
    """Features of the atoms of each crystal."""
    features: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(graphs), batch):
            joined = GraphBatch.from_graphs(graphs[start : start + batch])
            atoms = network.encoder(joined)
            features += atoms.split(torch.bincount(joined.batch, minlength=joined.num_graphs).tolist())
    return features
