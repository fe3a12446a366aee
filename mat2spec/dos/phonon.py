"""Phonon densities of states as DFT gives them, brought to the 51 points of PHDOS_GRID and to maximum 1, as the benchmark's labels are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.constants import c

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import SpectrumError

WAVENUMBERS_PER_THZ = 1e12 / (100 * c)
"""[cm⁻¹/THz]"""

BROADENING = 10.0
"""[cm⁻¹] Standard deviation of the Gaussian with which a curve is smoothed: half the distance of the grid's points."""

LOWEST_FREQUENCY = -15.0
"""[cm⁻¹] Imaginary modes, written as negative frequencies, may reach so far down: noise around Γ. Lower ones make a crystal unstable."""

MAX_UNSTABLE = 1e-3
"""Fraction of a crystal's modes that may lie below LOWEST_FREQUENCY, where a broadened curve has its tail."""

MAX_NEGATIVE = 1e-2
"""How far below zero a density may lie, as a fraction of the curve's maximum, and still be taken as zero."""

_STEP = 1.0
"""[cm⁻¹] Points of a curve that are farther apart get others between them, a tenth of the Gaussian's width."""


@dataclass(frozen=True)
class PhononSpectrum:
    """One phonon density of states on PHDOS_GRID.

    Args:
        spectrum: Densities at the points of the grid, maximum 1.
        lowest_frequency: Where the curve begins to have states [cm⁻¹].
        share_above_grid: Fraction of the modes beyond the last point of the grid.
    """

    spectrum: Float64[np.ndarray, " bins"]
    lowest_frequency: float
    share_above_grid: float


def resample_phonons(
    material_id: str, frequencies: Float[np.ndarray, " points"], densities: Float[np.ndarray, " densities"]
) -> PhononSpectrum:
    """Smooth a curve with a Gaussian of BROADENING, take it at the points of PHDOS_GRID and divide by the maximum there.

    The curve is linear between its points. Its scale does not matter: states per THz or per cm⁻¹, per cell or per atom.

    Args:
        material_id: Name of the material in a refusal.
        frequencies: Ascending; imaginary ones are negative [cm⁻¹].
        densities: One for each frequency.

    Raises:
        SpectrumError: If there is no such curve, it has no states on the grid, or the crystal is unstable.
    """
    frequencies, densities = frequencies.astype(np.float64), densities.astype(np.float64)
    _check_curve(material_id, frequencies, densities)
    densities = densities.clip(0)
    weights = densities * np.gradient(frequencies)
    unstable = weights[frequencies < LOWEST_FREQUENCY].sum() / weights.sum()
    lowest = float(frequencies[np.searchsorted(np.cumsum(weights), MAX_UNSTABLE * weights.sum())])
    if unstable > MAX_UNSTABLE:
        rule = f"{unstable:.2%} of the modes lie below {LOWEST_FREQUENCY:g} cm⁻¹; a stable crystal has at most {MAX_UNSTABLE:.2%}"
        raise SpectrumError(material_id, f"{rule}; leave it out, or relax it to a stable structure")
    spectrum = _smoothed(frequencies, densities)
    if not spectrum.max() > 0:
        raise SpectrumError(
            material_id, f"no states on the grid, 0 … {PHDOS_GRID.centers[-1]:g} cm⁻¹; are frequencies in THz?"
        )
    above = weights[frequencies > PHDOS_GRID.centers[-1]].sum() / weights.sum()
    return PhononSpectrum(spectrum / spectrum.max(), lowest, float(above))


def _smoothed(
    frequencies: Float64[np.ndarray, " points"], densities: Float64[np.ndarray, " points"]
) -> Float64[np.ndarray, " bins"]:
    """The curve, convolved with the Gaussian, at the points of the grid; outside its ends it is zero."""
    count = int(np.ceil((frequencies[-1] - frequencies[0]) / _STEP)) + 1
    fine = np.union1d(frequencies, np.linspace(frequencies[0], frequencies[-1], count))
    gaussian = np.exp(-0.5 * ((PHDOS_GRID.points[:, None] - fine) / BROADENING) ** 2)
    return np.trapezoid(gaussian * np.interp(fine, frequencies, densities), fine, axis=1)


def _check_curve(
    material_id: str, frequencies: Float64[np.ndarray, " points"], densities: Float64[np.ndarray, " densities"]
) -> None:
    """Refuse what is no density of states."""
    if len(frequencies) != len(densities) or len(frequencies) < 2:
        raise SpectrumError(
            material_id,
            f"{len(densities)} densities at {len(frequencies)} frequencies; give one for each, and at least two",
        )
    if not (np.isfinite(frequencies).all() and np.isfinite(densities).all()):
        raise SpectrumError(material_id, "a frequency or density is not finite; compute it again")
    if (falls := np.flatnonzero(np.diff(frequencies) <= 0)).size:
        at = int(falls[0])
        raise SpectrumError(
            material_id,
            f"frequencies must ascend, got {frequencies[at]:g} ≥ {frequencies[at + 1]:g} cm⁻¹; sort the curve",
        )
    if densities.min() < -MAX_NEGATIVE * max(densities.max(), 0.0):
        rule = f"a density is {densities.min():g}; noise may reach −{MAX_NEGATIVE:g} of the maximum, which is {densities.max():g}"
        raise SpectrumError(material_id, f"{rule}; use tetrahedra or Gaussians")
    if not densities.max() > 0:
        raise SpectrumError(material_id, "the curve is zero everywhere; compute it again")
