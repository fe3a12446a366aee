"""Networks on edge vectors, with messages of scalars and vectors as in PaiNN (Schütt et al., arXiv:2102.03150).

Angles between bonds enter through the vectors, and what is read off the scalars does not change when the crystal is
rotated.
"""

from abc import abstractmethod
from math import pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.config import AdditiveConfig, ProjectedConfig, VectorConfig
from mat2spec.elements import atomic_masses, feature_table
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.messages import sum_messages
from mat2spec.model.scatter import group_mean
from mat2spec.structure.graph import GraphBatch

SHORTEST_DISTANCE = 0.5
"""[Å] Center of the first Gaussian that expands a distance: no atoms are closer."""

NEIGHBORS = 12
"""Typical number of messages to an atom: the sum of independent ones grows with its square root."""


class VectorEncoder(nn.Module):
    """From elements, distances and directions to features of atoms that know their surroundings.

    Args:
        config: Sizes.
        cutoff: Distance at which the weight of an edge reaches zero [Å].
    """

    features: Tensor

    def __init__(self, config: VectorConfig, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("features", _features(), persistent=False)
        self.embed = nn.Linear(self.features.shape[1], config.width)
        self.expand = EdgeExpansion(cutoff, config.gaussians)
        self.layers = nn.ModuleList(
            VectorMessages(config.width, config.gaussians, config.dropout) for _ in range(config.layers)
        )

    def forward(self, graphs: GraphBatch) -> Float[Tensor, "atoms width"]:
        """Scalar features of each atom after all messages."""
        # distinct distances are a ninth of the edges: the shells of a crystal have few
        distances, length_of = graphs.distances.unique(return_inverse=True)
        lengths = self.expand(distances)
        directions = graphs.vectors / graphs.distances[:, None]
        scalars = self.embed(self.features[graphs.atomic_numbers])
        vectors = scalars.new_zeros(len(scalars), 3, scalars.shape[1])
        for layer in self.layers:
            scalars, vectors = layer(scalars, vectors, lengths, length_of, directions, graphs.edge_index)
        return scalars


class VectorNetwork(SpectrumNetwork):
    """A network whose spectra are means over atoms of what the atoms' features predict.

    Args:
        config: Sizes.
        cutoff: Distance at which the weight of an edge reaches zero [Å].
        bins: Bins of the spectrum.
        normalization: Name of the scale of its outputs.
        loss: Name of the distance between predicted and true spectra on that scale.
    """

    def __init__(
        self, config: AdditiveConfig | ProjectedConfig, cutoff: float, bins: int, normalization: str, loss: str
    ) -> None:
        super().__init__(bins, normalization, loss)
        self.transport_weight = config.transport_weight
        self.encoder = VectorEncoder(config, cutoff)
        self.register_load_state_dict_pre_hook(_rename_old_weights)

    @abstractmethod
    def atomic_spectra(self, graphs: GraphBatch) -> Float[Tensor, "atoms bins"]:
        """Predict what each atom contributes, before it is divided by the number of atoms."""

    def densities(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        """Mean over the atoms of each crystal."""
        return group_mean(self.atomic_spectra(graphs), graphs.batch, graphs.num_graphs)

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return self.normalization.normalize(self.densities(graphs))


def _rename_old_weights(_module: nn.Module, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Rename weights of checkpoints that were written when the encoder was no module of its own."""
    for part in ("embed.", "layers."):
        for key in [key for key in weights if key.startswith(prefix + part)]:
            weights[f"{prefix}encoder.{key.removeprefix(prefix)}"] = weights.pop(key)


class EdgeExpansion(nn.Module):
    """Expand a distance in Gaussians that fade to zero at the cutoff."""

    centers: Tensor

    def __init__(self, cutoff: float, size: int) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("centers", torch.linspace(SHORTEST_DISTANCE, cutoff, size), persistent=False)

    def forward(self, distances: Float[Tensor, " edges"]) -> Float[Tensor, "edges gaussians"]:
        step = self.centers[1] - self.centers[0]
        envelope = (1 + torch.cos(pi * (distances / self.cutoff).clamp(max=1))) / 2
        return torch.exp(-(((distances[:, None] - self.centers) / step) ** 2) / 2) * envelope[:, None]


class VectorMessages(nn.Module):
    """Update scalars and vectors of each atom from its neighbors, then from each other.

    Args:
        width: Number of scalars, and of vectors, of an atom.
        gaussians: Numbers that a distance is expanded in.
        dropout: Dropout rate of the scalars' update.
    """

    def __init__(self, width: int, gaussians: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.message = _perceptron(width, width)
        self.filter = nn.Linear(gaussians, 3 * width)
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.update = _perceptron(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        scalars: Float[Tensor, "atoms width"],
        vectors: Float[Tensor, "atoms 3 width"],
        lengths: Float[Tensor, "lengths gaussians"],
        length_of: Tensor,
        directions: Float[Tensor, "edges 3"],
        edge_index: Tensor,
    ) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3 width"]]:
        to_scalars, to_vectors = self.messages(scalars, vectors, lengths, length_of, directions, edge_index)
        scalars = scalars + to_scalars
        vectors = vectors + to_vectors
        left, right = self.mix(vectors).chunk(2, dim=2)
        length = (right.square().sum(dim=1) + 1e-6).sqrt()  # the gradient stays finite at zero
        shift, overlap, stretch = self.update(torch.cat([scalars, length], dim=1)).chunk(3, dim=1)
        scalars = scalars + self.dropout(shift + overlap * (left * right).sum(dim=1))
        return scalars, vectors + stretch[:, None] * left

    def messages(
        self,
        scalars: Tensor,
        vectors: Tensor,
        lengths: Tensor,
        length_of: Tensor,
        directions: Tensor,
        edge_index: Tensor,
    ) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3 width"]]:
        """Sum the messages to each atom, scaled so that the sum is about as large as one message."""
        atom_terms = self.message(self.norm(scalars)) / NEIGHBORS**0.5
        return sum_messages(atom_terms, self.filter(lengths), vectors, directions, length_of, edge_index)


def make_head(config: AdditiveConfig | ProjectedConfig, outputs: int) -> nn.Sequential:
    """Make the layers from the features of an atom to what is read off them."""
    return nn.Sequential(
        nn.LayerNorm(config.width),
        nn.Linear(config.width, config.head),
        nn.SiLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.head, outputs),
    )


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, 3 * width))


def _features() -> Float[Tensor, "elements features"]:
    """Properties of the elements, the logarithm of the mass, and its inverse root, with which frequencies scale."""
    masses = torch.from_numpy(atomic_masses())
    return torch.cat(
        [torch.from_numpy(feature_table()), masses.log()[:, None] / 3 - 1, 5 * masses.rsqrt()[:, None]], dim=1
    )
