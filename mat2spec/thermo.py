"""What a phonon density of states says about heat: mean frequency and heat capacity.

The point ω = 0 is left out of both integrals, as the published numbers do (Chen et al., 10.1002/advs.202004214).
"""

import numpy as np
from jaxtyping import Float
from scipy.constants import N_A, c, h, k

from mat2spec.spectrum import MODES_PER_ATOM, Spectra, SpectrumGrid


def _positive_part(grid: SpectrumGrid) -> tuple[np.ndarray, SpectrumGrid, slice]:
    """Points above zero frequency, with the trapezoid rule over just those."""
    first = int(np.searchsorted(grid.points, 0.0, side="right"))
    points = grid.points[first:]
    return points, SpectrumGrid.from_points(grid.name, grid.unit, points), slice(first, None)


def mean_frequency(spectra: Spectra, grid: SpectrumGrid) -> Float[np.ndarray, " crystals"]:
    """First moment of each phonon spectrum, ∫ωg/∫g [cm⁻¹]."""
    points, positive, inside = _positive_part(grid)
    g = spectra[:, inside]
    return positive.integrate(g * points) / positive.integrate(g)


def heat_capacity(spectra: Spectra, grid: SpectrumGrid, temperature: float = 300.0) -> Float[np.ndarray, " crystals"]:
    """Harmonic heat capacity at constant volume.

    C_V = 3 R ∫ (x / sinh x)² g(ω) dω with x = ħω / 2k_BT and g scaled to unit area.

    Args:
        spectra: Phonon densities of states in any scale.
        grid: Frequencies [cm⁻¹].
        temperature: Temperature [K].

    Returns:
        Heat capacity [J/K per mole of atoms]; the limit of high temperature is 3R = 24.94.
    """
    points, positive, inside = _positive_part(grid)
    g = spectra[:, inside]
    x = h * c * 100 * points / (2 * k * temperature)
    per_mode = (x / np.sinh(np.minimum(x, 350.0))) ** 2
    return MODES_PER_ATOM * N_A * k * positive.integrate(g * per_mode) / positive.integrate(g)
