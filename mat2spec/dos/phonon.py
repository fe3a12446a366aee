"""Resample phonon densities of states from DFT to the 51 points of PHDOS_GRID, with maximum 1 as in the benchmark."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.constants import c

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import SpectrumError

WAVENUMBERS_PER_THZ = 1e12 / (100 * c)
"""[cm⁻¹/THz]"""

BROADENING = 10.0
"""[cm⁻¹] Standard deviation of the Gaussian that smooths a curve: half the distance of the grid's points."""

LOWEST_FREQUENCY = -15.0
"""[cm⁻¹] Imaginary modes (negative frequencies) down to here are noise around Γ; lower ones make a crystal unstable."""

MAX_UNSTABLE = 1e-3
"""Fraction of a crystal's modes that may be below LOWEST_FREQUENCY: the tail of a broadened curve."""

MAX_NEGATIVE = 1e-2
"""Negative densities up to this fraction of the curve's maximum are noise and count as zero."""

_STEP = 1.0
"""[cm⁻¹] Points that are farther apart get more between them by interpolation: a tenth of the Gaussian's width."""


@dataclass(frozen=True)
class PhononSpectrum:
    """One phonon density of states on PHDOS_GRID.

    Args:
        spectrum: Densities at the points of the grid, maximum 1.
        lowest_frequency: Frequency below which MAX_UNSTABLE of the modes lie: the onset of the curve [cm⁻¹].
        share_above_grid: Fraction of the modes beyond the last point of the grid.
    """

    spectrum: Float64[np.ndarray, " bins"]
    lowest_frequency: float
    share_above_grid: float


def resample_phonons(
    material_id: str, frequencies: Float[np.ndarray, " points"], densities: Float[np.ndarray, " densities"]
) -> PhononSpectrum:
    """Smooth a curve with a Gaussian of BROADENING, evaluate it on PHDOS_GRID and divide by its maximum there.

    The curve is linear between its points. Its scale does not matter: states per THz or per cm⁻¹, per cell or per atom.

    Args:
        material_id: Name of the material in errors.
        frequencies: Ascending; imaginary ones are negative [cm⁻¹].
        densities: One for each frequency.

    Raises:
        SpectrumError: If the curve is invalid or has no states on the grid, or the crystal is unstable.
    """
    frequencies = frequencies.astype(np.float64)
    densities = densities.astype(np.float64)
    _check_curve(material_id, frequencies, densities)
    densities = densities.clip(0)
    weights = densities * np.gradient(frequencies)
    unstable = weights[frequencies < LOWEST_FREQUENCY].sum() / weights.sum()
    lowest = float(frequencies[np.searchsorted(np.cumsum(weights), MAX_UNSTABLE * weights.sum())])
    if unstable > MAX_UNSTABLE:
        limit = f"a stable crystal has at most {MAX_UNSTABLE:.2%}"
        rule = f"{unstable:.2%} of the modes are below {LOWEST_FREQUENCY:g} cm⁻¹; {limit}"
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
    """Convolve the curve, zero beyond its ends, with the Gaussian; return it at the points of the grid."""
    count = int(np.ceil((frequencies[-1] - frequencies[0]) / _STEP)) + 1
    fine = np.union1d(frequencies, np.linspace(frequencies[0], frequencies[-1], count))
    gaussian = np.exp(-0.5 * ((PHDOS_GRID.points[:, None] - fine) / BROADENING) ** 2)
    return np.trapezoid(gaussian * np.interp(fine, frequencies, densities), fine, axis=1)


def _check_curve(
    material_id: str, frequencies: Float64[np.ndarray, " points"], densities: Float64[np.ndarray, " densities"]
) -> None:
    """Check that frequencies and densities form a density of states."""
    if len(frequencies) != len(densities) or len(frequencies) < 2:
        raise SpectrumError(
            material_id,
            f"{len(densities)} densities at {len(frequencies)} frequencies; give one for each, and at least two",
        )
    if not (np.isfinite(frequencies).all() and np.isfinite(densities).all()):
        raise SpectrumError(material_id, "a frequency or density is not finite; compute it again")
    if (falls := np.flatnonzero(np.diff(frequencies) <= 0)).size:
        i = int(falls[0])
        raise SpectrumError(
            material_id,
            f"frequencies must ascend, got {frequencies[i]:g} ≥ {frequencies[i + 1]:g} cm⁻¹; sort the curve",
        )
    if densities.min() < -MAX_NEGATIVE * max(densities.max(), 0.0):
        limit = f"noise may reach −{MAX_NEGATIVE:g} of the maximum, which is {densities.max():g}"
        rule = f"a density is {densities.min():g}; {limit}"
        raise SpectrumError(material_id, f"{rule}; use tetrahedra or Gaussians")
    if not densities.max() > 0:
        raise SpectrumError(material_id, "the curve is zero everywhere; compute it again")
