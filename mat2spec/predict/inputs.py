"""Whatever describes a crystal — pymatgen, ASE, arrays, a structure file — as crystals."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from ase import Atoms
from pymatgen.core import Structure

from mat2spec.config import ReadingConfig
from mat2spec.errors import StructureError, TableError
from mat2spec.storage.location import locate, store_errors_as_oserror
from mat2spec.structure.crystal import Crystal

OneStructure: TypeAlias = Structure | Atoms | Crystal
StructureFile: TypeAlias = str | os.PathLike[str]
"""A path, or a URL."""


def read_crystals(structures: Any) -> tuple[list[Crystal], bool]:
    """Return crystals, and whether the argument was one structure, or a file with one.

    Args:
        structures: OneStructure, StructureFile or an iterable of these. A Structure has the material_id of its
            `properties`, Atoms that of their `info`; the default is the formula. In a file with several structures,
            each has the name that the file gives it.

    Raises:
        StructureError: If a file cannot be read or a structure cannot be a crystal.
        TableError: If a file is a table or an archive.
        TypeError: If something describes no crystal.
    """
    if isinstance(structures, OneStructure | str | os.PathLike):
        crystals = list(_crystals_of(structures))
        return crystals, len(crystals) == 1
    if not isinstance(structures, Iterable):
        raise _wrong_type(structures)
    return [crystal for item in structures for crystal in _crystals_of(item)], False


def _crystals_of(item: Any) -> Iterator[Crystal]:
    match item:
        case Crystal():
            yield item
        case Structure():
            yield Crystal.from_structure(item, _name(item.properties))
        case Atoms():
            yield Crystal.from_atoms(item, _name(item.info))
        case str() | os.PathLike():
            yield from read_file(os.fspath(item))
        case _:
            raise _wrong_type(item)


def _name(properties: dict[str, Any]) -> str | None:
    """The material_id among the properties of a structure."""
    material_id = properties.get("material_id")
    return None if material_id in (None, "") else str(material_id)


def _wrong_type(item: Any) -> TypeError:
    accepted = "a pymatgen Structure, ASE Atoms, a Crystal, the path of a structure file, or a sequence of these"
    return TypeError(f"{type(item).__name__} is not a structure; give {accepted}")


def read_file(path: str) -> list[Crystal]:
    """Read every crystal of a structure file, compressed or not.

    Raises:
        StructureError: If the file cannot be read, or one of its structures cannot be a crystal.
        TableError: If it is a table or an archive, damaged or too large.
    """
    crystals = parse_file(path, ReadingConfig())
    for crystal in crystals:
        if isinstance(crystal, StructureError):
            raise crystal
    return [crystal for crystal in crystals if isinstance(crystal, Crystal)]


def parse_file(path: str, config: ReadingConfig) -> list[Crystal | StructureError]:
    """Read every structure of a file; one that cannot be a crystal is the error that says why.

    Raises:
        StructureError: If the file cannot be read.
        TableError: If it is a table or an archive, damaged or too large.
    """
    # pymatgen's and ASE's readers take half a second to import, which a Structure does not need
    from mat2spec.structure.readers.archives import is_archive, read_bounded
    from mat2spec.structure.readers.formats import read_structures
    from mat2spec.structure.readers.names import is_table, stem

    file = locate(path)
    if is_table(file.name) or is_archive(file.name):
        kind = "an archive" if is_archive(file.name) else "a table"
        raise TableError(f"{path} is {kind} of structures; predict it with mat2spec screen --input {path}")
    try:
        with store_errors_as_oserror(), file.open("rb") as stream:
            content = read_bounded(file.name, stream, config.largest_file)
    except OSError as error:
        raise StructureError(stem(file.name), f"{path} cannot be read ({error.strerror or error})") from None
    return [structure.crystal for structure in read_structures(file.name, content, config)]
