"""The scale of phonon frequencies: a curve in THz, meV, eV or Hz that is given as cm⁻¹ is refused."""

import numpy as np
from jaxtyping import Float64
from scipy.constants import atomic_mass, c, e

from mat2spec.elements import atomic_masses
from mat2spec.errors import SpectrumError
from mat2spec.structure.crystal import Crystal

HIGHEST_FREQUENCIES = (30.0, 5000.0)
"""[cm⁻¹] Highest frequency of any crystal: Cs 50, CsAu 76 (the lowest bundled one); solid H₂ 4150."""

STIFFNESSES = (4.0, 600.0)
"""[eV] `stiffness` of any crystal. Those of the bundled spectra that end on the grid are 9.6 (LiI) to 159 (Rb2P3), in
a single one 460; from sound velocities and force constants, Li 7, Ar 5, diamond 140, CO₂ 290, N₂ 380. A wrong unit
changes it by its square: meV to 1/65, THz to 1/1100. Solid He and Ne (1 eV) are refused too."""

LOWEST_WITH_HYDROGEN = 0.1
"""[eV] The same for a crystal with hydrogen, whose curves and labels often end below its stretching modes. The bundled
labels, which end at 1000 cm⁻¹, have at least 1.3 (Rb2H6Pt)."""

LOWEST_OF_HYDROGEN = 200.0
"""[cm⁻¹] Highest frequency that a crystal with hydrogen reaches at least: the 268 bundled ones 380 (KBH4), although
their labels end at 1000. Those in meV reach 124, where the stiffness alone does not tell."""

_MAX_ABOVE = 1e-3
"""Fraction of the modes above the highest frequency: the tail of a broadened curve."""


def check_scale(
    material_id: str,
    frequencies: Float64[np.ndarray, " points"],
    densities: Float64[np.ndarray, " points"],
    crystal: Crystal | None,
) -> None:
    """Check that frequencies are possible in cm⁻¹; for a known crystal, with its masses and its density.

    Raises:
        SpectrumError: With the highest frequency or the stiffness.
    """
    weights = densities * np.gradient(frequencies)
    modes = np.cumsum(weights)
    highest = frequencies[np.searchsorted(modes, (1 - _MAX_ABOVE) * modes[-1])]
    low, high = HIGHEST_FREQUENCIES
    hydrogen = crystal is not None and 1 in crystal.atomic_numbers
    if hydrogen:
        low = LOWEST_OF_HYDROGEN
    if not low <= highest <= high:
        kind = "a crystal with hydrogen" if hydrogen else "a crystal"
        rule = f"the highest frequency is {highest:.3g} cm⁻¹, that of {kind} is {low:g} … {high:g}"
        raise SpectrumError(material_id, f"{rule}; convert the frequencies to cm⁻¹ (are they in {_unit(highest)}?)")
    if crystal is None:
        return
    low, high = STIFFNESSES
    if hydrogen:
        low = LOWEST_WITH_HYDROGEN
    found = stiffness(frequencies, weights, crystal)
    if not low <= found <= high:
        limit = f"with the masses and density of {crystal.formula} they mean force constants of {found:.3g} eV/a²"
        rule = f"frequencies up to {highest:.3g} cm⁻¹; {limit}, those of crystals are {low:g} … {high:g}"
        raise SpectrumError(material_id, f"{rule} (a: distance of atoms); convert the frequencies to cm⁻¹")


def stiffness(
    frequencies: Float64[np.ndarray, " points"], weights: Float64[np.ndarray, " points"], crystal: Crystal
) -> float:
    """Return the mean force constant of an atom times the squared distance of atoms [eV].

    The mean of ω² over all modes is that of the trace of an atom's force constants over 3 m, exactly. The distance is
    the cube root of the volume per atom. The product is about bulk modulus × volume of an atom, as in Debye's theory,
    and varies less between crystals than any of its factors.

    Args:
        frequencies: In cm⁻¹.
        weights: Modes at each frequency, in any unit.
        crystal: Its masses and density.
    """
    angular = 2 * np.pi * 100 * c * frequencies
    inverse_mass = float((1 / atomic_masses()[crystal.atomic_numbers].astype(np.float64)).mean()) / atomic_mass
    force_constant = float(weights @ angular**2 / weights.sum()) / inverse_mass
    return force_constant * (1e-10 * np.cbrt(crystal.volume / len(crystal))) ** 2 / e


def _unit(highest: float) -> str:
    """The likely unit of a highest frequency that is impossible in cm⁻¹."""
    if highest > HIGHEST_FREQUENCIES[1]:
        return "Hz"
    if highest > HIGHEST_FREQUENCIES[0]:
        return "meV"
    return "THz" if highest >= 1.0 else "eV"
