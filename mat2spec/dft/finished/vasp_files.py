"""Electronic densities of states of VASP: vasprun.xml with its bands; DOSCAR, whose band edges are the curve's own."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from monty.io import zopen
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos

from mat2spec.dft.finished.structures import crystal_beside
from mat2spec.dft.vasp_bands import MAX_SPACING, curve_of, vasp_band_edges
from mat2spec.dft.vasp_engine import parse_vasprun
from mat2spec.dos.electronic import ElectronicDos, resample, resample_pymatgen
from mat2spec.errors import CalculationError
from mat2spec.structure.crystal import Crystal

VOLUME_TOLERANCE = 0.02
"""Relative difference between the volume in DOSCAR and that of the structure beside it: CONTCAR after a relaxation."""

_HEADER = 6
"""Lines of DOSCAR before the total density of states."""

_EXPONENT = re.compile(r"(\d)([-+]\d{3})(?=\s|$)")
"""Fortran drops the E of exponents with three digits: 0.1234-100."""

Electrons = tuple[ElectronicDos, float, Crystal, Path, str]
"""Spectrum per cell of the calculation, Fermi level [eV], crystal, file of its structure, and source of the edges."""


def read_vasprun(path: Path, material_id: str) -> Electrons:
    """Read vasprun.xml: bands, electrons and density of states must agree.

    Raises:
        CalculationError: If it is damaged or not converged, or they do not.
        SpectrumError: If the curve does not fill the grid.
        StructureError: If its structure cannot be a crystal.
    """
    run = parse_vasprun(material_id, path)
    crystal = Crystal.from_structure(run.final_structure, material_id)
    energies, channels = curve_of(run)
    vbm, cbm = vasp_band_edges(material_id, run)
    return resample(material_id, energies, channels, vbm, cbm), float(run.efermi), crystal, path, "bands"


def read_doscar(path: Path, material_id: str) -> Electrons:
    """Read DOSCAR, and the structure beside it.

    Raises:
        CalculationError: If it is damaged, its points are too far apart, or it belongs to another structure.
        SpectrumError: If the curve does not fill the grid, or holds another number of states.
        StructureError: If there is no structure beside it.
    """
    lines = _lines(path, material_id)
    crystal, source = crystal_beside(path, material_id)
    table, fermi = _table(lines, path, material_id)
    _check_structure(lines, crystal, source, path)
    spacing = float(np.diff(table[:, 0]).max(initial=0.0))
    if spacing > MAX_SPACING:
        rule = f"the points of its curve are {spacing:.2g} eV apart, at most {MAX_SPACING:g} eV show its shape"
        raise CalculationError(material_id, f"{rule}; increase NEDOS")
    channels = table[:, 1 : 1 + (table.shape[1] - 1) // 2].T
    total = Dos(fermi, table[:, 0], dict(zip((Spin.up, Spin.down), channels, strict=False)))
    dos: Any = CompleteDos(crystal.to_structure(), total, {})
    return resample_pymatgen(material_id, dos), fermi, crystal, source, "curve"


def _lines(path: Path, material_id: str) -> list[str]:
    try:
        with zopen(path, "rt", encoding="utf-8") as stream:
            lines = str(stream.read()).splitlines()
    except (OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise CalculationError(material_id, f"{path} cannot be read ({reason}); copy it again") from None
    if len(lines) <= _HEADER:
        rule = f"{path} has {len(lines)} lines, DOSCAR has {_HEADER} before its curve"
        raise CalculationError(material_id, f"{rule}; is VASP still running?")
    return lines


def _table(lines: list[str], path: Path, material_id: str) -> tuple[Float64[np.ndarray, "points columns"], float]:
    """Energies, densities and integrals of one or two spin channels, and the Fermi level [eV]."""
    try:
        # EMAX, EMIN, NEDOS, EFERMI, 1.0; the columns are fixed, and large numbers leave no space between them
        header = lines[_HEADER - 1]
        count, fermi = int(header[32:37]), float(header[37:53])
    except ValueError:
        words = lines[_HEADER - 1].split()
        try:
            count, fermi = int(words[2]), float(words[3])
        except (ValueError, IndexError):
            rule = f"line {_HEADER} of {path} is {lines[_HEADER - 1].strip()[:60]!r}"
            raise CalculationError(
                material_id, f"{rule}, DOSCAR has EMAX, EMIN, NEDOS, EFERMI there; copy it again"
            ) from None
    rows = [_EXPONENT.sub(r"\1E\2", line).split() for line in lines[_HEADER : _HEADER + count]]
    widths = sorted({len(row) for row in rows})
    if len(rows) < count or widths not in ([3], [5]):
        rule = f"{path} has {len(rows)} of {count} points with {' or '.join(map(str, widths))} columns"
        raise CalculationError(
            material_id, f"{rule}; the total density of states has 3, or 5 with two spins: is VASP still running?"
        )
    try:
        return np.array(rows, np.float64), fermi
    except ValueError as error:
        raise CalculationError(material_id, f"{path} holds no number ({error}); run VASP with a wider window") from None


def _check_structure(lines: list[str], crystal: Crystal, source: Path, path: Path) -> None:
    """Refuse a structure with another number of atoms or another volume than DOSCAR names in its first lines."""
    try:
        atoms, per_atom = int(lines[0].split()[1]), float(lines[1].split()[0])
    except (ValueError, IndexError):
        rule = f"the first lines of {path} lack the number and the volume of its atoms"
        raise CalculationError(crystal.material_id, f"{rule}; copy it again") from None
    ours = crystal.volume / len(crystal)
    if atoms != len(crystal) or abs(per_atom / ours - 1) > VOLUME_TOLERANCE:
        rule = f"{path.name} is of {atoms} atoms of {per_atom:.3f} Å³, {source.name} of {len(crystal)} of {ours:.3f} Å³"
        raise CalculationError(crystal.material_id, f"{rule}; put the structure of the calculation beside it")
