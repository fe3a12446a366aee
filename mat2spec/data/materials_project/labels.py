"""Densities of states of the Materials Project as labels: on the grids of training, per primitive cell, or why a curve is none."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos

from mat2spec.data.materials_project.curves import Curve
from mat2spec.data.materials_project.summaries import Summary
from mat2spec.dos.electronic import METAL_GAP, band_edges, check_curve, resample
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.dos.phonon import WAVENUMBERS_PER_THZ, resample_phonons
from mat2spec.errors import SpectrumError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import primitive_nsites

EDGE_TOLERANCE = 0.25
"""[eV] By how much the gap of the bands and that of the curve may differ; more, and emmet too warns that two calculations disagree."""

EDOS_COLUMNS = {
    "edos": pa.list_(pa.float32(), len(EDOS_GRID)),
    "edos_edges": pa.string(),
    "edos_task_id": pa.string(),
    "edos_run_type": pa.string(),
}
"""Of a table of electronic labels; band_gap, efermi, vbm, cbm and is_metal are then those of the label."""

PHDOS_COLUMNS = {
    "phdos": pa.list_(pa.float32(), len(PHDOS_GRID)),
    "phdos_id": pa.string(),
    "phdos_method": pa.string(),
    "phdos_structure": pa.string(),
    "lowest_frequency": pa.float64(),
    "share_above_grid": pa.float64(),
}
"""Of a table of phonon labels."""


@dataclass(frozen=True)
class Label:
    """A labelled crystal.

    Args:
        crystal: What is labelled.
        columns: The label and what is known of it; those of a summary by the same name are replaced.
    """

    crystal: Crystal
    columns: dict[str, Any]


def electronic_label(summary: Summary, crystal: Crystal, curve: Curve, *, nonmagnetic: bool) -> Label:
    """Bring an electronic density of states to EDOS_GRID, per primitive cell.

    Args:
        summary: Has the band edges.
        crystal: Its structure; the curve may be of another cell of it.
        curve: Of the calculation that the summary names.
        nonmagnetic: Refuse spin channels that differ.

    Raises:
        SpectrumError: If there is no such label.
    """
    if curve.efermi is None or not len(curve.densities) or curve.densities.shape[1] != len(curve.points):
        raise SpectrumError(
            crystal.material_id, "its density of states lacks energies, densities or the Fermi level; leave it out"
        )
    check_curve(crystal.material_id, curve.points, curve.densities)
    vbm, cbm, found_in = _edges(summary, crystal.material_id, curve, curve.efermi)
    dos = resample(crystal.material_id, curve.points, curve.densities, vbm, cbm, nonmagnetic=nonmagnetic)
    spectrum = dos.spectrum * primitive_nsites(crystal) / _nsites_of_curve(crystal, curve)
    label = {
        "edos": spectrum,
        "edos_edges": found_in,
        "edos_task_id": summary.dos.task_id,
        "edos_run_type": curve.run_type,
    }
    edges = {"band_gap": dos.band_gap, "is_metal": dos.is_metal, "efermi": curve.efermi, "vbm": vbm, "cbm": cbm}
    return Label(crystal, label | edges)


def phonon_label(summary: Summary, crystal: Crystal, curve: Curve, method: str) -> Label:
    """Bring a phonon density of states to PHDOS_GRID, maximum 1.

    Args:
        summary: Names the calculation.
        crystal: Its structure; what is labelled is that of the calculation, where it is known.
        curve: Frequencies in THz.
        method: How it was calculated.

    Raises:
        SpectrumError: If there is no such label.
        StructureError: If the structure of the calculation cannot be used.
    """
    if len(curve.densities) != 1:
        raise SpectrumError(crystal.material_id, "its phonon density of states has no densities; leave it out")
    spectrum = resample_phonons(crystal.material_id, curve.points * WAVENUMBERS_PER_THZ, curve.densities[0])
    calculated = crystal if curve.structure is None else Crystal.from_structure(curve.structure, crystal.material_id)
    if calculated.composition != crystal.composition:
        raise SpectrumError(
            crystal.material_id, f"its phonons are those of {calculated.formula}, its summary of {crystal.formula}"
        )
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
    """VBM and CBM [eV], and where they were found: those of the bands, as they miss no foot of a band, if the curve agrees.

    Raises:
        SpectrumError: If bands and curve are of calculations that disagree.
    """
    gap = 0.0 if summary.is_metal or (summary.band_gap or 0.0) < METAL_GAP else summary.band_gap or 0.0
    if gap and summary.vbm is not None and summary.cbm is not None:
        edges, found_in = (summary.vbm, summary.cbm), "bands"
        of_curve = _gap_around(curve, (summary.vbm + summary.cbm) / 2)
        apart = max(abs(edges[0] - of_curve[0]), abs(edges[1] - of_curve[1]))
    else:
        of_curve = band_edges(Dos(fermi, curve.points, dict(zip((Spin.up, Spin.down), curve.densities, strict=False))))
        edges, found_in, apart = (of_curve, "curve", 0.0) if gap else ((fermi, fermi), "fermi", 0.0)
    found = of_curve[1] - of_curve[0]
    if max(abs(found - gap), apart) > EDGE_TOLERANCE:
        rule = f"its bands have {_told_gap(gap, edges)}, its density of states {_told_gap(found, of_curve)}"
        raise SpectrumError(material_id, f"{rule}; the two calculations disagree, leave it out")
    return (*edges, found_in)


def _told_gap(gap: float, edges: tuple[float, float]) -> str:
    return f"a gap of {gap:.2f} eV ({edges[0]:.2f} … {edges[1]:.2f})" if gap >= METAL_GAP else "no gap"


def _gap_around(curve: Curve, energy: float) -> tuple[float, float]:
    """Last energy with states below one, and first above it [eV]; both the energy itself where there are states at it."""
    densities = curve.densities.sum(axis=0)
    occupied = np.flatnonzero(densities > 1e-3 * densities.mean())
    after = int(np.searchsorted(curve.points[occupied], energy))
    below = curve.points[occupied[after - 1]] if after else -np.inf
    above = curve.points[occupied[after]] if after < len(occupied) else np.inf
    return float(below), float(above)


def _nsites_of_curve(crystal: Crystal, curve: Curve) -> int:
    """Atoms of the cell to which a curve belongs: of its own structure, else of the summary's."""
    if curve.structure is None:
        return len(crystal)
    calculated = Crystal.from_structure(curve.structure, crystal.material_id)
    if calculated.composition != crystal.composition:
        raise SpectrumError(
            crystal.material_id,
            f"its density of states is that of {calculated.formula}, its summary of {crystal.formula}",
        )
    return len(calculated)
