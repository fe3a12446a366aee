"""Vibrations above a phonon grid: their share of all modes of a crystal, and their mean frequency."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

SHARE_OF_TAIL = 1e-3
"""Share of the modes from which a computed curve exceeds the grid: less is the tail of a broadened curve."""


@dataclass(frozen=True)
class ModesAboveGrid:
    """What a phonon spectrum does not show, because its grid ends.

    Args:
        shares: Fraction of each crystal's modes above the last point of the grid: the integral of its spectrum over the
            grid is 3 × (1 − share) per atom.
        frequencies: Mean frequency of these modes [cm⁻¹]; it says little where the share is negligible.
        threshold: Share from which a crystal exceeds the grid.
    """

    shares: Float[np.ndarray, " crystals"]
    frequencies: Float[np.ndarray, " crystals"]
    threshold: float = SHARE_OF_TAIL

    @property
    def exceed(self) -> Bool[np.ndarray, " crystals"]:
        """Whether each crystal has modes above the grid."""
        return self.shares > self.threshold

    def take(self, rows: Int[np.ndarray, " rows"]) -> "ModesAboveGrid":
        """Select crystals by number."""
        return ModesAboveGrid(self.shares[rows], self.frequencies[rows], self.threshold)
