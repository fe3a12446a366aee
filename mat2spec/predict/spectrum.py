"""One predicted spectrum: its numbers, its row of the predictions table, and its forms in pymatgen and matplotlib."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64

from mat2spec.dos.grid import SpectrumGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pymatgen.electronic_structure.dos import Dos
    from pymatgen.phonon.dos import PhononDos


@dataclass(frozen=True, repr=False)
class Spectrum:
    """The predicted density of states of one structure.

    Args:
        grid: Its axis.
        row: Its row of the predictions table, by column: the spectrum, and what follows from it, for
            example heat_capacity_300K of phonons, vb_gap_lower and band_gap_pred of electrons.
    """

    grid: SpectrumGrid
    row: dict[str, Any]

    def __repr__(self) -> str:
        return f"Spectrum({self.material_id}, {self.formula}, {self.grid.name})"

    @property
    def material_id(self) -> str:
        """Name of the structure; its formula if it came without one."""
        return self.row["material_id"]

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return self.row["formula_pretty"]

    @cached_property
    def densities(self) -> Float32[np.ndarray, " bins"]:
        """Density at each point, as stored in single precision.

        Phonons: states per cm⁻¹ per atom, integral 3 × (1 − share_above_grid). Electrons: states/eV per primitive cell.
        """
        return np.array(self.row["spectrum"], np.float32)

    @property
    def spread(self) -> float | None:
        """Expected mean absolute error of this spectrum, in the unit of its densities; None without an ensemble."""
        return self.row["spread"]

    @property
    def points(self) -> Float64[np.ndarray, " bins"]:
        """Points of the axis [phonons: cm⁻¹; electrons: eV]."""
        return self.grid.points

    @property
    def frequencies(self) -> Float64[np.ndarray, " bins"]:
        """Frequencies of a phonon spectrum [cm⁻¹]."""
        if self.grid.per_cell:
            raise AttributeError("an electronic spectrum has energies (eV), not frequencies; both kinds have points")
        return self.grid.points

    @property
    def energies(self) -> Float64[np.ndarray, " bins"]:
        """Energies of an electronic spectrum [eV]: below the VBM negative, above the CBM positive, the gap cut out."""
        if not self.grid.per_cell:
            raise AttributeError("a phonon spectrum has frequencies (cm⁻¹), not energies; both kinds have points")
        return self.grid.points

    def to_pymatgen(self) -> "Dos | PhononDos":
        """Convert to pymatgen's Dos (electrons; the predicted band gap is put back) or PhononDos, for its plotters.

        Raises:
            SpectrumError: If an electronic model predicts no band gap.
        """
        from mat2spec.dos.to_pymatgen import to_pymatgen  # a second to import

        return to_pymatgen(self.row, self.grid)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Plot the spectrum; for electrons, shade the gaps near the band edges (vb_gap and cb_gap of the row).

        Args:
            ax: Axes to draw on; default: those of a new figure.

        Raises:
            MissingExtraError: If matplotlib is not installed.
        """
        from mat2spec.dos.plots import plot_spectrum

        names = ("vb_gap", "cb_gap") if self.grid.per_cell else ()
        gaps = [(self.row[f"{name}_lower"], self.row[f"{name}_upper"]) for name in names]
        gaps = [(lower, upper) for lower, upper in gaps if lower is not None]
        return plot_spectrum(self.densities, self.grid, title=f"{self.formula} ({self.material_id})", gaps=gaps, ax=ax)
