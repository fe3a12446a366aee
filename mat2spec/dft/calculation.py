"""What an engine computes of one crystal, what it is asked, and how it fails."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float32, Float64

from mat2spec.crystal import Crystal
from mat2spec.data.materials import content_hash
from mat2spec.dos import resample
from mat2spec.errors import CalculationError, SpectrumError
from mat2spec.spectrum import EDOS_GRID, SpectrumGrid

Level = Literal["dft", "surrogate"]

PHONON_WIDTH = 10.0
"""[cm⁻¹] Standard deviation of the Gaussian that brings phonon spectra to the grid, as in the bundled table of phonondb."""


@dataclass(frozen=True)
class Calculation:
    """One computed spectrum.

    Args:
        crystal: The standardised primitive cell that was computed.
        axis: Energies on the calculation's own zero [eV], or frequencies [cm⁻¹]; uniform.
        densities: States/eV per primitive cell, or states per cm⁻¹ per primitive cell.
        numbers: What else came out, by column: efermi, vbm, cbm, band_gap, total_energy [eV], bands_cover_ev, min_frequency [cm⁻¹] …
        engine: Name and version.
        level: Whether the forces or states are those of DFT or of a model fitted to it.
        settings: All that went in besides the crystal.
        cpu_seconds: Of the attempt that succeeded.
    """

    crystal: Crystal
    axis: Float64[np.ndarray, " points"]
    densities: Float64[np.ndarray, " points"]
    numbers: Mapping[str, float]
    engine: str
    level: Level
    settings: Mapping[str, Any]
    cpu_seconds: float

    def on(self, grid: SpectrumGrid) -> Float32[np.ndarray, " bins"]:
        """Bring the curve to the grid of a checkpoint: states/eV per primitive cell, or states per cm⁻¹ per atom.

        Raises:
            SpectrumError: If the curve does not fill the grid.
        """
        if grid == EDOS_GRID:
            vbm, cbm = self.numbers["vbm"], self.numbers["cbm"]
            return resample(self.crystal.material_id, self.axis, self.densities, vbm, cbm).spectrum.astype(np.float32)
        distance = (np.array(grid.points)[:, None] - self.axis) / PHONON_WIDTH
        weights = np.exp(-(distance**2) / 2) / (PHONON_WIDTH * np.sqrt(2 * np.pi))
        spectrum = np.trapezoid(weights * self.densities, self.axis, axis=1) / len(self.crystal)
        if not spectrum.any():
            raise SpectrumError(self.crystal.material_id, "no states on the grid of the checkpoint")
        return np.maximum(spectrum, 0).astype(np.float32)


@dataclass(frozen=True)
class Limits:
    """What one attempt may take.

    Args:
        memory_gb: Address space of the process [GB].
        seconds: Wall-clock time [s].
    """

    memory_gb: float
    seconds: float


class Engine(Protocol):
    """A code that computes spectra: structure and settings in, a raw curve or an error out."""

    grid: str
    """Name of the axis of its spectra."""

    level: Level

    def check(self) -> None:
        """Make sure that it can compute here.

        Raises:
            ConfigError: If it is not installed; the message says how to get it.
        """

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that goes in besides the crystal, name of the engine included."""

    def calculate(self, crystal: Crystal, limits: Limits, folder: Path) -> Calculation:
        """Compute one crystal, in a process of its own, with a second attempt by safer settings.

        Raises:
            CalculationError: If neither attempt gave a spectrum, or none can.
            PendingError: If it is for somebody else to compute, and not finished.
        """


class PendingError(Exception):
    """Inputs are written, and nobody has run them yet."""


def key_of(crystal: Crystal, settings: Mapping[str, Any]) -> str:
    """Name of a calculation: the same for the same crystal and settings, whatever the material is called."""
    text = f"{content_hash(crystal)}\n{json.dumps(settings, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def refuse_large(crystal: Crystal, max_sites: int) -> None:
    """Keep to the limit of sites.

    Raises:
        CalculationError: Naming both numbers.
    """
    if len(crystal) > max_sites:
        raise CalculationError(
            crystal.material_id, f"the primitive cell has {len(crystal)} sites, more than {max_sites}; raise --max_sites"
        )
