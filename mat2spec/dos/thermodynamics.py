"""Frequencies and harmonic thermodynamics from phonon densities of states.

The point ω = 0 is left out of all integrals, as in the published numbers (Chen et al., 10.1002/advs.202004214).
Negative densities count as zero, and a spectrum without any density as flat, so that all are defined for every
prediction.

A spectrum ends with its grid. Modes above it, if their share is known, all count with their mean frequency: exact for
the mean frequency and the zero-point energy, and nearly so for the rest, to which they add little at 300 K.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.constants import N_A, c, h, k

from mat2spec.dos.above_grid import ModesAboveGrid
from mat2spec.dos.grid import MODES_PER_ATOM, Spectra, SpectrumGrid
from mat2spec.dos.metrics import as_densities
from mat2spec.structure.crystal import Crystal

TAIL = 0.05
"""Fraction of its maximum at which a spectrum counts as ended."""


def mean_frequency(
    spectra: Spectra, grid: SpectrumGrid, above: ModesAboveGrid | None = None
) -> Float[np.ndarray, " crystals"]:
    """First moment of each phonon spectrum, ∫ωg/∫g [cm⁻¹].

    Args:
        spectra: Phonon densities of states in any scale.
        grid: Frequencies [cm⁻¹].
        above: Modes above the grid; None: there are none.
    """
    return _mean_over_modes(spectra, grid, above, lambda frequencies: frequencies)


def max_frequency(spectra: Spectra, grid: SpectrumGrid) -> Float[np.ndarray, " crystals"]:
    """Highest frequency at which each phonon spectrum, between its points a line, has 5 % of its maximum [cm⁻¹].

    Labels are smoothed, so that a spectrum ends in a slope rather than at an edge.
    """
    points, g, _ = _positive_part(spectra, grid)
    above = g >= TAIL * g.max(axis=1, keepdims=True)
    last = g.shape[1] - 1 - above[:, ::-1].argmax(axis=1)
    following = np.minimum(last + 1, g.shape[1] - 1)
    rows = np.arange(len(g))
    high, low, limit = g[rows, last], g[rows, following], TAIL * g.max(axis=1)
    share = np.where(high > low, (high - limit) / np.where(high > low, high - low, 1), 0.0)
    return points[last] + share * (points[following] - points[last])


def heat_capacity(
    spectra: Spectra, grid: SpectrumGrid, temperature: float = 300.0, above: ModesAboveGrid | None = None
) -> Float[np.ndarray, " crystals"]:
    """Harmonic heat capacity at constant volume.

    C_V = 3 R ∫ (x / sinh x)² g(ω) dω with x = ħω / 2k_BT and g scaled to unit area.

    Args:
        spectra: Phonon densities of states in any scale.
        grid: Frequencies [cm⁻¹].
        temperature: Temperature [K].
        above: Modes above the grid; None: there are none.

    Returns:
        Heat capacity [J/K per mole of atoms]; the high-temperature limit is 3R = 24.94.
    """

    def per_mode(frequencies: np.ndarray) -> np.ndarray:
        x = _quanta(frequencies, temperature) / 2
        return (x / np.sinh(np.minimum(x, 350.0))) ** 2

    return MODES_PER_ATOM * N_A * k * _mean_over_modes(spectra, grid, above, per_mode)


def vibrational_entropy(
    spectra: Spectra, grid: SpectrumGrid, temperature: float = 300.0, above: ModesAboveGrid | None = None
) -> Float[np.ndarray, " crystals"]:
    """Harmonic entropy, S = 3 R ∫ [x / (eˣ − 1) − ln(1 − e⁻ˣ)] g(ω) dω with x = ħω / k_BT and g scaled to unit area.

    Args:
        spectra: Phonon densities of states in any scale.
        grid: Frequencies [cm⁻¹].
        temperature: Temperature [K].
        above: Modes above the grid; None: there are none.

    Returns:
        Entropy [J/K per mole of atoms].
    """

    def per_mode(frequencies: np.ndarray) -> np.ndarray:
        x = _quanta(frequencies, temperature)
        return x / np.expm1(np.minimum(x, 700.0)) - np.log(-np.expm1(-x))

    return MODES_PER_ATOM * N_A * k * _mean_over_modes(spectra, grid, above, per_mode)


def vibrational_free_energy(
    spectra: Spectra, grid: SpectrumGrid, temperature: float = 300.0, above: ModesAboveGrid | None = None
) -> Float[np.ndarray, " crystals"]:
    """Harmonic Helmholtz energy with zero-point motion, F = 3 R T ∫ [x / 2 + ln(1 − e⁻ˣ)] g(ω) dω with x = ħω / k_BT.

    Args:
        spectra: Phonon densities of states in any scale.
        grid: Frequencies [cm⁻¹].
        temperature: Temperature [K].
        above: Modes above the grid; None: there are none.

    Returns:
        Free energy [kJ per mole of atoms].
    """

    def per_mode(frequencies: np.ndarray) -> np.ndarray:
        x = _quanta(frequencies, temperature)
        return x / 2 + np.log(-np.expm1(-x))

    return MODES_PER_ATOM * N_A * k * temperature * _mean_over_modes(spectra, grid, above, per_mode) / 1000


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


def _quanta(frequencies: np.ndarray, temperature: float) -> np.ndarray:
    """ħω / k_BT of each frequency [cm⁻¹]."""
    return h * c * 100 * frequencies / (k * temperature)


def _mean_over_modes(
    spectra: Spectra,
    grid: SpectrumGrid,
    above: ModesAboveGrid | None,
    quantity: Callable[[np.ndarray], np.ndarray],
) -> Float[np.ndarray, " crystals"]:
    """Mean of a function of frequency over the modes of each crystal, those above the grid included."""
    points, g, positive = _positive_part(spectra, grid)
    inside = positive.integrate(g * quantity(points)) / positive.integrate(g)
    if above is None:
        return inside
    return (1 - above.shares) * inside + above.shares * quantity(above.frequencies)


def _positive_part(
    spectra: Spectra, grid: SpectrumGrid
) -> tuple[Float[np.ndarray, " positive"], Float[np.ndarray, "crystals positive"], SpectrumGrid]:
    """Points above zero frequency, the densities there, and their grid, whose integral is the trapezoid rule."""
    first = int(np.searchsorted(grid.points, 0.0, side="right"))
    points = grid.points[first:]
    return points, as_densities(spectra[:, first:]), SpectrumGrid.from_points(grid.name, grid.unit, points)
