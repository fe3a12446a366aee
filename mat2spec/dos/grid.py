"""The axis of a spectrum: bin centers and edges with their unit, and integrals over it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from mat2spec.errors import CheckpointError

Spectra = Float[np.ndarray, "crystals bins"]

MODES_PER_ATOM = 3
"""A crystal has three vibrations per atom: the integral of its phonon density of states."""


@dataclass(frozen=True)
class SpectrumGrid:
    """The bins of a spectrum.

    Every label table, checkpoint and result stores its grid, so that no number is ever read on the wrong axis.

    Args:
        name: Kind of spectrum: "phdos" or "edos".
        unit: Unit of the axis, for example "cm^-1"; densities are states per this unit.
        centers: Positions of the densities.
        edges: Bin edges, one more than centers; a density times its bin width is a number of states.

    Raises:
        ValueError: If edges do not ascend, or a center is outside its bin.
    """

    name: str
    unit: str
    centers: tuple[float, ...]
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.centers) + 1:
            raise ValueError(
                f"A grid of {len(self.centers)} bins has {len(self.centers) + 1} edges, got {len(self.edges)}."
            )
        for low, center, high in zip(self.edges, self.centers, self.edges[1:], strict=False):
            if not low < high:
                raise ValueError(f"A grid must ascend, got {low} ≥ {high} {self.unit}.")
            if not low <= center <= high:
                raise ValueError(f"A center must be in its bin, got {center} outside {low} … {high} {self.unit}.")

    @classmethod
    def from_points(cls, name: str, unit: str, points: np.ndarray) -> "SpectrumGrid":
        """Make the grid of a curve sampled at points: the sum over bins is then its trapezoid integral.

        The inner edges are halfway between points; the outer edges are the first and last point.
        """
        edges = np.concatenate([points[:1], (points[1:] + points[:-1]) / 2, points[-1:]])
        return cls(name, unit, tuple(points.tolist()), tuple(edges.tolist()))

    @cached_property
    def points(self) -> Float64[np.ndarray, " bins"]:
        """Bin centers."""
        return np.array(self.centers)

    @cached_property
    def widths(self) -> Float64[np.ndarray, " bins"]:
        """Bin widths."""
        return np.diff(self.edges)

    def __len__(self) -> int:
        return len(self.centers)

    @property
    def per_cell(self) -> bool:
        """Whether densities are per primitive cell, as those of electrons, or per atom, as those of phonons."""
        return self.name == "edos"

    def integrate(self, densities: Spectra) -> Float[np.ndarray, " crystals"]:
        """Integrate each spectrum over the grid: its number of states."""
        return densities @ self.widths

    def to_states(self, densities: Spectra) -> Spectra:
        """Scale densities to states per unit of the grid and atom.

        An atom has three vibrations: the integral of its phonon spectrum is 3; a spectrum of zeros stays zero. The
        number of electronic states is the network's to predict: those densities stay unchanged.
        """
        if self.per_cell:
            return densities
        total = self.integrate(densities)
        return densities * (MODES_PER_ATOM / np.where(total > 0, total, 1.0))[:, None]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for a checkpoint's card or a run's record."""
        return {"name": self.name, "unit": self.unit, "centers": list(self.centers), "edges": list(self.edges)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "SpectrumGrid":
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: If a part is missing or the grid is impossible.
        """
        try:
            return cls(record["name"], record["unit"], tuple(record["centers"]), tuple(record["edges"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the grid in the card is damaged: {error}") from None


PHDOS_GRID = SpectrumGrid.from_points("phdos", "cm^-1", np.arange(0.0, 1001.0, 20.0))
"""The phonon benchmark's grid: 51 points, 0, 20 … 1000 cm⁻¹ (Chen et al., 10.1002/advs.202004214)."""

_EDOS_EDGES = np.linspace(-4.0, 4.0, 129)

EDOS_GRID = SpectrumGrid(
    "edos", "eV", tuple(((_EDOS_EDGES[1:] + _EDOS_EDGES[:-1]) / 2).tolist()), tuple(_EDOS_EDGES.tolist())
)
"""128 bins of 62.5 meV with the band gap cut out: −4 … 0 eV below the VBM, 0 … 4 eV above the CBM.

For a metal both are the Fermi level (Kong et al., 10.1038/s41467-022-28543-x). All edges are exact in binary.
"""

GRIDS = {grid.name: grid for grid in (PHDOS_GRID, EDOS_GRID)}
"""The grids that models predict on, by name."""
