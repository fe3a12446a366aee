"""A network that predicts one spectrum per atom, from edge vectors and masses; the crystal's spectrum is their mean.

Every atom has three vibrations, spread over all frequencies: its projected spectrum is a distribution, whatever the
crystal. The network predicts that distribution as a mixture of Gaussians on the frequency axis, which may extend beyond
the grid, and only the mean over atoms is compared with a label. So a peak can shift with a bond length or a mass, where
a network with one output per bin must learn each bin separately. Mixture densities as in Bishop (1994),
publications.aston.ac.uk/id/eprint/373.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from mat2spec.config import AdditiveConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.model.above_grid import OUTPUTS, AboveGridHead
from mat2spec.model.expected_error import ExpectedErrorHead
from mat2spec.model.losses import wasserstein
from mat2spec.model.normalization import SumNormalization
from mat2spec.model.scatter import group_mean
from mat2spec.model.vector_network import VectorNetwork, make_head
from mat2spec.structure.graph import GraphBatch

HIGHEST_MEAN = 1.3
"""Highest mean of an atom's Gaussians, as a fraction of the grid's end: vibrations of hydrogen are beyond the grid."""


class Additive(VectorNetwork):
    """Mean over atoms of spectra that the atoms' features predict.

    Args:
        config: Sizes.
        cutoff: Distance at which the weight of an edge reaches zero [Å].
        grid: Axis of the spectra.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance between predicted and true shapes.
    """

    def __init__(
        self, config: AdditiveConfig, cutoff: float, grid: SpectrumGrid, normalization: str, loss: str
    ) -> None:
        super().__init__(config, cutoff, len(grid), normalization, loss)
        self.head = make_head(config, 3 * config.peaks)
        self.peaks = Peaks(config.peaks, grid)
        if config.above_grid:
            self.above_grid = AboveGridHead(config.width, config.above_grid, grid.centers[-1])
            self.predicts_above_grid = True
            self.num_outputs += OUTPUTS
        if config.expected_error:
            self.expected_error = ExpectedErrorHead(config.width, config.expected_error)
            self.predicts_error = True
            self.num_outputs += 1

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals bins"]) -> dict[str, Tensor]:
        """Return the terms of the loss, on shapes with the sum of their label: errors count as in the labels' scale."""
        true = self.normalization.normalize(labels)
        shapes = SumNormalization().normalize(self.densities(graphs))
        terms = {"prediction": self.distance(shapes * true.sum(dim=1, keepdim=True), true)}
        if self.transport_weight:
            terms["transport"] = self.transport_weight * wasserstein(shapes, true)
        return terms

    def atomic_spectra(self, graphs: GraphBatch) -> Float[Tensor, "atoms bins"]:
        """Fraction of each atom's vibrations in each bin; the rest, up to 1, is beyond the grid."""
        return self.peaks(self.head(self.encoder(graphs)))

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals outputs"]:
        """Predict a shape, and what the heads that were added to the network predict.

        These are the share above the grid and its product with the mean frequency there, and the expected error.
        """
        features = self.encoder(graphs)
        spectra = group_mean(self.peaks(self.head(features)), graphs.batch, graphs.num_graphs)
        outputs = [self.normalization.normalize(spectra)]
        if self.predicts_above_grid:
            outputs.append(group_mean(self.above_grid(features), graphs.batch, graphs.num_graphs))
        if self.predicts_error:
            outputs.append(self.expected_error(features, graphs.batch, graphs.num_graphs))
        return torch.cat(outputs, dim=1)


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
