"""Convert predictions to pymatgen's Dos and PhononDos, for its plotters and analyzers."""

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
"""[eV] Spacing of the energies of a Dos: 7.8125 meV, exact in binary."""

_BELOW_ZERO = -1e-9
"""[eV] Fermi level of a metal: pymatgen cannot find its band edges if the level is exactly one of the energies."""

_THZ = c * 100 / 1e12
"""One cm⁻¹ in THz."""


def to_pymatgen(row: Mapping[str, Any], grid: SpectrumGrid) -> Dos | PhononDos:
    """Convert one row of a run's predictions.

    Args:
        row: The columns that `electronic_dos` or `phonon_dos` needs.
        grid: The grid of the run.

    Returns:
        A Dos of electrons, a PhononDos of phonons.

    Raises:
        SpectrumError: If the spectrum is not on the grid, or its gap is unknown.
    """
    return electronic_dos(row) if grid.unit == EDOS_GRID.unit else phonon_dos(row, grid)


def electronic_dos(row: Mapping[str, Any]) -> Dos:
    """Convert an electronic spectrum on EDOS_GRID, and put its band gap back.

    The valence band maximum (of a metal, the Fermi level) is at 0 eV. Energies have the spacing STEP, and the gap is
    rounded to it. The Fermi level is in the middle of the gap, so the conduction band minimum is at twice the Fermi
    level. Densities are those of `_fine_curve`, and zero in the gap, so that `mat2spec.dos.electronic.resample` with
    these two edges returns the spectrum.

    pymatgen's own search returns the same gap, unless densities next to it are below its threshold (1e-4 of their
    mean): then it finds a wider one. So it may find a gap in a metal with almost no states at the Fermi level.

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
    """Convert a phonon spectrum to THz: densities [states/THz per primitive cell].

    The integral is 3 × nsites_primitive, less the modes above the grid (share_above_grid), which it does not contain.
    Its method `cv` is per mole of primitive cells. It includes the density at ω = 0, which
    `mat2spec.dos.thermodynamics` leaves out: at 300 K the two differ by 0.05 % in the median of the bundled spectra,
    and by 2 % at most.

    Args:
        row: spectrum [states per cm⁻¹ per atom; negative numbers count as zero] and nsites_primitive.
        grid: Frequencies [cm⁻¹].
    """
    return PhononDos(grid.points * _THZ, _spectrum(row, grid) * row["nsites_primitive"] / _THZ)


def put_back_gap(row: Mapping[str, Any]) -> float:
    """Band gap of a predicted spectrum [eV]: the input's own, else zero for a metal, else the predicted one.

    Args:
        row: gap_source, and what it refers to: band_gap (of the input), or is_metal and band_gap_pred. None and NaN
            mean unknown.

    Raises:
        SpectrumError: If the gap is unknown.
    """
    if row.get("gap_source") == "input":
        gap = row.get("band_gap")
    elif row.get("is_metal") == 1:  # neither None nor NaN, which a data frame turns None into
        gap = 0.0
    else:
        gap = row.get("band_gap_pred")
    if gap is None or np.isnan(gap):
        raise SpectrumError(
            _name(row), "neither the input nor the network has a band gap; set band_gap (eV) and gap_source = 'input'"
        )
    return max(float(gap), 0.0)


def _fine_curve(spectrum: Float64[np.ndarray, " bins"], *, is_cut: bool) -> Float64[np.ndarray, " points"]:
    """Resolve each bin in eight steps; the trapezoid integral over each bin is exactly that of the bin.

    At a bin edge the curve has the lower of the two adjacent densities (zero at the gap). Within a bin it is constant
    at the value that compensates for the loss: at least the bin's mean, so that no density is negative.

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
