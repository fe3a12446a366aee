"""Electronic densities of states as DFT gives them, brought to the 128 bins of EDOS_GRID: the gap is cut out and kept as a number."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos
from scipy.integrate import cumulative_trapezoid

from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import SpectrumError

METAL_GAP = 0.0625
"""[eV] A narrower gap in a curve counts as none. It is one bin: a few points without states look like it in a metal."""

GAP_THRESHOLD = 1e-4
"""Densities below this fraction of the curve's mean are a gap: pymatgen's own default."""

MAX_NEGATIVE = 1e-3
"""How far below zero a density may lie, as a fraction of the curve's maximum, and still be taken as zero."""

MAX_POLARISATION = 0.01
"""Fraction of the states of the 128 bins by which the two spin channels of a non-magnetic material may differ."""

_EDGE_TOLERANCE = 1e-4
"""[eV] By how much a curve may end too early: the last digit of energies that were written as text or as float32."""

_WAY_OUT = f"give a curve from {-EDOS_GRID.edges[0]:g} eV below the VBM to {EDOS_GRID.edges[-1]:g} eV above the CBM"

Densities = Float[np.ndarray, " densities"] | Float[np.ndarray, "spins densities"]
"""One curve, or one for each spin channel; that it has as many points as the energies is checked with a reason."""


