"""GATGNN, a baseline of the paper: graph attention, composition-weighted pooling and two linear maps to the spectrum.

Louis et al., Phys. Chem. Chem. Phys. 22, 18141 (2020), 10.1039/D0CP01474E. Mat2Spec's encoder is this network's; only
the sizes differ.
"""

from jaxtyping import Float
from torch import Tensor, nn

from mat2spec.config import GATGNNConfig
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.encoder import CrystalEncoder
from mat2spec.structure.graph import GraphBatch


class GATGNN(SpectrumNetwork):
    """GATGNN with one output per bin instead of one property.

    Args:
        config: Sizes.
        bins: Bins of the spectrum.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance between predicted and true shapes.
    """

    def __init__(self, config: GATGNNConfig, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins, normalization, loss)
        self.encoder = CrystalEncoder(config)
        self.head = nn.Sequential(nn.Linear(config.width, config.width), nn.Softplus(), nn.Linear(config.width, bins))

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return self.normalization.activate(self.head(self.encoder(graphs)))
