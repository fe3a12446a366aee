"""Checks of electronic densities of states: range, Fermi level, spin channels and number of electrons."""

import numpy as np
from jaxtyping import Float64, Integer

from mat2spec.dos.curves import check_noise, check_points
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.elements import outer_electrons
from mat2spec.errors import SpectrumError

MAX_NEGATIVE = 1e-3
"""Negative densities up to this fraction of the curve's maximum are noise and count as zero."""

MAX_POLARIZATION = 0.01
"""Fraction of the states in the 128 bins by which the spin channels of a non-magnetic material may differ."""

SPIKE, SPIKE_STATES = 5.0, 0.5
"""A first density holds the states below the window if it is this many times the second, and holds so many states."""

ELECTRON_TOLERANCE = 0.02
"""Relative error of the number of states below the Fermi level: the broadening and sampling of a curve."""

MIN_OUTER_SHARE = 0.2
"""Lowest ratio of states below the Fermi level to outer electrons. In the bundled curves, which begin 7 eV below the
VBM, it is at least 0.33 (TaO); densities per Å³ are too small by the volume of the cell, 10 Å³ or more."""

_EDGE_TOLERANCE = 1e-4
"""[eV] How much too early a curve may end: the last digit of energies that were written as text or float32."""

_WAY_OUT = f"give a curve from {-EDOS_GRID.edges[0]:g} eV below the VBM to {EDOS_GRID.edges[-1]:g} eV above the CBM"

Energies = Float64[np.ndarray, " points"]
Channels = Float64[np.ndarray, "spins points"]


def check_curve(
    material_id: str, energies: Float64[np.ndarray, "..."], channels: Float64[np.ndarray, "spins densities"]
) -> None:
    """Check that energies and densities form a density of states.

    Raises:
        SpectrumError: If lengths differ, energies do not ascend, or a number is not finite or too negative.
    """
    check_points(material_id, "energies", "eV", energies, channels)
    if len(channels) not in (1, 2):
        raise SpectrumError(material_id, f"{len(channels)} spin channels; give one or two")
    check_noise(material_id, " states/eV", channels, MAX_NEGATIVE)


def first_point(energies: Energies, channels: Channels) -> int:
    """Return the index of the first point that is a density: 1 if point 0 holds all states below the window, else 0.

    VASP adds the states below EMIN to the first point of DOSCAR and vasprun.xml.
    """
    first, second = channels[:, :2].sum(axis=0)
    holds_states_below = first * (energies[1] - energies[0]) >= SPIKE_STATES and first > SPIKE * second
    return int(holds_states_below and len(energies) > 2)


def check_range(material_id: str, energies: Energies, vbm: float, cbm: float, first: int = 0) -> None:
    """Check that a curve covers all bins, from its point `first` on.

    Raises:
        SpectrumError: With the distance from the band edge at which it ends.
    """
    if not (np.isfinite([vbm, cbm]).all() and vbm <= cbm):
        raise SpectrumError(
            material_id,
            f"the VBM, {vbm:g} eV, must not lie above the CBM, {cbm:g} eV; give a metal's Fermi level as both",
        )
    if energies[first] > vbm + EDOS_GRID.edges[0] + _EDGE_TOLERANCE:
        spike = ", without its first point, which holds all states below the curve" if first else ""
        begins = f"the curve begins {vbm - energies[first]:.3f} eV below the VBM{spike}"
        raise SpectrumError(material_id, f"{begins}; {_WAY_OUT}")
    if energies[-1] < cbm + EDOS_GRID.edges[-1] - _EDGE_TOLERANCE:
        raise SpectrumError(material_id, f"the curve ends {energies[-1] - cbm:.3f} eV above the CBM; {_WAY_OUT}")


