"""Predictions as pymatgen's Dos and PhononDos, for the plotters and analysers that take those."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos
from pymatgen.phonon.dos import PhononDos
from scipy.constants import c

from mat2spec.dos.grid import EDOS_GRID, SpectrumGrid
from mat2spec.errors import SpectrumError

_STEPS_PER_BIN = 8

STEP = float(EDOS_GRID.widths[0]) / _STEPS_PER_BIN
"""[eV] Distance of the energies of a Dos: 7.8125 meV, exact in binary."""

_BELOW_ZERO = -1e-9
"""[eV] pymatgen cannot find the edges of a metal whose Fermi level is exactly one of the energies, so ours is not quite 0."""

_THZ = c * 100 / 1e12
"""One cm⁻¹ in THz."""


def to_pymatgen(row: Mapping[str, Any], grid: SpectrumGrid) -> Dos | PhononDos:
    """Make what pymatgen calls a density of states from one row of a run's predictions.

    Args:
        row: What `electronic_dos` or `phonon_dos` needs.
        grid: The grid of the run.

    Returns:
        A Dos of electrons, a PhononDos of phonons.

    Raises:
        SpectrumError: If the row is not on the grid, or its gap is not known.
    """
    return electronic_dos(row) if grid.unit == EDOS_GRID.unit else phonon_dos(row, grid)


def electronic_dos(row: Mapping[str, Any]) -> Dos:
    """Make a Dos of an electronic spectrum on EDOS_GRID, with its gap put back.

    The valence band maximum (of a metal, the Fermi level) is 0 eV, and the energies are STEP apart, the gap being rounded to that. The
    Fermi level is the middle of the gap: the conduction band minimum is at twice it. Densities are those of `_fine_curve` and zero in the
    gap, so that `mat2spec.dos.resample` with these two edges gives the spectrum back.

    pymatgen's own search gives the gap back, but for densities next to it that are below its threshold (1e-4 of their mean): there it
    finds a wider one. So it may find a gap in a metal with next to no states at the Fermi level.

    Args:
        row: spectrum [states/eV per primitive cell; negative numbers count as zero] and what `put_back_gap` needs.

    Returns:
        Densities [states/eV per primitive cell], both spins together in Spin.up.
    """
    gap_steps = round(put_back_gap(row) / STEP)
    densities = _fine_curve(_spectrum(row, EDOS_GRID), is_cut=gap_steps > 0)
    densities = np.insert(densities, len(densities) // 2, np.zeros(gap_steps))
    energies = EDOS_GRID.edges[0] + STEP * np.arange(len(densities))
    return Dos(STEP * gap_steps / 2 if gap_steps else _BELOW_ZERO, energies, {Spin.up: densities})


def phonon_dos(row: Mapping[str, Any], grid: SpectrumGrid) -> PhononDos:
    """Make a PhononDos of a phonon spectrum: frequencies [THz], densities [states/THz per primitive cell], integral 3 × nsites_primitive.

    `cv` of it is per mole of primitive cells. It counts the density at ω = 0, which `mat2spec.dos.thermodynamics` leaves out: at 300 K the two differ
    by 0.05 % in the median of the bundled spectra, and by 2 % at most.

    Args:
        row: spectrum [states per cm⁻¹ per atom; negative numbers count as zero] and nsites_primitive.
        grid: Frequencies [cm⁻¹].
    """
    return PhononDos(grid.points * _THZ, _spectrum(row, grid) * row["nsites_primitive"] / _THZ)


def put_back_gap(row: Mapping[str, Any]) -> float:
    """The gap that belongs to a predicted spectrum [eV]: the input's own, else none for a metal, else the predicted one.

    Args:
        row: gap_source, and what that calls for: band_gap (of the input), or is_metal and band_gap_pred. None and NaN are unknown.

    Raises:
        SpectrumError: If none is known.
    """
    if row.get("gap_source") == "input":
        gap = row.get("band_gap")
    elif row.get("is_metal") == 1:  # neither None nor NaN, which a data frame makes of it
        gap = 0.0
    else:
        gap = row.get("band_gap_pred")
    if gap is None or np.isnan(gap):
        raise SpectrumError(
            _name(row), "neither the input nor a network gave a band gap; set band_gap (eV) and gap_source = 'input'"
        )
    return max(float(gap), 0.0)


def _fine_curve(spectrum: Float64[np.ndarray, " bins"], *, is_cut: bool) -> Float64[np.ndarray, " points"]:
    """Eight steps per bin, whose trapezoid integral over each bin is exactly the bin's.

    At an edge the curve has the lower of the two densities beside it (at a gap zero), and within a bin it is constant at what makes up
    for the loss: at least the bin's mean, so that nothing is negative.

    Args:
        spectrum: Mean density in each bin.
        is_cut: Whether there is a gap in the middle.
    """
    at_edges = np.minimum(np.append(spectrum[:1], spectrum), np.append(spectrum, spectrum[-1:]))
    if is_cut:
        at_edges[len(at_edges) // 2] = 0.0
    inside = (_STEPS_PER_BIN * spectrum - (at_edges[:-1] + at_edges[1:]) / 2) / (_STEPS_PER_BIN - 1)
    curve = np.repeat(inside, _STEPS_PER_BIN)
    curve[::_STEPS_PER_BIN] = at_edges[:-1]
    return np.append(curve, at_edges[-1])


def _spectrum(row: Mapping[str, Any], grid: SpectrumGrid) -> Float64[np.ndarray, " bins"]:
    spectrum = np.asarray(row["spectrum"], np.float64)
    if len(spectrum) != len(grid):
        raise SpectrumError(
            _name(row), f"{len(spectrum)} densities for {len(grid)} bins of {grid.name}; give the grid of the row's run"
        )
    return spectrum.clip(0)


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("material_id", "a row without material_id"))
