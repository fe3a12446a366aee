"""Band edges of a finished VASP calculation: its bands, its electrons and its density of states must agree."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from mat2spec.dos.electronic import METAL_GAP, band_edges
from mat2spec.dos.electronic_checks import ELECTRON_TOLERANCE, check_fermi_level
from mat2spec.errors import CalculationError

OCCUPATION_TOLERANCE = 0.01
"""Electrons by which occupations, which VASP writes with four decimals, may miss NELECT; besides 1e-4 of NELECT."""

EDGE_TOLERANCE = 0.25
"""[eV] How far the Fermi level may lie in a band of an insulator, and how wide a gap a metal's curve may show."""

MAX_IN_GAP = 0.01
"""Density inside a gap, a quarter of it or 0.5 eV from its edges, as a fraction of the curve's mean: the tails of
broadened bands."""

MAX_SPACING = 0.5
"""[eV] Distance of the points of a curve: eight bins of EDOS_GRID. Those of 1 eV moved a sixth of the states."""

SCALE_LIMITS = (0.7, 1.4)
"""Ratio of the integrated curve to VASP's own integral over the 4 eV below the Fermi level: a spacing of 0.45 eV with
a broadening of 0.05 eV gives 0.92."""


def vasp_band_edges(material_id: str, run: Any) -> tuple[float, float]:
    """Return VBM and CBM [eV]; of a metal, the Fermi level as both.

    In an insulator NELECT electrons fill the same number of bands at every k-point, whatever their occupations, which
    smearing changes. A mesh that is too coarse or lacks points can show such a gap in a metal too, so the curve must
    be empty there.

    Args:
        material_id: Name of the material in errors.
        run: pymatgen's `Vasprun`.

    Raises:
        CalculationError: If bands, occupations and curve disagree.
        SpectrumError: If the Fermi level is missing or not among the states.
    """
    energies, channels = curve_of(run)
    fermi = check_fermi_level(material_id, energies, channels, run.efermi)
    _check_occupations(material_id, run)
    vbm, cbm = edges_of_bands(np.concatenate(_eigenvalues(run), axis=1), _filled_bands(run))
    if cbm - vbm < METAL_GAP:
        _check_metal(material_id, run, fermi)
        vbm = cbm = fermi
    else:
        _check_gap(material_id, run, vbm, cbm)
    _check_states(material_id, run, (vbm + cbm) / 2)
    return vbm, cbm


def edges_of_bands(bands: Float64[np.ndarray, "kpoints bands"], filled: float) -> tuple[float, float]:
    """Return the highest energy of so many filled bands and the lowest of the others [eV].

    They are the VBM and CBM if the second is higher. If it is not, or the number is no integer, no energy separates
    so many bands from the others: a metal.

    Args:
        bands: Eigenvalues; those of two spin channels one after the other.
        filled: Electrons divided by electrons per band.
    """
    count = round(filled)
    if abs(filled - count) > OCCUPATION_TOLERANCE or not 0 < count < bands.shape[1]:
        return 0.0, 0.0
    return float(np.sort(bands.max(axis=0))[count - 1]), float(np.sort(bands.min(axis=0))[count])


def curve_of(run: Any) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, "spins points"]]:
    """Return energies and densities [states/eV per cell], without a first point that holds the states below EMIN."""
    first = int(_integral(run)[0] > OCCUPATION_TOLERANCE)
    energies = np.asarray(run.tdos.energies, np.float64)[first:]
    return energies, np.array([channel[first:] for channel in run.tdos.densities.values()], np.float64)


def _integral(run: Any) -> Float64[np.ndarray, " points"]:
    """States below each energy of the curve, as VASP integrates it."""
    return np.array(list(run.idos.densities.values()), np.float64).sum(axis=0)


def _eigenvalues(run: Any) -> list[Float64[np.ndarray, "kpoints bands"]]:
    return [np.asarray(channel[..., 0], np.float64) for channel in run.eigenvalues.values()]


def _electrons_per_band(run: Any) -> int:
    """Two, unless bands have a spin or are spinors."""
    spinors = run.parameters.get("LNONCOLLINEAR", False) or run.parameters.get("LSORBIT", False)
    return 1 if len(run.eigenvalues) == 2 or spinors else 2


def _filled_bands(run: Any) -> float:
    return float(run.parameters["NELECT"]) / _electrons_per_band(run)


