"""The interface of a DFT engine: calculations, limits and failures."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64

from mat2spec.dos.above_grid import ModesAboveGrid
from mat2spec.dos.electronic import resample
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.phonon import PhononSpectrum, resample_phonons
from mat2spec.errors import CalculationError
from mat2spec.structure.crystal import Crystal

Level = Literal["dft", "surrogate"]
"""Whether states or forces come from density functional theory, or from a model fitted to it."""


@dataclass(frozen=True)
class Calculation:
    """One computed spectrum.

    Args:
        crystal: The standardized primitive cell that was computed.
        axis: Energies on the calculation's own zero [eV], or frequencies [cm⁻¹]; ascending.
        densities: States/eV per primitive cell, or states per cm⁻¹ per primitive cell.
        numbers: Further results by column: efermi, vbm, cbm, band_gap, total_energy, bands_cover_ev [eV], or
            total_energy [eV], min_frequency and max_frequency [cm⁻¹].
        engine: Name and version.
        level: DFT or a surrogate.
        settings: Everything that the result depends on besides the crystal.
        cpu_seconds: CPU time of the successful attempt.
    """

    crystal: Crystal
    axis: Float64[np.ndarray, " points"]
    densities: Float64[np.ndarray, " points"]
    numbers: Mapping[str, float]
    engine: str
    level: Level
    settings: Mapping[str, Any]
    cpu_seconds: float

    def on_grid(self, grid: SpectrumGrid) -> Float32[np.ndarray, " bins"]:
        """Resample the curve as labels are: states/eV per primitive cell, or states per cm⁻¹ per atom.

        The integral of a phonon spectrum over the grid is 3 × (1 − share of the modes above it), as for predicted ones.

        Raises:
            SpectrumError: If the curve does not fill the grid, or the crystal is unstable.
        """
        if grid.per_cell:
            name = self.crystal.material_id
            spectrum = resample(name, self.axis, self.densities, self.numbers["vbm"], self.numbers["cbm"]).spectrum
        else:
            resampled = self._phonons()
            spectrum = grid.to_states(resampled.spectrum[None])[0] * (1 - resampled.share_above_grid)
        return spectrum.astype(np.float32)

    def above_grid(self) -> ModesAboveGrid:
        """Return the modes of a phonon spectrum above its grid.

        Raises:
            SpectrumError: If the curve does not fill the grid, or the crystal is unstable.
        """
        resampled = self._phonons()
        return ModesAboveGrid(np.array([resampled.share_above_grid]), np.array([resampled.mean_frequency_above_grid]))

    def _phonons(self) -> PhononSpectrum:
        return resample_phonons(self.crystal.material_id, self.axis, self.densities, self.crystal)


@dataclass(frozen=True)
class Limits:
    """Resources of one attempt.

    Args:
        memory_gb: Data segment of the process [GB].
        seconds: Wall-clock time [s].
        threads: Threads for linear algebra.
    """

    memory_gb: float
    seconds: float
    threads: int = 1


class AttemptError(Exception):
    """A failed attempt that may succeed with safer settings; the message is the reason."""


class PendingError(Exception):
    """A calculation that the user has to run: its inputs are written, and the message is their folder."""


@runtime_checkable
class Engine(Protocol):
    """A code that computes the spectrum of a crystal, or raises the reason why it cannot."""

    grid: str
    """Name of the grid of its spectra."""

    runs_on_cluster: bool
    """Whether it computes on the nodes of the cluster; otherwise it only reads and writes files in the job itself."""

    def check(self) -> None:
        """Check that it can compute on this machine.

        Raises:
            ConfigError: If it is not installed; the message says how to install it.
        """

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Return everything that the result depends on besides the crystal, including the name of the engine."""

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse a crystal that it cannot describe, before anything is computed.

        Raises:
            CalculationError: With the elements and the reason.
        """

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Compute one crystal, in a process of its own.

        Args:
            crystal: A primitive cell.
            limits: Resources of the process.
            safer: Use settings that converge more reliably, and more slowly.

        Raises:
            AttemptError: If this attempt failed, but another may succeed.
            CalculationError: If no attempt can succeed.
            PendingError: If the user has to run it, and it is not finished.
        """


def calculation_key(crystal: Crystal, settings: Mapping[str, Any]) -> str:
    """Return the name of a calculation: the same for the same crystal and settings, whatever the material's id."""
    text = f"{crystal.content_hash}\n{json.dumps(settings, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_size(crystal: Crystal, max_sites: int, max_volume: float) -> None:
    """Refuse a primitive cell with too many sites, or too large a volume [Å³].

    Raises:
        CalculationError: With the size and the limit.
    """
    sizes = (
        ("sites", len(crystal), max_sites, "--limits.max-sites"),
        ("Å³", crystal.volume, max_volume, "--limits.max-volume"),
    )
    for unit, size, limit, option in sizes:
        if size > limit:
            raise CalculationError(
                crystal.material_id, f"the primitive cell has {size:.0f} {unit}, more than {limit:g}; raise {option}"
            )
