"""The structure that belongs to a finished calculation: in the file itself, or in one beside it."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from monty.io import zopen

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import check_distances
from mat2spec.structure.readers.formats import read_structures
from mat2spec.structure.readers.names import structure_format

BOHR = 0.529177210903
"""[Å] Lengths in phonopy.yaml are in Bohr for some calculators."""

_PHONOPY = r"(.+[-_.])?phonopy(_params|_disp)?\.yaml(\.gz|\.bz2|\.xz)?"

_DISPLACED = re.compile(r"(poscar|contcar)[-_.]?\d+", re.IGNORECASE)
"""Supercells with displaced atoms: POSCAR-001."""

_PREFERRED = ("contcar", "poscar", "poscar-unitcell")
"""Structure files of VASP and phonopy, by what is nearest to the calculation."""


def crystal_beside(path: Path, material_id: str) -> tuple[Crystal, Path]:
    """Return the structure beside a file of a calculation, and the file that holds it.

    It is that of phonopy.yaml, else of CONTCAR, POSCAR or POSCAR-unitcell, else of the structure file with the same
    stem, else of the only one.

    Raises:
        StructureError: If there is none, if there are several, or if it cannot be read.
    """
    files = sorted(file for file in path.parent.iterdir() if file.is_file() and file != path)
    by_name = {file.name.lower(): file for file in files}
    if not path.name.lower().endswith(".json"):
        for file in files:
            if re.fullmatch(_PHONOPY, file.name) and (crystal := crystal_of_phonopy(file, material_id)):
                return crystal, file
        for name in _PREFERRED:
            named = by_name.get(name) or by_name.get(f"{name}.gz")
            if named is not None and named.stat().st_size:
                return _read(named, material_id), named
    known = [file for file in files if structure_format(file.name) and not _DISPLACED.fullmatch(file.name)]
    stem = path.name.split(".")[0]
    namesakes = [file for file in known if file.name.split(".")[0] in _stems(stem)]
    if len(found := namesakes or [file for file in known if not _is_json(file)]) == 1:
        return _read(found[0], material_id), found[0]
    if found:
        names = ", ".join(file.name for file in found[:3])
        rule = f"{len(found)} structure files are beside {path.name} ({names})"
        raise StructureError(material_id, f"{rule}; leave one, or name it POSCAR")
    rule = f"no structure is beside {path.name} in {path.parent}"
    raise StructureError(material_id, f"{rule}; put its POSCAR, CIF or phonopy.yaml there")


def _stems(stem: str) -> set[str]:
    """Stems of structure files that belong to a curve: Si for Si, Si-dos and Si_phdos."""
    return {stem, re.sub(r"[-_](dos|phdos|edos|phonon_?dos|complete_?dos)$", "", stem, flags=re.IGNORECASE)}


def _is_json(file: Path) -> bool:
    return ".json" in file.name.lower()


def _read(file: Path, material_id: str) -> Crystal:
    """Read a file with one ordered structure.

    Raises:
        StructureError: If it cannot be read or holds several.
    """
    try:
        with zopen(file, "rb") as stream:
            content = bytes(stream.read())
    except (OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise StructureError(material_id, f"{file} cannot be read ({reason}); copy it again") from None
    name = re.sub(r"\.(gz|bz2|xz)$", "", file.name)
    structures = read_structures(name, content, ReadingConfig(), material_id)
    if len(structures) > 1:
        rule = f"{file.name} holds {len(structures)} structures"
        raise StructureError(material_id, f"{rule}; give one of them")
    result = structures[0].crystal
    if isinstance(result, StructureError):
        raise StructureError(material_id, result.rule)
    return Crystal(material_id, result.atomic_numbers, result.lattice, result.frac_coords)


def crystal_of_phonopy(file: Path, material_id: str) -> Crystal | None:
    """Return the primitive or unit cell of phonopy.yaml; None if it has neither.

    Raises:
        StructureError: If it cannot be a crystal.
    """
    document = read_yaml(file, material_id)
    cell = next((document[key] for key in ("primitive_cell", "unit_cell") if isinstance(document.get(key), dict)), None)
    if cell is None:
        return None
    units = document.get("physical_unit")
    length = str(units.get("length", "angstrom")).lower() if isinstance(units, dict) else "angstrom"
    return crystal_of_cell(cell, material_id, file.name, BOHR if length in ("au", "bohr") else 1.0)


def crystal_of_cell(cell: dict[str, Any], material_id: str, source: str, length: float = 1.0) -> Crystal:
    """Convert a cell as phonopy writes it: lattice, and points with symbol and coordinates.

    Args:
        cell: The cell.
        material_id: Name of the material.
        source: File, for errors.
        length: Unit of its lattice [Å].

    Raises:
        StructureError: If something is missing, or it cannot be a crystal.
    """
    from pymatgen.core import Structure

    try:
        points = cell["points"]
        symbols = [re.sub(r"\d+$", "", str(point["symbol"])) for point in points]
        coords = [point["coordinates"] for point in points]
        structure = Structure(np.array(cell["lattice"], np.float64) * length, symbols, coords)
    except (KeyError, TypeError, ValueError) as error:
        rule = f"the cell in {source} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
        raise StructureError(material_id, f"{rule}; write it again with phonopy, or put a POSCAR beside it") from None
    crystal = Crystal.from_structure(structure, material_id)
    check_distances(crystal)
    return crystal


def read_yaml(file: Path, material_id: str) -> dict[str, Any]:
    """Read a YAML file of phonopy.

    Raises:
        StructureError: If it is damaged.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with zopen(file, "rt", encoding="utf-8") as stream, warnings.catch_warnings():
            document = yaml.load(stream, loader)
    except (OSError, EOFError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:150]
        raise StructureError(material_id, f"{file} cannot be read ({reason}); write it again with phonopy") from None
    if not isinstance(document, dict):
        raise StructureError(material_id, f"{file} is no YAML of phonopy; write it again with phonopy")
    return document
