"""A network that predicts one spectrum per atom, from edge vectors and masses; the crystal's spectrum is their mean.

Every atom has three vibrations, spread over all frequencies: its projected spectrum is a distribution, whatever the
crystal. The network predicts that distribution as a mixture of Gaussians on the frequency axis, which may extend beyond
the grid, and only the mean over atoms is compared with a label. So a peak can shift with a bond length or a mass, where
a network with one output per bin must learn each bin separately. Messages are those of PaiNN (Schütt et al.,
arXiv:2102.03150): scalars and vectors, so that angles between bonds enter, and the prediction does not change when the
crystal is rotated. Mixture densities as in Bishop (1994), publications.aston.ac.uk/id/eprint/373.
"""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from mat2spec.config import AdditiveConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.elements import atomic_masses, feature_table
from mat2spec.model.attention_kernels import cache_slices
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.losses import wasserstein
from mat2spec.model.normalization import SumNormalization
from mat2spec.model.scatter import group_mean
from mat2spec.structure.graph import GraphBatch

SHORTEST_DISTANCE = 0.5
"""[Å] Center of the first Gaussian that expands a distance: no atoms are closer."""

HIGHEST_MEAN = 1.3
"""Highest mean of an atom's Gaussians, as a fraction of the grid's end: vibrations of hydrogen are beyond the grid."""

NEIGHBORS = 12
"""Typical number of messages to an atom: the sum of independent ones grows with its square root."""


class Additive(SpectrumNetwork):
    """Mean over atoms of spectra that the atoms' features predict.

    Args:
        config: Sizes.
        cutoff: Distance at which the weight of an edge reaches zero [Å].
        grid: Axis of the spectra.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance between predicted and true shapes.
    """

    features: Tensor

    def __init__(
        self, config: AdditiveConfig, cutoff: float, grid: SpectrumGrid, normalization: str, loss: str
    ) -> None:
        super().__init__(len(grid), normalization, loss)
        self.transport_weight = config.transport_weight
        self.register_buffer("features", _features(), persistent=False)
        self.embed = nn.Linear(self.features.shape[1], config.width)
        self.expand = EdgeExpansion(cutoff, config.gaussians)
        self.layers = nn.ModuleList(
            VectorMessages(config.width, config.gaussians, config.dropout) for _ in range(config.layers)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.head),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.head, 3 * config.peaks),
        )
        self.peaks = Peaks(config.peaks, grid)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Return the terms of the loss, on shapes with the sum of their label: errors count as in the labels' scale."""
        true = self.normalization.normalize(labels)
        shapes = SumNormalization().normalize(self.densities(graphs))
        terms = {"prediction": self.distance(shapes * true.sum(dim=1, keepdim=True), true)}
        if self.transport_weight:
            terms["transport"] = self.transport_weight * wasserstein(shapes, true)
        return terms

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return self.normalization.normalize(self.densities(graphs))

    def densities(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        """Fraction of a crystal's vibrations in each bin: the mean over its atoms."""
        return group_mean(self.atomic_spectra(graphs), graphs.batch, graphs.num_graphs)

    def atomic_spectra(self, graphs: GraphBatch) -> Float[Tensor, "atoms bins"]:
        """Fraction of each atom's vibrations in each bin; the rest, up to 1, is beyond the grid."""
        # distinct distances are a ninth of the edges: the shells of a crystal have few
        distances, length_of = graphs.distances.unique(return_inverse=True)
        lengths = self.expand(distances)
        directions = graphs.vectors / graphs.distances[:, None]
        scalars = self.embed(self.features[graphs.atomic_numbers])
        vectors = scalars.new_zeros(len(scalars), 3, scalars.shape[1])
        for layer in self.layers:
            scalars, vectors = layer(scalars, vectors, lengths, length_of, directions, graphs.edge_index)
        return self.peaks(self.head(scalars))


class Peaks(nn.Module):
    """Gaussians on the axis of the spectrum, integrated over its bins.

    Before training the means are spread evenly over the grid. None is narrower than half a bin, which a label could not
    resolve.

    Args:
        peaks: Gaussians per atom.
        grid: The axis, which begins at zero; nothing is below.
    """

    edges: Tensor
    spread: Tensor

    def __init__(self, peaks: int, grid: SpectrumGrid) -> None:
        super().__init__()
        self.end = HIGHEST_MEAN * grid.edges[-1]
        self.bin = float(grid.widths.max())
        inner = torch.tensor(grid.edges[1:-1], dtype=torch.float32)
        # the first and last bin are whole ones, as labels are densities at the centers of bins
        first = torch.tensor([-1e9])
        last = torch.tensor([grid.edges[-1] + self.bin / 2])
        self.register_buffer("edges", torch.cat([first, inner, last]), persistent=False)
        self.register_buffer("spread", torch.linspace(0.03, 1 / HIGHEST_MEAN, peaks).logit(), persistent=False)

    def forward(self, outputs: Float[Tensor, "atoms outputs"]) -> Float[Tensor, "atoms bins"]:
        weights, means, widths = outputs.chunk(3, dim=1)
        means = self.end * torch.sigmoid(means + self.spread)
        widths = self.bin * (0.5 + 2.5 * softplus(widths - 1))
        below = torch.special.ndtr((self.edges - means[:, :, None]) / widths[:, :, None])
        return (weights.softmax(dim=1)[:, :, None] * below.diff(dim=2)).sum(dim=1)


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
        neighbor, center = edge_index
        atom_terms = self.message(self.norm(scalars)) / NEIGHBORS**0.5
        length_terms = self.filter(lengths)
        to_scalars = torch.zeros_like(scalars)
        to_vectors = torch.zeros_like(vectors)
        for rows in cache_slices(length_of):
            weights = atom_terms.index_select(0, neighbor[rows]) * length_terms.index_select(0, length_of[rows])
            to_scalar, from_vector, to_vector = weights.chunk(3, dim=1)
            passed_on = vectors.index_select(0, neighbor[rows]) * from_vector[:, None]
            to_scalars.index_add_(0, center[rows], to_scalar)
            message = torch.addcmul(passed_on, to_vector[:, None], directions[rows, :, None])
            to_vectors.index_add_(0, center[rows], message)
        return to_scalars, to_vectors


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, 3 * width))


def _features() -> Float[Tensor, "elements features"]:
    """Properties of the elements, the logarithm of the mass, and its inverse root, with which frequencies scale."""
    masses = torch.from_numpy(atomic_masses())
    return torch.cat(
        [torch.from_numpy(feature_table()), masses.log()[:, None] / 3 - 1, 5 * masses.rsqrt()[:, None]], dim=1
    )
