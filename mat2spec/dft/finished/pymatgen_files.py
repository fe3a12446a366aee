"""Densities of states that pymatgen has written as JSON: Dos, CompleteDos, PhononDos, CompletePhononDos."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from pymatgen.core import Structure
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos

from mat2spec.dft.finished.listing import dos_document, read_json
from mat2spec.dft.finished.phonopy_files import WAVENUMBERS, Curve
from mat2spec.dft.finished.structures import crystal_beside
from mat2spec.dft.finished.vasp_files import Electrons
from mat2spec.dos.curves import as_numbers
from mat2spec.dos.electronic import resample_pymatgen
from mat2spec.errors import CalculationError, StructureError
from mat2spec.structure.crystal import Crystal


def read_phonon_dos(path: Path, material_id: str, unit: str) -> Curve:
    """Read a PhononDos or CompletePhononDos.

    Raises:
        SpectrumError: If frequencies or densities are no numbers.
        StructureError: If neither the file nor one beside it has the structure.
    """
    document, crystal, source = _open(path, material_id)
    frequencies = as_numbers(material_id, "frequencies", _plain(document.get("frequencies")))
    densities = as_numbers(material_id, "densities", _plain(document.get("densities")))
    return frequencies * WAVENUMBERS[unit], densities, crystal, source


def read_electronic_dos(path: Path, material_id: str) -> Electrons:
    """Read a Dos or CompleteDos.

    Raises:
        CalculationError: If its densities are not those of spin channels 1 and -1.
        SpectrumError: If the curve does not fill the grid, or holds another number of states.
        StructureError: If neither the file nor one beside it has the structure.
    """
    document, crystal, source = _open(path, material_id)
    densities = document.get("densities")
    if not isinstance(densities, dict) or not densities or not densities.keys() <= {"1", "-1"}:
        got = ", ".join(map(str, densities)) if isinstance(densities, dict) else type(densities).__name__
        rule = f"the densities of {path.name} are {got or 'empty'}"
        raise CalculationError(material_id, f"{rule}; pymatgen writes them by spin, 1 and -1: save dos.as_dict()")
    channels: dict[Any, Float64[np.ndarray, "..."]] = {
        Spin(int(spin)): as_numbers(material_id, "densities", _plain(values)) for spin, values in densities.items()
    }
    energies = as_numbers(material_id, "energies", _plain(document.get("energies")))
    volume = document.get("norm_vol")
    fermi = document.get("efermi")
    fermi = float(fermi) if isinstance(fermi, int | float) else None
    if isinstance(volume, int | float) and volume > 0:  # densities are states/eV/Å³
        channels = {spin: values * volume for spin, values in channels.items()}
    dos: Any = CompleteDos(crystal.to_structure(), Dos(fermi, energies, channels), {})  # type: ignore[arg-type]
    return resample_pymatgen(material_id, dos), fermi or 0.0, crystal, source, "curve"


def _open(path: Path, material_id: str) -> tuple[dict[str, Any], Crystal, Path]:
    """The density of states of a JSON file, and the structure in it or beside it."""
    document = read_json(path)
    if (inner := dos_document(document)) is None:
        raise CalculationError(material_id, f"{path} is not JSON, or is cut; save dos.as_dict() again")
    for holder in (inner, document):
        if isinstance(structure := holder.get("structure"), dict):
            try:
                return inner, Crystal.from_structure(Structure.from_dict(structure), material_id), path
            except (KeyError, TypeError, ValueError) as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
                rule = f"the structure in {path.name} cannot be read ({reason})"
                raise StructureError(material_id, f"{rule}; save structure.as_dict() there") from None
    return inner, *crystal_beside(path, material_id)


def _plain(values: Any) -> Any:
    """Numbers of a list, or of an array as monty writes it."""
    return values.get("data") if isinstance(values, dict) else values
