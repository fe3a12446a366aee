"""The scale on which a network learns spectra, and the way back to states."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from mat2spec.errors import CheckpointError
from mat2spec.spectrum import MODES_PER_ATOM, Spectra, SpectrumGrid


class SumNormalization:
    """The densities of a spectrum add to 1: only its shape is learnt, and a softmax over bins predicts it.

    A spectrum of zeros has no shape and stays zero.
    """

    name = "sum"

    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Scale labels to the shapes that are learnt."""
        total = labels.sum(dim=1, keepdim=True)
        return labels / total.where(total > 0, 1.0)

    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Map the network's free outputs to shapes."""
        return outputs.softmax(dim=1)

    def to_states(self, shapes: Spectra, grid: SpectrumGrid) -> Spectra:
        """Scale phonon shapes to states per cm⁻¹ per atom: their integral over the grid is 3."""
        return shapes * (MODES_PER_ATOM / grid.integrate(shapes))[:, None]

    def to_json(self) -> dict[str, Any]:
        """Give what a checkpoint must hold; this normalisation has no fitted numbers."""
        return {"name": self.name}


def normalization_from_json(record: dict[str, Any]) -> SumNormalization:
    """Read what `to_json` wrote.

    Raises:
        CheckpointError: If the name is unknown.
    """
    if record.get("name") != SumNormalization.name:
        raise CheckpointError(f"unknown normalization {record.get('name')!r}; known: {SumNormalization.name}")
    return SumNormalization()
