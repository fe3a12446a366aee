"""Structure files (CIF, POSCAR, pymatgen's JSON) as rows of a materials table."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser

from mat2spec.crystal import Crystal
from mat2spec.errors import Mat2SpecError, StructureError

SCHEMA = pa.schema(
    {
        "material_id": pa.string(),
        "formula_pretty": pa.string(),
        "nsites": pa.int32(),
        "atomic_numbers": pa.list_(pa.uint8()),
        "lattice": pa.list_(pa.float64(), 9),
        "frac_coords": pa.list_(pa.float64()),
    }
)
"""The materials table that we write."""

_SUFFIXES = {".cif", ".vasp", ".poscar", ".json"}
_VASP_NAMES = ("POSCAR", "CONTCAR")


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of a file which holds a structure."""
    return path.suffix.lower() in _SUFFIXES or path.name.startswith(_VASP_NAMES)


def read_structure_files(files: Sequence[str]) -> tuple[pa.Table, dict[int, Mat2SpecError]]:
    """Read one structure from each file; its material_id is the file's stem.

    Returns:
        One row per file, and the reasons for those that could not be read, by position; their rows have only an id.
    """
    rows: list[dict[str, Any]] = []
    refused: dict[int, Mat2SpecError] = {}
    for position, file in enumerate(files):
        material_id = Path(file).stem
        try:
            crystal = read_structure_file(Path(file))
        except StructureError as error:
            refused[position] = error
            rows.append({"material_id": material_id})
            continue
        rows.append(
            {
                "material_id": material_id,
                "formula_pretty": crystal.formula,
                "nsites": len(crystal),
                "atomic_numbers": crystal.atomic_numbers,
                "lattice": crystal.lattice.ravel(),
                "frac_coords": crystal.frac_coords.ravel(),
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA), refused


def read_structure_file(file: Path) -> Crystal:
    """Read the crystal of one file.

    Raises:
        StructureError: If the file cannot be read, or its structure is disordered or otherwise no crystal of ours.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen's remarks on rounding and site order
            structure = _only_structure_of_cif(file) if file.suffix.lower() == ".cif" else Structure.from_file(file)
    except StructureError:
        raise
    except Exception as error:  # the parsers raise whatever a broken file leads them to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StructureError(file.stem, f"{file.name} cannot be read as a structure ({reason})") from None
    return Crystal.from_structure(structure, file.stem)


def _only_structure_of_cif(file: Path) -> Structure:
    structures = CifParser(file, occupancy_tolerance=1.0).parse_structures(primitive=False)
    if len(structures) > 1:
        raise StructureError(file.stem, f"{file.name} holds {len(structures)} structures; give one file for each")
    return structures[0]