def _check_occupations(material_id: str, run: Any) -> None:
    """Refuse a mesh whose occupations do not hold NELECT electrons: points are missing or have wrong weights."""
    weights, electrons = np.array(run.actual_kpoints_weights, np.float64), float(run.parameters["NELECT"])
    occupied = sum(float((weights @ channel[..., 1]).sum()) for channel in run.eigenvalues.values())
    occupied *= _electrons_per_band(run)
    if abs(occupied - electrons) > OCCUPATION_TOLERANCE + 1e-4 * electrons:
        points = f"its {len(weights)} k-points, whose weights add up to {weights.sum():.4g}"
        rule = f"the bands at {points}, hold {occupied:.2f} electrons, NELECT is {electrons:g}"
        raise CalculationError(material_id, f"{rule}; compute it with all irreducible k-points")


def _check_metal(material_id: str, run: Any, fermi: float) -> None:
    """Refuse overlapping bands with a curve that has a gap."""
    energies, channels = curve_of(run)
    vbm, cbm = band_edges(material_id, energies, channels, fermi)
    if cbm - vbm > EDGE_TOLERANCE + 2 * np.diff(energies).max():
        rule = (
            f"its bands have no gap for {run.parameters['NELECT']:g} electrons, its curve has one of {cbm - vbm:.2f} eV"
        )
        raise CalculationError(material_id, f"{rule} ({vbm:.2f} … {cbm:.2f}); compute both with the same k-points")


def _check_gap(material_id: str, run: Any, vbm: float, cbm: float) -> None:
    """Refuse a gap of the bands in which the curve has states, or which it cannot show, or without the Fermi level."""
    energies, channels = curve_of(run)
    gap = f"its bands have a gap of {cbm - vbm:.2f} eV ({vbm:.2f} … {cbm:.2f})"
    if not vbm - EDGE_TOLERANCE <= run.efermi <= cbm + EDGE_TOLERANCE:
        rule = f"{gap}, its Fermi level is {run.efermi:.2f} eV"
        raise CalculationError(material_id, f"{rule}; compute both with the same k-points")
    densities = channels.sum(axis=0)
    inset = min((cbm - vbm) / 4, 2 * EDGE_TOLERANCE)
    inside = densities[(energies > vbm + inset) & (energies < cbm - inset)]
    if not len(inside):
        at_fermi = float(np.interp(run.efermi, energies, densities))
        spacing = f"with points {np.diff(energies).max():.2g} eV apart"
        states = f"its curve has {at_fermi:.2g} states/eV at the Fermi level, {spacing}"
        raise CalculationError(material_id, f"{gap}, {states}; increase NEDOS, and the k-points")
    limit = MAX_IN_GAP * densities.mean()
    if inside.max() > limit:
        states = f"its curve has up to {inside.max():.2g} states/eV there, more than {limit:.2g}"
        raise CalculationError(material_id, f"{gap}, {states}; use more k-points and ISMEAR = -5")
    occupied = np.array([-np.inf, *energies[densities > limit], np.inf])
    after = int(np.searchsorted(occupied, (vbm + cbm) / 2))
    below, above = occupied[after - 1], occupied[after]
    if max(vbm - below, above - cbm) > EDGE_TOLERANCE + np.diff(energies).max():
        rule = f"{gap}, its curve has no states from {below:.2f} to {above:.2f} eV"
        raise CalculationError(material_id, f"{rule}; compute both with the same k-points and the same zero")


def _check_states(material_id: str, run: Any, middle: float) -> None:
    """Refuse a curve that does not hold NELECT states below the Fermi level, or whose scale is not VASP's."""
    energies, channels = curve_of(run)
    if (spacing := float(np.diff(energies).max())) > MAX_SPACING:
        rule = f"the points of its curve are {spacing:.2g} eV apart, at most {MAX_SPACING:g} eV show its shape"
        raise CalculationError(material_id, f"{rule}; increase NEDOS")
    integral, electrons = _integral(run)[-len(energies) :], float(run.parameters["NELECT"])
    after = int(np.searchsorted(energies, middle).clip(1, len(energies) - 1))
    leeway = ELECTRON_TOLERANCE * electrons
    if not integral[after - 1] - leeway <= electrons <= integral[after] + leeway:
        states = float(np.interp(middle, energies, integral))
        rule = f"its curve has {states:.4g} states below {middle:.2f} eV, NELECT is {electrons:g}"
        raise CalculationError(material_id, f"{rule}; the Fermi level must have the zero of the curve")
    near = (energies >= middle - 4.0) & (energies <= middle)
    if near.sum() < 2:
        return  # `resample` refuses a curve that begins so late
    states = float(np.trapezoid(channels.sum(axis=0)[near], energies[near]))
    expected = float(np.diff(integral[near][[0, -1]])[0])
    low, high = SCALE_LIMITS
    if not low * expected <= states <= high * expected:
        rule = (
            f"its densities hold {states:.3g} states in the 4 eV below {middle:.2f} eV, VASP's integral {expected:.3g}"
        )
        raise CalculationError(material_id, f"{rule}; densities must be states/eV per cell, and NEDOS large enough")
