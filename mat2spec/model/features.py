"""An encoder that learns chemistry from another model: it predicts features that the other one gives to atoms.

Distillation (Hinton et al., arXiv:1503.02531): a potential that has seen a million calculations describes an atom by
what its energy depends on. A network that predicts the description from the structure can be fitted to fewer spectra,
and costs nothing more than without it.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.config import FeaturesConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.metrics import feature_scores
from mat2spec.model.base import Network
from mat2spec.model.normalization import StandardNormalization
from mat2spec.model.scatter import group_mean
from mat2spec.model.vector_network import VectorEncoder
from mat2spec.structure.graph import CrystalGraph, GraphBatch


class AtomFeatures(Network):
    """Features of atoms, each in units of its standard deviation over the training rows.

    A linear layer reads them off the encoder, so that the encoder itself must hold them. A label has the features of
    one atom after another, padded with NaN to the largest crystal of its table; outputs are means over the atoms.

    Args:
        config: Sizes.
        cutoff: Distance at which the weight of an edge reaches zero [Å].
    """

    def __init__(self, config: FeaturesConfig, cutoff: float) -> None:
        super().__init__(config.features)
        self.encoder = VectorEncoder(config, cutoff)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.features))
        self.normalization = StandardNormalization(config.features)

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals padded"]) -> None:
        """Fit the scale of the features to all atoms."""
        self.normalization.fit(self._by_atom(labels))

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals features"]:
        return group_mean(self.head(self.encoder(graphs)), graphs.batch, graphs.num_graphs)

    def forward(self, graphs: GraphBatch, labels: Float[Tensor, "crystals padded"]) -> dict[str, Tensor]:
        """Return the loss: the mean absolute error of the scaled features of atoms."""
        predicted = self.head(self.encoder(graphs))
        return {"features": (predicted - self.normalization.normalize(self._by_atom(labels))).abs().mean()}

    def means(self, labels: Float[Tensor, "crystals padded"]) -> Float[Tensor, "crystals features"]:
        """Means over the atoms of labels, scaled."""
        by_crystal = labels.view(len(labels), -1, self.num_outputs)
        return self.normalization.normalize(by_crystal.nanmean(dim=1))

    def validation_scores(
        self, outputs: Float[Tensor, "crystals features"], labels: Float[Tensor, "crystals padded"], grid: SpectrumGrid
    ) -> dict[str, float]:
        """Score means over the atoms of a crystal: mean absolute error, and R² over all features."""
        return feature_scores(outputs.cpu().numpy(), self.means(labels).cpu().numpy())

    def _by_atom(self, labels: Float[Tensor, "crystals padded"]) -> Float[Tensor, "atoms features"]:
        """Features of all atoms, in the order of the atoms of a batch."""
        atoms = labels.view(-1, self.num_outputs)
        return atoms[atoms[:, 0].isfinite()]
