"""Resample phonon densities of states from DFT to the 51 points of PHDOS_GRID, with maximum 1 as in the benchmark."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.constants import c

from mat2spec.dos.curves import as_numbers, check_noise, check_points
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.vibrations import check_scale
from mat2spec.errors import SpectrumError
from mat2spec.structure.crystal import Crystal

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

_REACH = 10 * BROADENING
"""[cm⁻¹] Farther from the grid's ends than this, the Gaussian is zero and a curve need not be evaluated."""

_STEP = 1.0
"""[cm⁻¹] Points that are farther apart get more between them by interpolation: a tenth of the Gaussian's width."""


@dataclass(frozen=True)
class PhononSpectrum:
    """One phonon density of states on PHDOS_GRID.

    Args:
        spectrum: Densities at the points of the grid, maximum 1.
        lowest_frequency: Frequency below which MAX_UNSTABLE of the modes lie: the onset of the curve [cm⁻¹].
        share_above_grid: Fraction of the modes beyond the last point of the grid.
        mean_frequency_above_grid: Mean frequency of these modes; the last point of the grid if there are none [cm⁻¹].
    """

    spectrum: Float64[np.ndarray, " bins"]
    lowest_frequency: float
    share_above_grid: float
    mean_frequency_above_grid: float


def resample_phonons(
    material_id: str, frequencies: ArrayLike, densities: ArrayLike, crystal: Crystal | None = None
) -> PhononSpectrum:
    """Smooth a curve with a Gaussian of BROADENING, evaluate it on PHDOS_GRID and divide by its maximum there.

    The curve is linear between its points. Its scale does not matter: states per THz or per cm⁻¹, per cell or per atom.

    Args:
        material_id: Name of the material in errors.
        frequencies: Ascending; imaginary ones are negative [cm⁻¹].
        densities: One for each frequency.
        crystal: The crystal, if it is known: its masses and density show whether frequencies are in cm⁻¹.

    Raises:
        SpectrumError: If the curve is invalid, in another unit or has no states on the grid, or the crystal is
            unstable.
    """
    frequencies = as_numbers(material_id, "frequencies", frequencies)
    densities = as_numbers(material_id, "densities", densities)
    _check_curve(material_id, frequencies, densities)
    densities = densities.clip(0)
    weights = densities * np.gradient(frequencies)
    unstable = weights[frequencies < LOWEST_FREQUENCY].sum() / weights.sum()
    lowest = float(frequencies[np.searchsorted(np.cumsum(weights), MAX_UNSTABLE * weights.sum())])
    if unstable > MAX_UNSTABLE:
        limit = f"a stable crystal has at most {MAX_UNSTABLE:.2%}"
        rule = f"{unstable:.2%} of the modes are below {LOWEST_FREQUENCY:g} cm⁻¹; {limit}"
        raise SpectrumError(material_id, f"{rule}; leave it out, or relax it to a stable structure")
    check_scale(material_id, frequencies, densities, crystal)
    spectrum = _smoothed(frequencies, densities)
    if not spectrum.max() > 0:
        raise SpectrumError(material_id, f"no states on the grid, 0 … {PHDOS_GRID.centers[-1]:g} cm⁻¹; leave it out")
    end = PHDOS_GRID.centers[-1]
    above = np.where(frequencies > end, weights, 0.0)
    share = float(above.sum() / weights.sum())
    mean_above = float(above @ frequencies / above.sum()) if share > 0 else end
    return PhononSpectrum(spectrum / spectrum.max(), lowest, share, mean_above)


def _smoothed(
    frequencies: Float64[np.ndarray, " points"], densities: Float64[np.ndarray, " points"]
) -> Float64[np.ndarray, " bins"]:
    """Convolve the curve, zero beyond its ends, with the Gaussian; return it at the points of the grid."""
    first, last = max(frequencies[0], -_REACH), min(frequencies[-1], PHDOS_GRID.centers[-1] + _REACH)
    count = max(int(np.ceil((last - first) / _STEP)), 0) + 1
    near = frequencies[(frequencies >= first) & (frequencies <= last)]
    fine = np.union1d(near, np.linspace(first, last, count))
    gaussian = np.exp(-0.5 * ((PHDOS_GRID.points[:, None] - fine) / BROADENING) ** 2)
    return np.trapezoid(gaussian * np.interp(fine, frequencies, densities), fine, axis=1)


def _check_curve(
    material_id: str, frequencies: Float64[np.ndarray, "..."], densities: Float64[np.ndarray, "..."]
) -> None:
    """Check that frequencies and densities form a density of states."""
    if densities.ndim != 1:
        raise SpectrumError(material_id, f"densities have {densities.ndim} axes; give one curve, the sum over atoms")
    check_points(material_id, "frequencies", "cm⁻¹", frequencies, densities)
    check_noise(material_id, "", densities, MAX_NEGATIVE)
    if not densities.max() > 0:
        raise SpectrumError(material_id, "the curve is zero everywhere; compute it again")
