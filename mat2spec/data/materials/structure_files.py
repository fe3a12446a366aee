"""A folder of structure files as a materials table, one row per file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mat2spec.config import ReadingConfig
from mat2spec.data.materials.schema import CRYSTAL_SCHEMA
from mat2spec.errors import Mat2SpecError, StructureError
from mat2spec.storage.location import Location, locate, store_errors_as_oserror
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.archives import is_archive
from mat2spec.structure.readers.formats import is_known, is_table, read_structures, stem


def is_structure_file(path: Path) -> bool:
    """Whether a name is that of a structure file; tables and archives are none."""
    return is_known(path.name) and not is_table(path.name) and not is_archive(path.name)


def read_structure_files(files: Sequence[str]) -> tuple[pa.Table, dict[int, Mat2SpecError]]:
    """Read one structure from each file; its material_id is the file's stem.

    Returns:
        One row per file, and the errors of files that could not be read, by position; their rows have only an id.
    """
    rows: list[dict[str, Any]] = []
    errors: dict[int, Mat2SpecError] = {}
    for position, file in enumerate(files):
        try:
            rows.append(read_structure_file(locate(file)).to_row())
        except StructureError as error:
            errors[position] = error
            rows.append({"material_id": stem(file)})
    return pa.Table.from_pylist(rows, schema=CRYSTAL_SCHEMA), errors


def read_structure_file(file: Location) -> Crystal:
    """Read the crystal of one file.

    Raises:
        StructureError: If the file cannot be read, holds several structures, or its structure cannot be a crystal.
    """
    config = ReadingConfig()
    material_id = stem(file.name)
    try:
        with store_errors_as_oserror():
            size = file.stat().st_size
            if size > config.largest_file:
                raise StructureError(material_id, f"{file.name} has {size:,} bytes, more than {config.largest_file:,}")
            content = file.read_bytes()
    except OSError as error:
        raise StructureError(material_id, f"{file.name} cannot be read ({error.strerror})") from None
    structures = read_structures(file.name, content, config)
    if len(structures) > 1:
        rule = f"{file.name} holds {len(structures)} structures; make a table of them with mat2spec ingest files"
        raise StructureError(material_id, rule)
    crystal = structures[0].crystal
    if isinstance(crystal, StructureError):
        raise crystal
    return crystal
