"""What an engine computes of one crystal, within which limits, and how it fails."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64

from mat2spec.dos.electronic import resample
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.phonon import resample_phonons
from mat2spec.errors import CalculationError
from mat2spec.structure.crystal import Crystal

Level = Literal["dft", "surrogate"]
"""Whether states or forces are those of density functional theory, or of a model fitted to it."""


@dataclass(frozen=True)
class Calculation:
    """One computed spectrum.

    Args:
        crystal: The standardised primitive cell that was computed.
        axis: Energies on the calculation's own zero [eV], or frequencies [cm⁻¹]; ascending.
        densities: States/eV per primitive cell, or states per cm⁻¹ per primitive cell.
        numbers: What else came out, by column: efermi, vbm, cbm, band_gap, total_energy, bands_cover_ev [eV], or total_energy [eV],
            min_frequency and max_frequency [cm⁻¹].
        engine: Name and version.
        level: Whether it is DFT.
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

    def on_grid(self, grid: SpectrumGrid) -> Float32[np.ndarray, " bins"]:
        """Bring the curve to the grid of a checkpoint, as labels are: states/eV per primitive cell, or states per cm⁻¹ per atom.

        The integral of a phonon spectrum over the grid is 3, as that of a predicted one, whatever lies beyond the grid.

        Raises:
            SpectrumError: If the curve does not fill the grid, or the crystal is unstable.
        """
        name = self.crystal.material_id
        if grid.per_cell:
            spectrum = resample(name, self.axis, self.densities, self.numbers["vbm"], self.numbers["cbm"]).spectrum
        else:
            spectrum = grid.to_states(resample_phonons(name, self.axis, self.densities).spectrum[None])[0]
        return spectrum.astype(np.float32)


@dataclass(frozen=True)
class Limits:
    """What one attempt may take.

    Args:
        memory_gb: Data of the process [GB].
        seconds: Wall-clock time [s].
        threads: Of its linear algebra.
    """

    memory_gb: float
    seconds: float
    threads: int = 1


class AttemptError(Exception):
    """An attempt that gave no spectrum, where another one, by safer settings, may; the text says why."""


class PendingError(Exception):
    """Inputs are written for somebody else to run, and there is no result yet; the text is their folder."""


@runtime_checkable
class Engine(Protocol):
    """A code that computes spectra: a crystal goes in, a raw curve or the reason why there is none comes out."""

    grid: str
    """Name of the axis of its spectra."""

    runs_on_cluster: bool
    """Whether it computes, on any node; else it only reads and writes files where the job runs."""

    def check(self) -> None:
        """Make sure that it can compute here.

        Raises:
            ConfigError: If it is not installed; the message says how to get it.
        """

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that goes in besides the crystal, name of the engine included."""

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse what it cannot describe, before anything is computed.

        Raises:
            CalculationError: Naming the elements and the reason.
        """

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Compute one crystal, in a process of its own.

        Args:
            crystal: A primitive cell.
            limits: What the process may take.
            safer: By settings that converge more surely, and more slowly.

        Raises:
            AttemptError: If this attempt gave no spectrum, and another may.
            CalculationError: If none can.
            PendingError: If it is for somebody else to compute, and not finished.
        """


def calculation_key(crystal: Crystal, settings: Mapping[str, Any]) -> str:
    """Name of a calculation: the same for the same crystal and settings, whatever the material is called."""
    text = f"{crystal.content_hash}\n{json.dumps(settings, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_size(crystal: Crystal, max_sites: int, max_volume: float) -> None:
    """Keep to the limits of sites and of the volume [Å³].

    Raises:
        CalculationError: Naming both numbers.
    """
    sizes = (("sites", len(crystal), max_sites, "--max-sites"), ("Å³", crystal.volume, max_volume, "--max-volume"))
    for unit, size, limit, option in sizes:
        if size > limit:
            raise CalculationError(
                crystal.material_id, f"the primitive cell has {size:.0f} {unit}, more than {limit:g}; raise {option}"
            )
