"""A network whose atoms each give a spectrum: vectors of edges and masses go in, and the crystal's spectrum is the mean of its atoms'.

Every atom has three vibrations, shared among all frequencies: its projected spectrum is a distribution, whatever the crystal. The network
predicts that distribution as a mixture of Gaussians on the frequency axis, which may reach beyond the grid, and only the mean over atoms is
compared with a label. A peak can so move with a bond length or a mass, where a network with one output per bin must learn each bin anew.
Messages are those of PaiNN (Schütt et al., arXiv:2102.03150): scalars and vectors, so that angles between bonds are seen, and the
prediction does not change when the crystal is turned. Mixture densities as in Bishop (1994), publications.aston.ac.uk/id/eprint/373.
"""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.utils import scatter

from mat2spec.config import AdditiveConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.elements import atomic_masses, feature_table
from mat2spec.model.attention_kernels import pieces
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.losses import wasserstein
from mat2spec.model.normalization import SumNormalization
from mat2spec.structure.graph import GraphBatch

SHORTEST = 0.5
"""[Å] First of the Gaussians that expand a distance: no atoms are closer."""

REACH = 1.3
"""Highest mean of an atom's Gaussians, as a share of the grid's end: the highest vibrations, those of hydrogen, lie beyond it."""

NEIGHBORS = 12
"""Messages to an atom: independent ones add to the root of their number."""


class Additive(SpectrumNetwork):
    """The network.

    Args:
        config: Sizes.
        cutoff: Where the weight of an edge has fallen to zero [Å].
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
        self.draw = Peaks(config.peaks, grid)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Compare shapes that have the sum of their label, so that an error counts as much as it does in the labels' own scale."""
        true = self.normalization.normalize(labels)
        shapes = SumNormalization().normalize(self.densities(graphs))
        terms = {"prediction": self.distance(shapes * true.sum(dim=1, keepdim=True), true)}
        if self.transport_weight:
            terms["transport"] = self.transport_weight * wasserstein(shapes, true)
        return terms

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return self.normalization.normalize(self.densities(graphs))

    def densities(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        """Share of a crystal's vibrations in each bin: the mean of its atoms'."""
        return scatter(self.atomic_spectra(graphs), graphs.batch, dim_size=graphs.num_graphs, reduce="mean")

    def atomic_spectra(self, graphs: GraphBatch) -> Float[Tensor, "atoms bins"]:
        """Share of each atom's vibrations in each bin; what is missing to 1 lies beyond the grid."""
        distances, length_of = graphs.distances.unique(
            return_inverse=True
        )  # a ninth of the edges: shells of a crystal repeat few
        lengths, directions = self.expand(distances), graphs.vectors / graphs.distances[:, None]
        scalars = self.embed(self.features[graphs.atomic_numbers])
        vectors = scalars.new_zeros(len(scalars), 3, scalars.shape[1])
        for layer in self.layers:
            scalars, vectors = layer(scalars, vectors, lengths, length_of, directions, graphs.edge_index)
        return self.draw(self.head(scalars))


class Peaks(nn.Module):
    """Gaussians on the axis of the spectrum, integrated over its bins.

    Without training the means are spread evenly over the grid. None is narrower than half a bin, which the label could not show.

    Args:
        peaks: Gaussians of an atom.
        grid: The axis, which begins at zero; nothing lies below.
    """

    edges: Tensor
    spread: Tensor

    def __init__(self, peaks: int, grid: SpectrumGrid) -> None:
        super().__init__()
        self.end, self.bin = REACH * grid.edges[-1], float(grid.widths.max())
        inner = torch.tensor(grid.edges[1:-1], dtype=torch.float32)
        outer = (
            torch.tensor([-1e9]),
            torch.tensor([grid.edges[-1] + self.bin / 2]),
        )  # whole bins: labels are densities at their centres
        self.register_buffer("edges", torch.cat([outer[0], inner, outer[1]]), persistent=False)
        self.register_buffer("spread", torch.linspace(0.03, 1 / REACH, peaks).logit(), persistent=False)

    def forward(self, outputs: Float[Tensor, "atoms outputs"]) -> Float[Tensor, "atoms bins"]:
        weights, means, widths = outputs.chunk(3, dim=1)
        means = self.end * torch.sigmoid(means + self.spread)
        widths = self.bin * (0.5 + 2.5 * softplus(widths - 1))
        below = torch.special.ndtr((self.edges - means[:, :, None]) / widths[:, :, None])
        return (weights.softmax(dim=1)[:, :, None] * below.diff(dim=2)).sum(dim=1)


class EdgeExpansion(nn.Module):
    """A distance as its overlap with Gaussians, which fades to zero at the cutoff."""

    centers: Tensor

    def __init__(self, cutoff: float, size: int) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("centers", torch.linspace(SHORTEST, cutoff, size), persistent=False)

    def forward(self, distances: Float[Tensor, " edges"]) -> Float[Tensor, "edges gaussians"]:
        step = self.centers[1] - self.centers[0]
        fading = (1 + torch.cos(pi * (distances / self.cutoff).clamp(max=1))) / 2
        return torch.exp(-(((distances[:, None] - self.centers) / step) ** 2) / 2) * fading[:, None]


class VectorMessages(nn.Module):
    """Update scalars and vectors of each atom from its neighbours, then from each other.

    Args:
        width: Scalar features, and vectors, of an atom.
        gaussians: Numbers that expand a distance.
        dropout: Of the update of the scalars.
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
        scalars, vectors = scalars + to_scalars, vectors + to_vectors
        left, right = self.mix(vectors).chunk(2, dim=2)
        length = (right.square().sum(dim=1) + 1e-6).sqrt()  # its gradient stays finite at zero
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
        """Sum of the messages to each atom, of the size of one."""
        neighbor, center = edge_index
        of_atoms, of_lengths = self.message(self.norm(scalars)) / NEIGHBORS**0.5, self.filter(lengths)
        to_scalars, to_vectors = torch.zeros_like(scalars), torch.zeros_like(vectors)
        for piece in pieces(length_of):
            weights = of_atoms.index_select(0, neighbor[piece]) * of_lengths.index_select(0, length_of[piece])
            to_scalar, from_vector, to_vector = weights.chunk(3, dim=1)
            carried = vectors.index_select(0, neighbor[piece]) * from_vector[:, None]
            to_scalars.index_add_(0, center[piece], to_scalar)
            to_vectors.index_add_(
                0, center[piece], torch.addcmul(carried, to_vector[:, None], directions[piece, :, None])
            )
        return to_scalars, to_vectors


def _perceptron(wide: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(wide, width), nn.SiLU(), nn.Linear(width, 3 * width))


def _features() -> Float[Tensor, "elements features"]:
    """Properties of the elements, and the mass twice: its logarithm, and the root to which a frequency is inverse."""
    masses = torch.from_numpy(atomic_masses())
    return torch.cat(
        [torch.from_numpy(feature_table()), masses.log()[:, None] / 3 - 1, 5 * masses.rsqrt()[:, None]], dim=1
    )
