"""One finished calculation as a label: crystal, spectrum on the grid of training, and where both are from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mat2spec.dft.finished.listing import CalculationFile
from mat2spec.dft.finished.phonopy_files import compute_dos, read_mesh, read_total_dos
from mat2spec.dft.finished.pymatgen_files import read_electronic_dos, read_phonon_dos
from mat2spec.dft.finished.vasp_files import read_doscar, read_vasprun
from mat2spec.dos.phonon import resample_phonons
from mat2spec.errors import SpectrumError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import primitive_nsites


@dataclass(frozen=True)
class FinishedSpectrum:
    """The label of a finished calculation.

    Args:
        crystal: The crystal that was computed.
        spectrum: Phonons: maximum 1; electrons: states/eV per primitive cell.
        structure_file: File with the structure.
        columns: Numbers of the curve, by column of a table of labels.
    """

    crystal: Crystal
    spectrum: Float64[np.ndarray, " bins"]
    structure_file: Path
    columns: dict[str, Any]


def read_finished(file: CalculationFile, unit: str = "THz") -> FinishedSpectrum:
    """Read a density of states and its structure.

    Args:
        file: The file.
        unit: Unit of the frequencies in files of phonons.

    Raises:
        MaterialError: If the file, its curve or its structure cannot be used.
        ModuleNotFoundError: If a package that it needs is not installed.
    """
    return _phonons(file, unit) if file.grid == "phdos" else _electrons(file)


def _phonons(file: CalculationFile, unit: str) -> FinishedSpectrum:
    name = file.material_id
    match file.kind:
        case "total_dos.dat":
            curve = read_total_dos(file.path, name, unit)
        case "mesh.yaml":
            curve = read_mesh(file.path, name, unit)
        case "phonopy.yaml":
            curve = compute_dos(file.path, name)
        case _:
            curve = read_phonon_dos(file.path, name, unit)
    frequencies, densities, crystal, source = curve
    try:
        dos = resample_phonons(name, frequencies, densities, crystal)
    except SpectrumError as error:
        if "convert the frequencies" not in error.rule:
            raise
        rule = error.rule.partition("; convert")[0]
        way_out = f"{file.path.name} was read in {unit}; set --frequency-unit, or check the structure {source.name}"
        raise SpectrumError(name, f"{rule}; {way_out}") from None
    columns = {"lowest_frequency": dos.lowest_frequency, "share_above_grid": dos.share_above_grid}
    return FinishedSpectrum(crystal, dos.spectrum, source, columns)


def _electrons(file: CalculationFile) -> FinishedSpectrum:
    readers = {"vasprun.xml": read_vasprun, "DOSCAR": read_doscar}
    read = readers.get(file.kind, read_electronic_dos)
    dos, fermi, crystal, source, edges = read(file.path, file.material_id)
    columns = {
        "band_gap": dos.band_gap,
        "is_metal": dos.is_metal,
        "efermi": fermi,
        "vbm": dos.vbm,
        "cbm": dos.cbm,
        "edos_edges": edges,
    }
    return FinishedSpectrum(crystal, dos.spectrum * primitive_nsites(crystal) / len(crystal), source, columns)