def check_nonmagnetic(material_id: str, per_channel: Float64[np.ndarray, "spins bins"]) -> None:
    """Check that spin channels are equal.

    Raises:
        SpectrumError: With the fraction by which they differ.
    """
    share = np.abs(per_channel[0] - per_channel[-1]).sum() / per_channel.sum()
    if share > MAX_POLARIZATION:
        limit = f"a non-magnetic material has at most {MAX_POLARIZATION:.0%}"
        rule = f"the spin channels differ by {share:.1%} of the states; {limit}"
        raise SpectrumError(material_id, f"{rule}; leave it out")


def check_fermi_level(material_id: str, energies: Energies, channels: Channels, fermi: float | None) -> float:
    """Return the Fermi level of a curve, which must have states on both sides of it.

    Raises:
        SpectrumError: If it is missing, or the curve has another zero.
    """
    if fermi is None or not np.isfinite(fermi):
        raise SpectrumError(material_id, f"the Fermi level is {fermi}; give it in eV, on the zero of the curve")
    states = energies[channels.sum(axis=0) > 0]
    if not len(states) or not states[0] <= fermi <= states[-1]:
        extent = f"from {states[0]:.2f} to {states[-1]:.2f} eV" if len(states) else "nowhere"
        rule = f"the Fermi level, {fermi:.2f} eV, has no states on one side; the curve has states {extent}"
        raise SpectrumError(material_id, f"{rule}; give both the same zero, and compute empty bands too")
    return float(fermi)


def states_below(energies: Energies, channels: Channels, energy: float) -> float:
    """Integrate a curve up to an energy: its number of states, with those that its first point holds."""
    densities = channels.sum(axis=0)
    first = first_point(energies, channels)
    points = np.union1d(energies[first:][energies[first:] < energy], [energy])
    outside = densities[0] * (energies[1] - energies[0]) if first else 0.0
    return float(np.trapezoid(np.interp(points, energies, densities), points) + outside)


def check_electrons(material_id: str, energies: Energies, channels: Channels, fermi: float, electrons: float) -> None:
    """Check that a curve holds as many states below the Fermi level as there are electrons.

    Args:
        material_id: Name of the material in errors.
        energies: Of the curve [eV].
        channels: Its densities [states/eV per cell].
        fermi: The Fermi level [eV]; of an insulator, any energy in its gap.
        electrons: Electrons whose bands the curve contains.

    Raises:
        SpectrumError: With both numbers.
    """
    states = states_below(energies, channels, fermi)
    after = int(np.searchsorted(energies, fermi).clip(1, len(energies) - 1))
    in_one_step = channels[:, after].sum() * (energies[after] - energies[after - 1])
    if abs(states - electrons) > ELECTRON_TOLERANCE * electrons + in_one_step:
        rule = f"the curve holds {states:.4g} states below {fermi:.2f} eV, for {electrons:.4g} electrons"
        raise SpectrumError(
            material_id, f"{rule}; give states/eV per cell of both spins, a Fermi level on the curve's zero, all bands"
        )


def check_outer_electrons(
    material_id: str, states: float, atomic_numbers: Integer[np.ndarray, " atoms"], fermi: float
) -> None:
    """Check the number of states roughly, where only the atoms of the cell are known and not the electrons computed.

    Args:
        material_id: Name of the material in errors.
        states: States of the curve below the Fermi level.
        atomic_numbers: Of the atoms in the curve's cell.
        fermi: The Fermi level [eV].

    Raises:
        SpectrumError: With the numbers of states, outer electrons and all electrons.
    """
    outer, total = int(outer_electrons()[atomic_numbers].sum()), int(np.sum(atomic_numbers, dtype=int))
    if not MIN_OUTER_SHARE * outer <= states <= total * (1 + ELECTRON_TOLERANCE):
        limit = f"its {len(atomic_numbers)} atoms have {outer} outer and {total} electrons in all"
        rule = f"the curve holds {states:.3g} states below the Fermi level, {fermi:.2f} eV; {limit}"
        raise SpectrumError(material_id, f"{rule}; give states/eV per cell, not per Å³, atom or formula")
