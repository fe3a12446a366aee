"""Training speed of Mat2Spec with W[h ⊕ e] computed per atom and length, compared with the same layers edge by edge.

    python benchmarks/training.py [--repeats 3] [--threads 1]

Both train in turn on the 1,192 labeled crystals, from the same weights; one step of each gives the same loss.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from mat2spec.config import TrainConfig, load_config
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.model.attention import NeighborAttention
from mat2spec.model.scatter import group_softmax, group_sum
from mat2spec.train.loop import Training

HOME = Path(__file__).parents[1]


class EdgeByEdge(NeighborAttention):
    """The published code's formulation: both concatenations are built and multiplied for every edge."""

    def forward(self, atoms: Tensor, lengths: Tensor, edge_index: Tensor, length_of: Tensor) -> Tensor:
        (neighbor, center), edges = edge_index, lengths[length_of]
        centers, neighbors = (softplus(torch.cat([atoms[end], edges], 1) @ self.weight) for end in (center, neighbor))
        both = torch.cat([part.unflatten(1, (self.heads, -1)) for part in (centers, neighbors)], dim=2)
        logits = softplus((both * torch.cat([*self.attention], dim=1)).sum(-1))
        weights = group_softmax(softplus(self.logit_norm(logits)), center, len(atoms))
        messages = (neighbors.unflatten(1, (self.heads, -1)) * weights[..., None]).mean(1)
        return group_sum(messages, center, len(atoms)) + self.bias


def edge_by_edge(training: Training) -> Training:
    """Replace the layers of a network by those that work edge by edge, with the same weights."""
    for layer in training.network.modules():
        if isinstance(layer, NeighborAttention):
            layer.__class__ = EdgeByEdge
    return training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_config(TrainConfig, HOME / "configs/phdos-sum-kl.yaml")
    splits = read_labels(HOME / config.data.table, config.data, config.graph, PHDOS_GRID)
    splits = replace(splits, valid=splits.valid.take(np.arange(1)))  # validation is not timed
    ours, by_edge = (
        Training(config, splits, torch.device("cpu")),
        edge_by_edge(Training(config, splits, torch.device("cpu"))),
    )
    check_same_loss(config, splits)
    seconds: dict[str, list[float]] = {"ours": [], "edge by edge": []}
    for _ in range(arguments.repeats):
        for name, training in zip(seconds, (ours, by_edge), strict=True):
            before = training.seconds
            training.run_epoch()
            seconds[name].append(training.seconds - before)
    medians = {name: statistics.median(measured) for name, measured in seconds.items()}
    speeds = ", ".join(f"{name} {len(splits.train) / median:.0f} crystals/s" for name, median in medians.items())
    print(f"{speeds}; ratio {medians['edge by edge'] / medians['ours']:.2f}")


def check_same_loss(config: TrainConfig, splits: LabeledSplits) -> None:
    """Compare the losses of one epoch of one batch."""
    small = replace(splits, train=splits.train.take(np.arange(config.training.batch_size)))
    ways: tuple[Training, ...] = (
        Training(config, small, torch.device("cpu")),
        edge_by_edge(Training(config, small, torch.device("cpu"))),
    )
    first, second = [training.run_epoch()["train_loss"] for training in ways]
    np.testing.assert_allclose(first, second, rtol=1e-5)


if __name__ == "__main__":
    main()
