"""Labels from densities of states of the Materials Project: on the grids of training, per primitive cell."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mat2spec.data.materials_project.curves import Curve
from mat2spec.data.materials_project.summaries import Summary
from mat2spec.dos.electronic import METAL_GAP, band_edges, resample
from mat2spec.dos.electronic_checks import check_curve, check_outer_electrons, states_below
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.dos.phonon import WAVENUMBERS_PER_THZ, resample_phonons
from mat2spec.errors import SpectrumError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import primitive_nsites

EDGE_TOLERANCE = 0.25
"""[eV] Largest difference between the gap of the bands and that of the curve; emmet too warns of larger ones."""

FERMI_TOLERANCE = 1.0
"""[eV] Largest difference between the Fermi levels of bands and curve: more than that of two k-meshes, less than a
shift of the zero to the Fermi level."""

EDOS_COLUMNS = {
    "edos": pa.list_(pa.float32(), len(EDOS_GRID)),
    "edos_edges": pa.string(),
    "edos_task_id": pa.string(),
    "edos_run_type": pa.string(),
}
"""Columns of electronic labels; band_gap, efermi, vbm, cbm and is_metal are then those of the label."""

PHDOS_COLUMNS = {
    "phdos": pa.list_(pa.float32(), len(PHDOS_GRID)),
    "phdos_id": pa.string(),
    "phdos_method": pa.string(),
    "phdos_structure": pa.string(),
    "lowest_frequency": pa.float64(),
    "share_above_grid": pa.float64(),
}
"""Columns of phonon labels."""


@dataclass(frozen=True)
class Label:
    """A labeled crystal.

    Args:
        crystal: The crystal.
        columns: The label and its properties; they replace columns of the summary with the same name.
    """

    crystal: Crystal
    columns: dict[str, Any]


def electronic_label(summary: Summary, crystal: Crystal, curve: Curve, *, nonmagnetic: bool) -> Label:
    """Resample an electronic density of states on EDOS_GRID, per primitive cell.

    Args:
        summary: Summary with the band edges.
        crystal: Its structure; the curve may belong to another cell of it.
        curve: Curve of the calculation that the summary names.
        nonmagnetic: Refuse spin channels that differ.

    Raises:
        SpectrumError: If the curve cannot become a label.
    """
    if curve.efermi is None or not len(curve.densities) or curve.densities.shape[1] != len(curve.points):
        rule = "its density of states lacks energies, densities or the Fermi level; leave it out"
        raise SpectrumError(crystal.material_id, rule)
    check_curve(crystal.material_id, curve.points, curve.densities)
    vbm, cbm, edge_source = _edges(summary, crystal.material_id, curve, curve.efermi)
    calculated = _calculated_cell(crystal, curve)
    middle = (vbm + cbm) / 2
    states = states_below(curve.points, curve.densities, middle)
    check_outer_electrons(crystal.material_id, states, calculated.atomic_numbers, middle)
    dos = resample(crystal.material_id, curve.points, curve.densities, vbm, cbm, nonmagnetic=nonmagnetic)
    spectrum = dos.spectrum * primitive_nsites(crystal) / len(calculated)
    label = {
        "edos": spectrum,
        "edos_edges": edge_source,
        "edos_task_id": summary.dos.task_id,
        "edos_run_type": curve.run_type,
    }
    edges = {"band_gap": dos.band_gap, "is_metal": dos.is_metal, "efermi": curve.efermi, "vbm": vbm, "cbm": cbm}
    return Label(crystal, label | edges)


def phonon_label(summary: Summary, crystal: Crystal, curve: Curve, method: str) -> Label:
    """Resample a phonon density of states on PHDOS_GRID, maximum 1.

    Args:
        summary: Summary that names the calculation.
        crystal: Its structure; the label belongs to the structure of the calculation, where it is known.
        curve: Frequencies in THz.
        method: Method of the calculation.

    Raises:
        SpectrumError: If the curve cannot become a label.
        StructureError: If the structure of the calculation cannot be used.
    """
    if len(curve.densities) != 1:
        raise SpectrumError(crystal.material_id, "its phonon density of states has no densities; leave it out")
    calculated = crystal if curve.structure is None else Crystal.from_structure(curve.structure, crystal.material_id)
    if calculated.composition != crystal.composition:
        rule = f"its phonons are those of {calculated.formula}, its summary is of {crystal.formula}; leave it out"
        raise SpectrumError(crystal.material_id, rule)
    frequencies = curve.points * WAVENUMBERS_PER_THZ
    spectrum = resample_phonons(crystal.material_id, frequencies, curve.densities[0], calculated)
    label = {
        "phdos": spectrum.spectrum,
        "phdos_id": summary.phonon_ids[method][0],
        "phdos_method": method,
        "phdos_structure": "summary" if curve.structure is None else "calculation",
        "lowest_frequency": spectrum.lowest_frequency,
        "share_above_grid": spectrum.share_above_grid,
    }
    return Label(calculated, label)


def _edges(summary: Summary, material_id: str, curve: Curve, fermi: float) -> tuple[float, float, str]:
    """VBM and CBM [eV] and their source: "bands", "curve" or "fermi".

    The edges of the bands are preferred, because they include the onset of each band. The curve must agree with them.

    Raises:
        SpectrumError: If bands and curve belong to calculations that disagree.
    """
    gap = 0.0 if summary.is_metal or (summary.band_gap or 0.0) < METAL_GAP else summary.band_gap or 0.0
    if gap and summary.vbm is not None and summary.cbm is not None:
        edges = (summary.vbm, summary.cbm)
        source = "bands"
        curve_edges = _gap_around(curve, (summary.vbm + summary.cbm) / 2)
        difference = max(abs(edges[0] - curve_edges[0]), abs(edges[1] - curve_edges[1]))
    else:
        curve_edges = band_edges(material_id, curve.points, curve.densities, fermi)
        edges, source = (curve_edges, "curve") if gap else ((fermi, fermi), "fermi")
        difference = 0.0
    curve_gap = curve_edges[1] - curve_edges[0]
    if max(abs(curve_gap - gap), difference) > EDGE_TOLERANCE:
        rule = f"its bands have {_describe_gap(gap, edges)}, its curve has {_describe_gap(curve_gap, curve_edges)}"
        raise SpectrumError(material_id, f"{rule}; the two calculations disagree, leave it out")
    if source == "fermi":
        _check_fermi_levels(summary, material_id, fermi)
    return (*edges, source)


def _check_fermi_levels(summary: Summary, material_id: str, fermi: float) -> None:
    """Refuse a curve whose Fermi level has another zero than that of the bands."""
    if summary.efermi is not None and abs(summary.efermi - fermi) > FERMI_TOLERANCE:
        rule = f"the Fermi level of its bands is {summary.efermi:.2f} eV, that of its curve {fermi:.2f} eV"
        raise SpectrumError(material_id, f"{rule}; the two calculations disagree, leave it out")


def _describe_gap(gap: float, edges: tuple[float, float]) -> str:
    return f"a gap of {gap:.2f} eV ({edges[0]:.2f} … {edges[1]:.2f})" if gap >= METAL_GAP else "no gap"


def _gap_around(curve: Curve, energy: float) -> tuple[float, float]:
    """Last energy with states below a given one, and first above it [eV]."""
    densities = curve.densities.sum(axis=0)
    occupied = np.flatnonzero(densities > 1e-3 * densities.mean())
    after = int(np.searchsorted(curve.points[occupied], energy))
    below = curve.points[occupied[after - 1]] if after else -np.inf
    above = curve.points[occupied[after]] if after < len(occupied) else np.inf
    return float(below), float(above)


def _calculated_cell(crystal: Crystal, curve: Curve) -> Crystal:
    """Cell to which a curve belongs: its own structure, else that of the summary."""
    if curve.structure is None:
        return crystal
    calculated = Crystal.from_structure(curve.structure, crystal.material_id)
    if calculated.composition != crystal.composition:
        rule = f"its density of states is of {calculated.formula}, its summary of {crystal.formula}; leave it out"
        raise SpectrumError(crystal.material_id, rule)
    return calculated
