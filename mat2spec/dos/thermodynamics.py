"""Mean frequency and heat capacity from phonon densities of states.

The point ω = 0 is left out of both integrals, as in the published numbers (Chen et al., 10.1002/advs.202004214).
Negative densities count as zero, and a spectrum without any density as flat, so that both are defined for every
prediction.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.constants import N_A, c, h, k

from mat2spec.dos.grid import MODES_PER_ATOM, Spectra, SpectrumGrid
from mat2spec.dos.metrics import as_densities
from mat2spec.structure.crystal import Crystal


def mean_frequency(spectra: Spectra, grid: SpectrumGrid) -> Float[np.ndarray, " crystals"]:
    """First moment of each phonon spectrum, ∫ωg/∫g [cm⁻¹]."""
    points, g, positive = _positive_part(spectra, grid)
    return positive.integrate(g * points) / positive.integrate(g)


def heat_capacity(spectra: Spectra, grid: SpectrumGrid, temperature: float = 300.0) -> Float[np.ndarray, " crystals"]:
    """Harmonic heat capacity at constant volume.

    C_V = 3 R ∫ (x / sinh x)² g(ω) dω with x = ħω / 2k_BT and g scaled to unit area.

    Args:
        spectra: Phonon densities of states in any scale.
        grid: Frequencies [cm⁻¹].
        temperature: Temperature [K].

    Returns:
        Heat capacity [J/K per mole of atoms]; the high-temperature limit is 3R = 24.94.
    """
    points, g, positive = _positive_part(spectra, grid)
    x = h * c * 100 * points / (2 * k * temperature)
    per_mode = (x / np.sinh(np.minimum(x, 350.0))) ** 2
    return MODES_PER_ATOM * N_A * k * positive.integrate(g * per_mode) / positive.integrate(g)


def cv_paper(per_atom: Float[np.ndarray, " crystals"], crystals: Sequence[Crystal]) -> Float[np.ndarray, " crystals"]:
    """Heat capacity as published errors count it: per mole of the labels' cells; of pure elements, per mole of atoms.

    This is the convention of E3NN's repository (Chen et al., 10.1002/advs.202004214), which the Mat2Spec paper (Kong et
    al., 10.1038/s41467-022-28543-x) continues. It depends on the choice of cell: use it only to compare with published
    numbers.

    Args:
        per_atom: Heat capacities [J/K per mole of atoms].
        crystals: The crystal of each, in the cell of its label.

    Returns:
        Heat capacities [J/K per mole of cells; pure elements: per mole of atoms].
    """
    return per_atom * np.array([1 if len(crystal.elements) == 1 else len(crystal) for crystal in crystals])


def _positive_part(
    spectra: Spectra, grid: SpectrumGrid
) -> tuple[Float[np.ndarray, " positive"], Float[np.ndarray, "crystals positive"], SpectrumGrid]:
    """Points above zero frequency, the densities there, and their grid, whose integral is the trapezoid rule."""
    first = int(np.searchsorted(grid.points, 0.0, side="right"))
    points = grid.points[first:]
    return points, as_densities(spectra[:, first:]), SpectrumGrid.from_points(grid.name, grid.unit, points)
