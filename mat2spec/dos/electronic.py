"""Resample electronic densities of states from DFT to the 128 bins of EDOS_GRID, with the band gap cut out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos
from scipy.integrate import cumulative_trapezoid

from mat2spec.dos.curves import as_numbers
from mat2spec.dos.electronic_checks import (
    Channels,
    Energies,
    check_curve,
    check_electrons,
    check_fermi_level,
    check_nonmagnetic,
    check_outer_electrons,
    check_range,
    first_point,
    states_below,
)
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import SpectrumError

METAL_GAP = 0.0625
"""[eV] A crystal with a narrower band gap counts as a metal, whichever code computed it: this is the width of a bin of
EDOS_GRID, and a narrower gap cannot be distinguished from the few points without states that occur in metals."""

GAP_THRESHOLD = 1e-4
"""Densities below this fraction of the curve's mean are a gap: pymatgen's own default."""


@dataclass(frozen=True)
class ElectronicDos:
    """One electronic density of states on EDOS_GRID.

    Args:
        spectrum: Mean density in each bin [states/eV per cell of the curve], both spins together.
        vbm: Valence band maximum on the energy axis of the curve [eV]; of a metal, the Fermi level.
        cbm: Conduction band minimum [eV]; of a metal, the Fermi level.
    """

    spectrum: Float64[np.ndarray, " bins"]
    vbm: float
    cbm: float

    @property
    def band_gap(self) -> float:
        """Band gap [eV]; 0 for a metal."""
        return self.cbm - self.vbm

    @property
    def is_metal(self) -> bool:
        """Whether VBM and CBM are the same energy."""
        return self.cbm == self.vbm


def resample(
    material_id: str,
    energies: ArrayLike,
    densities: ArrayLike,
    vbm: float,
    cbm: float,
    *,
    nonmagnetic: bool = False,
    electrons: float | None = None,
) -> ElectronicDos:
    """Average a curve over the bins of EDOS_GRID (Kong et al., 10.1038/s41467-022-28543-x).

    The curve is linear between its points, and the mean of a bin is its exact integral over the bin: no state is lost
    or counted twice, whatever the spacing of the points. States between VBM and CBM are left out.

    Args:
        material_id: Name of the material in errors.
        energies: Ascending, with any zero and spacing [eV].
        densities: Density of states [states/eV per cell]; one row per spin channel, or their sum.
        vbm: Valence band maximum; the Fermi level if the material is a metal [eV].
        cbm: Conduction band minimum; the Fermi level if the material is a metal [eV].
        nonmagnetic: Refuse spin channels that differ. An antiferromagnet has two equal channels and passes.
        electrons: Number of electrons per cell whose bands the curve contains, if it is known: the curve must hold as
            many states below the Fermi level.

    Raises:
        SpectrumError: If the curve is invalid or ends within the bins, its spin channels differ and must not, or it
            has another number of states than of electrons.
    """
    energies = as_numbers(material_id, "energies", energies)
    channels = np.atleast_2d(as_numbers(material_id, "densities", densities))
    check_curve(material_id, energies, channels)
    check_range(material_id, energies, vbm, cbm, first_point(energies, channels))
    if electrons is not None:
        check_electrons(material_id, energies, channels, (vbm + cbm) / 2, electrons)
    per_channel = np.array([_bin_means(energies, np.maximum(channel, 0), vbm, cbm) for channel in channels])
    spectrum = per_channel.sum(axis=0)
    if not spectrum.any():
        raise SpectrumError(
            material_id,
            f"no states in the bins around {vbm:g} and {cbm:g} eV; do band edges and curve have the same zero?",
        )
    if nonmagnetic:
        check_nonmagnetic(material_id, per_channel)
    return ElectronicDos(spectrum, vbm, cbm)


def resample_pymatgen(
    material_id: str, dos: Dos, *, nonmagnetic: bool = False, electrons: float | None = None
) -> ElectronicDos:
    """Average a pymatgen `Dos` or `CompleteDos` over the bins of EDOS_GRID, per cell of the calculation.

    The number of states of a `CompleteDos` is compared with the electrons of its atoms, if only roughly: one that was
    normalized to its volume and stored no longer says so.

    Args:
        material_id: Name of the material in errors.
        dos: Total density of states; its Fermi level has the same zero as its energies.
        nonmagnetic: As for `resample`.
        electrons: As for `resample`.

    Raises:
        SpectrumError: As `resample` does, or if there is no Fermi level among the states.
    """
    volume = dos.norm_vol or 1.0  # pymatgen has divided the densities by it: states/eV/Å³
    spins = [spin for spin in (Spin.up, Spin.down) if spin in (dos.densities or {})]
    curves = [as_numbers(material_id, "densities", dos.densities[spin]) * volume for spin in spins]
    if len(lengths := {curve.size for curve in curves}) != 1:
        raise SpectrumError(
            material_id, f"{len(curves)} spin channels of {sorted(lengths)} densities; give one or two of equal length"
        )
    energies, channels = as_numbers(material_id, "energies", dos.energies), np.array(curves)
    check_curve(material_id, energies, channels)
    vbm, cbm = band_edges(material_id, energies, channels, dos.efermi)
    structure = getattr(dos, "structure", None)
    if structure is not None and structure.is_ordered:
        middle = (vbm + cbm) / 2
        check_outer_electrons(
            material_id, states_below(energies, channels, middle), np.array(structure.atomic_numbers), middle
        )
    return resample(material_id, energies, channels, vbm, cbm, nonmagnetic=nonmagnetic, electrons=electrons)


def band_edges(material_id: str, energies: Energies, channels: Channels, fermi: float | None) -> tuple[float, float]:
    """VBM and CBM as pymatgen finds them in a curve [eV]; both the Fermi level if they are closer than METAL_GAP.

    pymatgen searches outward from the Fermi level for densities above GAP_THRESHOLD. So it misses the onset of a light
    band (in the 40 bundled insulators with a Fermi level in the gap, edges are up to 63 meV off), and takes an
    insulator whose Fermi level lies in a band for a metal: where the edges are known from the bands, pass them to
    `resample`.

    Args:
        material_id: Name of the material in errors.
        energies: Of a curve that `check_curve` has accepted [eV].
        channels: Its densities.
        fermi: Its Fermi level [eV].

    Raises:
        SpectrumError: If the Fermi level is missing or not among the states.
    """
    first = first_point(energies, channels)
    energies, channels = energies[first:], channels[:, first:]
    fermi = check_fermi_level(material_id, energies, channels, fermi)
    densities = channels.sum(axis=0)
    if (densities[energies == fermi] > GAP_THRESHOLD * densities.mean()).any():
        return fermi, fermi  # pymatgen skips this point, sees a gap there, and fails
    cbm, vbm = Dos(fermi, energies, {Spin.up: densities}).get_cbm_vbm(GAP_THRESHOLD)
    return (fermi, fermi) if cbm - vbm < METAL_GAP else (float(vbm), float(cbm))


def _bin_means(
    energies: Float64[np.ndarray, " points"], densities: Float64[np.ndarray, " points"], vbm: float, cbm: float
) -> Float64[np.ndarray, " bins"]:
    """Mean of a piecewise linear curve in each bin; exact, as the trapezoid rule includes the bin edges."""
    edges = np.array(EDOS_GRID.edges)
    sides = [vbm + edges[edges <= 0], cbm + edges[edges >= 0]]
    points = np.union1d(energies, np.concatenate(sides))
    states = cumulative_trapezoid(np.interp(points, energies, densities), points, initial=0.0)
    per_bin = [np.diff(states[np.searchsorted(points, side)]) for side in sides]
    return np.concatenate(per_bin) / EDOS_GRID.widths
