"""What the name of a file says: its format, whether it is a table or an archive, and the name of its structure.

Apart from the readers, because pymatgen and ASE take a second to import.
"""

import posixpath

from mat2spec.structure.readers.archives import is_archive, suffixes, without_compression

_PARQUET = (".parquet", ".parq", ".pq")

TABLES = (*_PARQUET, ".csv")

POSCAR = ".poscar"

_FORMATS = (".cif", ".mcif", ".vasp", POSCAR, ".extxyz", ".xyz", ".json", ".jsonl")

_VASP_NAMES = ("poscar", "contcar")


def structure_format(name: str) -> str | None:
    """Extension that stands for the format of a structure file, compressed or not; None for other files."""
    plain = without_compression(name)
    extension = suffixes(plain)[1]
    if extension in _FORMATS:  # POSCAR_quartz.cif is a CIF
        return extension
    return POSCAR if posixpath.basename(plain).lower().startswith(_VASP_NAMES) else None


def is_known(path: str) -> bool:
    """Whether a name is that of a structure file, a table or an archive."""
    return is_archive(path) or is_table(without_compression(path)) or structure_format(path) is not None


def is_table(path: str) -> bool:
    """Whether a name is that of a table with one structure per row."""
    return path.lower().endswith(TABLES)


def is_parquet(path: str) -> bool:
    """Whether a name is that of a Parquet table."""
    return path.lower().endswith(_PARQUET)


def stem(name: str) -> str:
    """File name without folders and extensions: quartz for a/quartz.cif.gz."""
    return posixpath.splitext(posixpath.basename(without_compression(name)))[0]
