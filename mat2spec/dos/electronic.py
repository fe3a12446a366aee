"""Resample electronic densities of states from DFT to the 128 bins of EDOS_GRID, with the band gap cut out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos
from scipy.integrate import cumulative_trapezoid

from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import SpectrumError

METAL_GAP = 0.0625
"""[eV] A crystal with a narrower band gap counts as a metal, whichever code computed it: this is the width of a bin of
EDOS_GRID, and a narrower gap cannot be distinguished from the few points without states that occur in metals."""

GAP_THRESHOLD = 1e-4
"""Densities below this fraction of the curve's mean are a gap: pymatgen's own default."""

MAX_NEGATIVE = 1e-3
"""Negative densities up to this fraction of the curve's maximum are noise and count as zero."""

MAX_POLARIZATION = 0.01
"""Fraction of the states in the 128 bins by which the spin channels of a non-magnetic material may differ."""

_EDGE_TOLERANCE = 1e-4
"""[eV] How much too early a curve may end: the last digit of energies that were written as text or float32."""

_WAY_OUT = f"give a curve from {-EDOS_GRID.edges[0]:g} eV below the VBM to {EDOS_GRID.edges[-1]:g} eV above the CBM"

Densities = Float[np.ndarray, " densities"] | Float[np.ndarray, "spins densities"]
"""One curve, or one per spin channel. `check_curve` compares its length with that of the energies."""


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
    energies: Float[np.ndarray, " points"],
    densities: Densities,
    vbm: float,
    cbm: float,
    *,
    nonmagnetic: bool = False,
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

    Raises:
        SpectrumError: If the curve is invalid or ends within the bins, or its spin channels differ and must not.
    """
    channels = np.atleast_2d(densities).astype(np.float64)
    energies = energies.astype(np.float64)
    check_curve(material_id, energies, channels)
    _check_range(material_id, energies, vbm, cbm)
    per_channel = np.array([_bin_means(energies, np.maximum(channel, 0), vbm, cbm) for channel in channels])
    spectrum = per_channel.sum(axis=0)
    if not spectrum.any():
        raise SpectrumError(
            material_id,
            f"no states in the bins around {vbm:g} and {cbm:g} eV; do band edges and curve have the same zero?",
        )
    if nonmagnetic:
        _check_nonmagnetic(material_id, per_channel)
    return ElectronicDos(spectrum, vbm, cbm)


def resample_pymatgen(material_id: str, dos: Dos, *, nonmagnetic: bool = False) -> ElectronicDos:
    """Average a pymatgen `Dos` or `CompleteDos` over the bins of EDOS_GRID, per cell of the calculation.

    Raises:
        SpectrumError: As `resample` does.
    """
    volume = dos.norm_vol or 1.0  # pymatgen has divided the densities by it: states/eV/Å³
    curves = [dos.densities[spin] * volume for spin in (Spin.up, Spin.down) if spin in dos.densities]
    if len(lengths := {len(curve) for curve in curves}) != 1:
        raise SpectrumError(
            material_id, f"{len(curves)} spin channels of {sorted(lengths)} densities; give one or two of equal length"
        )
    energies, channels = np.asarray(dos.energies, np.float64), np.array(curves, np.float64)
    check_curve(material_id, energies, channels)
    vbm, cbm = band_edges(dos)
    return resample(material_id, energies, channels, vbm, cbm, nonmagnetic=nonmagnetic)


def band_edges(dos: Dos) -> tuple[float, float]:
    """VBM and CBM as pymatgen finds them [eV]; both the Fermi level if they are closer than METAL_GAP.

    pymatgen searches outward from the Fermi level for densities above GAP_THRESHOLD. So it misses the onset of a light
    band (in the 40 bundled insulators with a Fermi level in the gap, edges are up to 63 meV off), and takes an
    insulator whose Fermi level lies in a band for a metal: where the edges are known from the bands, pass them to
    `resample`.
    """
    fermi = float(dos.efermi)
    densities = np.asarray(dos.get_densities())
    if (densities[dos.energies == fermi] > GAP_THRESHOLD * densities.mean()).any():
        return fermi, fermi  # pymatgen skips this point, sees a gap there, and fails
    cbm, vbm = dos.get_cbm_vbm(GAP_THRESHOLD)
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


def check_curve(material_id: str, energies: np.ndarray, channels: Float[np.ndarray, "spins densities"]) -> None:
    """Check that energies and densities form a density of states.

    Raises:
        SpectrumError: If lengths differ, energies do not ascend, or a number is not finite or too negative.
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
        i = int(falls[0])
        raise SpectrumError(
            material_id, f"energies must ascend, got {energies[i]:g} ≥ {energies[i + 1]:g} eV; sort the curve"
        )
    if not np.isfinite(channels).all():
        i = int(np.flatnonzero(~np.isfinite(channels).all(axis=0))[0])
        raise SpectrumError(material_id, f"the density at {energies[i]:g} eV is not finite; compute it again")
    lowest = channels.min()
    highest = channels.max()
    if lowest < -MAX_NEGATIVE * max(highest, 0.0):
        limit = f"noise may reach −{MAX_NEGATIVE:g} of the maximum, which is {highest:g}"
        rule = f"a density is {lowest:g} states/eV; {limit}"
        raise SpectrumError(material_id, f"{rule}; use tetrahedra or Gaussians")


def _check_range(material_id: str, energies: Float64[np.ndarray, " points"], vbm: float, cbm: float) -> None:
    """Refuse a curve that does not cover all bins."""
    if not (np.isfinite([vbm, cbm]).all() and vbm <= cbm):
        raise SpectrumError(
            material_id,
            f"the VBM, {vbm:g} eV, must not lie above the CBM, {cbm:g} eV; give a metal's Fermi level as both",
        )
    if energies[0] > vbm + EDOS_GRID.edges[0] + _EDGE_TOLERANCE:
        raise SpectrumError(material_id, f"the curve begins {vbm - energies[0]:.3f} eV below the VBM; {_WAY_OUT}")
    if energies[-1] < cbm + EDOS_GRID.edges[-1] - _EDGE_TOLERANCE:
        raise SpectrumError(material_id, f"the curve ends {energies[-1] - cbm:.3f} eV above the CBM; {_WAY_OUT}")


def _check_nonmagnetic(material_id: str, per_channel: Float64[np.ndarray, "spins bins"]) -> None:
    """Refuse spin channels that differ."""
    share = np.abs(per_channel[0] - per_channel[-1]).sum() / per_channel.sum()
    if share > MAX_POLARIZATION:
        limit = f"a non-magnetic material has at most {MAX_POLARIZATION:.0%}"
        rule = f"the spin channels differ by {share:.1%} of the states; {limit}"
        raise SpectrumError(material_id, f"{rule}; leave it out")
