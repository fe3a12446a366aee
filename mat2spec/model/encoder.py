"""Encode the graph of a crystal as one vector: attention layers and composition-weighted pooling."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot, softplus

from mat2spec.config import GapConfig, GATGNNConfig, Mat2SpecConfig
from mat2spec.elements import COMPOSITION_SIZE, feature_table
from mat2spec.model.attention import BatchNorm, NeighborAttention
from mat2spec.model.scatter import group_mean, group_softmax, group_sum
from mat2spec.structure.graph import GraphBatch

EXPANSION_CUTOFF = 8.0
"""[Å] Center of the last Gaussian that expands a distance; the network is almost blind to longer ones."""


class GaussianExpansion(nn.Module):
    """Expand a distance in evenly spaced Gaussians, exp(−(d−μ)²/Δ²).

    Without ½ in the exponent and without normalization, as in the published code.
    """

    centers: Tensor

    def __init__(self, cutoff: float, size: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(0, cutoff, size), persistent=False)

    def forward(self, distances: Float[Tensor, " edges"]) -> Float[Tensor, "edges gaussians"]:
        step = self.centers[1] - self.centers[0]
        return torch.exp(-(((distances[:, None] - self.centers) / step) ** 2))


class CrystalEncoder(nn.Module):
    """Encode a crystal as a vector that is the same for every choice of its cell.

    Args:
        config: Sizes.
        mean_of_weighted: Also divide the weighted sum of the atoms by their number, as the published code does: the
            vector then shrinks with the size of the cell.
    """

    features: Tensor

    def __init__(self, config: Mat2SpecConfig | GATGNNConfig | GapConfig, mean_of_weighted: bool = False) -> None:
        super().__init__()
        table = torch.from_numpy(feature_table())
        self.register_buffer("features", table, persistent=False)
        self.embed_atoms = nn.Linear(table.shape[1], config.width)
        self.expand = GaussianExpansion(EXPANSION_CUTOFF, config.gaussians)
        self.embed_edges = nn.Linear(config.gaussians, config.width)
        self.layers = nn.ModuleList(NeighborAttention(config.width, config.heads) for _ in range(config.layers))
        self.norms = nn.ModuleList(BatchNorm(config.width) for _ in range(config.layers))
        self.pool = CompositionPooling(config.width, mean_of_weighted)

    def forward(self, graphs: GraphBatch) -> Float[Tensor, "crystals width"]:
        atoms = self.embed_atoms(self.features[graphs.atomic_numbers])
        distances, length_of = graphs.distances.unique(return_inverse=True)
        lengths = leaky_relu(self.embed_edges(self.expand(distances)), 0.2)
        for attend, norm in zip(self.layers, self.norms, strict=True):
            atoms = softplus(norm(attend(atoms, lengths, graphs.edge_index, length_of)))
        return self.pool(atoms, graphs)


class CompositionPooling(nn.Module):
    """Sum of a crystal's atoms, weighted by attention to each atom together with the composition.

    The weights of a crystal add up to 1.
    """

    def __init__(self, width: int, mean_of_weighted: bool) -> None:
        super().__init__()
        self.pool = group_mean if mean_of_weighted else group_sum
        self.score = nn.Sequential(nn.Linear(width + COMPOSITION_SIZE, 32), nn.Softplus(), nn.Linear(32, 1))

    def forward(self, atoms: Float[Tensor, "atoms width"], graphs: GraphBatch) -> Float[Tensor, "crystals width"]:
        fractions = atomic_fractions(graphs.atomic_numbers, graphs.batch, graphs.num_graphs)[graphs.batch]
        scores = self.score(torch.cat([atoms, fractions], dim=1))
        weights = group_softmax(scores, graphs.batch, graphs.num_graphs)
        return self.pool(weights * atoms, graphs.batch, graphs.num_graphs)


def atomic_fractions(
    atomic_numbers: Int[Tensor, " atoms"], batch: Int[Tensor, " atoms"], num_graphs: int
) -> Float[Tensor, "crystals elements"]:
    """Composition of each crystal as fractions of the elements H … Lr."""
    elements = one_hot(atomic_numbers - 1, COMPOSITION_SIZE).to(torch.get_default_dtype())
    return group_mean(elements, batch, num_graphs)
