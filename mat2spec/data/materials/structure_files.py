"""A folder of structure files as a materials table, one row per file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mat2spec.config import ReadingConfig
from mat2spec.data.materials.schema import COLUMNS
from mat2spec.data.materials.schema import SCHEMA as MATERIALS_SCHEMA
from mat2spec.errors import Mat2SpecError, StructureError
from mat2spec.storage.location import Location, errors_of_stores, locate
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.archives import is_archive
from mat2spec.structure.readers.formats import is_known, is_table, read_structures, stem

SCHEMA = pa.schema([MATERIALS_SCHEMA.field(name) for name in COLUMNS])
"""The columns that a file can fill."""


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of a file which holds a structure, neither a table nor an archive."""
    return is_known(path.name) and not is_table(path.name) and not is_archive(path.name)


def read_structure_files(files: Sequence[str]) -> tuple[pa.Table, dict[int, Mat2SpecError]]:
    """Read one structure from each file; its material_id is the file's stem.

    Returns:
        One row per file, and the reasons for those that could not be read, by position; their rows have only an id.
    """
    rows: list[dict[str, Any]] = []
    refused: dict[int, Mat2SpecError] = {}
    for position, file in enumerate(files):
        material_id = stem(file)
        try:
            crystal = read_structure_file(locate(file))
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


def read_structure_file(file: Location) -> Crystal:
    """Read the crystal of one file.

    Raises:
        StructureError: If the file cannot be read or holds several, or its structure is disordered or otherwise no crystal of ours.
    """
    config = ReadingConfig()
    try:
        with errors_of_stores():
            size = file.stat().st_size
            if size > config.largest_file:
                raise StructureError(
                    stem(file.name), f"{file.name} has {size:,} bytes, more than {config.largest_file:,}"
                )
            content = file.read_bytes()
        found = read_structures(file.name, content, config)
    except OSError as error:
        raise StructureError(stem(file.name), f"{file.name} cannot be read ({error.strerror})") from None
    if len(found) > 1:
        raise StructureError(
            stem(file.name), f"{file.name} holds {len(found)} structures; jobs/ingest.py files makes a table of them"
        )
    if isinstance(found[0].crystal, StructureError):
        raise found[0].crystal
    return found[0].crystal