@dataclass(frozen=True)
class ElectronicDos:
    """One electronic density of states on EDOS_GRID.

    Args:
        spectrum: Mean density in each bin [states/eV per cell of the curve], both spins together.
        vbm: Valence band maximum, in the energies of the curve [eV]; of a metal, the Fermi level.
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
        """Whether both sides of the spectrum meet at one energy."""
        return self.cbm == self.vbm


def resample(
    material_id: str,
    energies: Float[np.ndarray, " points"],
    densities: Densities,
    vbm: float,
    cbm: float,
    *,
    nonmagnetic: bool = False,
) -> ElectronicDos:
    """Average a curve over the bins of EDOS_GRID (Kong et al., 10.1038/s41467-022-28543-x).

    The curve is linear between its points, and each bin's mean is the exact integral over it: no state is lost or counted twice, whatever
    the distance of the points. What the curve holds between VBM and CBM is left out.

    Args:
        material_id: Name of the material in a refusal.
        energies: Ascending, on any zero, in steps of any size [eV].
        densities: Density of states [states/eV per cell]; one row per spin channel, or their sum.
        vbm: Valence band maximum; the Fermi level if the material is a metal [eV].
        cbm: Conduction band minimum; the Fermi level if the material is a metal [eV].
        nonmagnetic: Refuse spin channels that differ. Two equal channels with opposite moments on different sites look non-magnetic here.

    Raises:
        SpectrumError: If there is no such curve, it ends within the bins, or it is magnetic and must not be.
    """
    channels = np.atleast_2d(densities).astype(np.float64)
    energies = energies.astype(np.float64)
    check_curve(material_id, energies, channels)
    _check_range(material_id, energies, vbm, cbm)
    per_channel = np.array([_bin_means(energies, np.maximum(channel, 0), vbm, cbm) for channel in channels])
    spectrum = per_channel.sum(axis=0)
    if not spectrum.any():
        raise SpectrumError(
            material_id, f"no states in the bins around {vbm:g} and {cbm:g} eV; are the band edges on the curve's zero?"
        )
    if nonmagnetic:
        _check_nonmagnetic(material_id, per_channel)
    return ElectronicDos(spectrum, vbm, cbm)


def resample_pymatgen(material_id: str, dos: Dos, *, nonmagnetic: bool = False) -> ElectronicDos:
    """Average a pymatgen `Dos` or `CompleteDos` over the bins of EDOS_GRID, per cell of the calculation.

    Raises:
        SpectrumError: As `resample` does.
    """
    volume = dos.norm_vol or 1.0  # what pymatgen has divided by; densities are then states/eV/Å³
    curves = [dos.densities[spin] * volume for spin in (Spin.up, Spin.down) if spin in dos.densities]
    if len(lengths := {len(curve) for curve in curves}) != 1:
        raise SpectrumError(
            material_id, f"{len(curves)} spin channels of {sorted(lengths)} densities; give one or two of one length"
        )
    energies, channels = np.asarray(dos.energies, np.float64), np.array(curves, np.float64)
    check_curve(material_id, energies, channels)
    vbm, cbm = band_edges(dos)
    return resample(material_id, energies, channels, vbm, cbm, nonmagnetic=nonmagnetic)


def band_edges(dos: Dos) -> tuple[float, float]:
    """VBM and CBM where pymatgen finds them [eV]; both the Fermi level if they are nearer to each other than METAL_GAP.

    pymatgen looks outwards from the Fermi level for densities above GAP_THRESHOLD. So it misses the foot of a light band (in the 40 bundled
    insulators with a Fermi level in the gap, edges are up to 63 meV off), and takes an insulator whose Fermi level lies in a band for a
    metal: where the edges are known from the bands, give them to `resample`.
    """
    fermi = float(dos.efermi)
    densities = np.asarray(dos.get_densities())
    if (densities[dos.energies == fermi] > GAP_THRESHOLD * densities.mean()).any():
        return fermi, fermi  # pymatgen leaves this point out, takes it for a gap, and fails on it
    cbm, vbm = dos.get_cbm_vbm(GAP_THRESHOLD)
    return (fermi, fermi) if cbm - vbm < METAL_GAP else (float(vbm), float(cbm))


def _bin_means(
    energies: Float64[np.ndarray, " points"], densities: Float64[np.ndarray, " points"], vbm: float, cbm: float
) -> Float64[np.ndarray, " bins"]:
    """Mean of a piecewise linear curve in each bin: with the edges among its points, the trapezoid rule is exact."""
    edges = np.array(EDOS_GRID.edges)
    sides = [vbm + edges[edges <= 0], cbm + edges[edges >= 0]]
    points = np.union1d(energies, np.concatenate(sides))
    states = cumulative_trapezoid(np.interp(points, energies, densities), points, initial=0.0)
    per_bin = [np.diff(states[np.searchsorted(points, side)]) for side in sides]
    return np.concatenate(per_bin) / EDOS_GRID.widths


def check_curve(material_id: str, energies: np.ndarray, channels: Float[np.ndarray, "spins densities"]) -> None:
    """Refuse what is no density of states.

    Raises:
        SpectrumError: Naming the material and what is wrong.
    """
    if energies.ndim != 1 or len(energies) < 2 or channels.shape[1] != len(energies):
        raise SpectrumError(
            material_id,
            f"{channels.shape[1]} densities at {len(energies)} energies; give one for each, and at least two",
        )
    if len(channels) not in (1, 2):
        raise SpectrumError(material_id, f"{len(channels)} spin channels; give one or two")
    if not np.isfinite(energies).all():
        raise SpectrumError(
            material_id, f"energy {np.flatnonzero(~np.isfinite(energies))[0]} is not finite; remove the point"
        )
    if (falls := np.flatnonzero(np.diff(energies) <= 0)).size:
        at = int(falls[0])
        raise SpectrumError(
            material_id, f"energies must ascend, got {energies[at]:g} ≥ {energies[at + 1]:g} eV; sort the curve"
        )
    if not np.isfinite(channels).all():
        at = int(np.flatnonzero(~np.isfinite(channels).all(axis=0))[0])
        raise SpectrumError(material_id, f"the density at {energies[at]:g} eV is not finite; compute it again")
    low, high = channels.min(), channels.max()
    if low < -MAX_NEGATIVE * max(high, 0.0):
        rule = f"a density is {low:g} states/eV; noise may reach −{MAX_NEGATIVE:g} of the maximum, which is {high:g}"
        raise SpectrumError(material_id, f"{rule}; use tetrahedra or Gaussians")


def _check_range(material_id: str, energies: Float64[np.ndarray, " points"], vbm: float, cbm: float) -> None:
    """Refuse a curve that does not hold all bins."""
    if not (np.isfinite([vbm, cbm]).all() and vbm <= cbm):
        raise SpectrumError(
            material_id,
            f"the VBM, {vbm:g} eV, must not lie above the CBM, {cbm:g} eV; give a metal's Fermi level as both",
        )
    lowest, highest = vbm + EDOS_GRID.edges[0], cbm + EDOS_GRID.edges[-1]
    if energies[0] > lowest + _EDGE_TOLERANCE:
        raise SpectrumError(material_id, f"the curve begins {vbm - energies[0]:.3f} eV below the VBM; {_WAY_OUT}")
    if energies[-1] < highest - _EDGE_TOLERANCE:
        raise SpectrumError(material_id, f"the curve ends {energies[-1] - cbm:.3f} eV above the CBM; {_WAY_OUT}")


def _check_nonmagnetic(material_id: str, per_channel: Float64[np.ndarray, "spins bins"]) -> None:
    """Refuse two channels that differ."""
    share = np.abs(per_channel[0] - per_channel[-1]).sum() / per_channel.sum()
    if share > MAX_POLARISATION:
        rule = f"the spin channels differ by {share:.1%} of the states; a non-magnetic material has at most {MAX_POLARISATION:.0%}"
        raise SpectrumError(material_id, f"{rule}; leave it out")
