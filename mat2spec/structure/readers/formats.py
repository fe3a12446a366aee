"""Structure files of the field: bytes in, and each structure that they hold out, as a crystal or as the reason why it is none."""

import io
import json
import posixpath
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from pymatgen.core import Lattice, Structure
from pymatgen.io.optimade import OptimadeStructureAdapter
from pymatgen.io.vasp.inputs import Poscar

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.errors import StructureError
from mat2spec.structure.readers.archives import is_archive, suffixes, without_compression
from mat2spec.structure.readers.cif import read_cif
from mat2spec.structure.readers.disorder import Parsed, parse_structure

TABLES = (".parquet", ".csv")

_VASP_NAMES = ("poscar", "contcar")


def is_known(path: str) -> bool:
    """Whether a name is that of a file which holds structures: of a format below, a table, or an archive."""
    return is_archive(path) or is_table(without_compression(path)) or _reader(path) is not None


def is_table(path: str) -> bool:
    """Whether a name is that of a table, one structure per row."""
    return path.lower().endswith(TABLES)


def stem(name: str) -> str:
    """The name of a file without folders and endings: quartz of a/quartz.cif.gz."""
    return posixpath.splitext(posixpath.basename(without_compression(name)))[0]


def read_structures(name: str, content: bytes, config: ReadingConfig, material_id: str | None = None) -> list[Parsed]:
    """Read all structures of a file.

    Args:
        name: Of the file, which tells its format.
        content: Its bytes, decompressed.
        config: What to do about disorder, and the largest cell.
        material_id: Of a file with one structure; default: the file's stem.

    Returns:
        At least one; of a file that cannot be read, the reason.
    """
    material_id = material_id or stem(name)
    reader = _reader(name)
    if reader is None:
        unknown = "has no ending of a known format: .cif, .vasp, .extxyz, .json, .csv, .parquet"
        rule = "is a compressed table; decompress it" if is_table(without_compression(name)) else unknown
        return [_refused(material_id, f"{PurePosixPath(name).name} {rule}")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parsers' remarks on rounding and site order
            return list(reader(_text(content), material_id, config)) or [
                _refused(material_id, f"{name} holds no structure")
            ]
    except Exception as error:  # the parsers raise whatever a broken file leads them to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [_refused(material_id, f"{PurePosixPath(name).name} cannot be read as a structure ({reason})")]


def _text(content: bytes) -> str:
    if not content.strip():
        raise ValueError("it is empty")
    if b"\0" in content:
        raise ValueError("it is binary; is it compressed without an ending that says so?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # names of authors; what matters here is ASCII in every format


def _reader(name: str) -> Callable[[str, str, ReadingConfig], Iterator[Parsed]] | None:
    plain = without_compression(name)
    if posixpath.basename(plain).lower().startswith(_VASP_NAMES):
        return _poscar
    return _READERS.get(suffixes(plain)[1])


def _refused(material_id: str, rule: str) -> Parsed:
    return Parsed("", StructureError(material_id, rule))


def _cif(text: str, material_id: str, config: ReadingConfig) -> Iterator[Parsed]:
    yield from read_cif(text, material_id, disorder=config.disorder, largest_cell=config.largest_cell)


def _poscar(text: str, material_id: str, config: ReadingConfig) -> Iterator[Parsed]:
    lines = text.splitlines()
    sites = max(sum(int(word) for word in line.split() if word.isdecimal()) for line in [*lines[5:7], ""])
    if sites > len(lines):  # pymatgen makes room for all that are declared, if it takes all memory
        raise ValueError(f"it declares {sites} sites in {len(lines)} lines")
    poscar = Poscar.from_str(text)
    if not poscar.true_names:  # pymatgen then takes H, He, Li …
        raise ValueError(
            "it names no elements, as VASP 4 wrote it; add a line with their symbols above the numbers of atoms"
        )
    yield _parsed(poscar.structure, material_id, config)


def _extxyz(text: str, material_id: str, config: ReadingConfig) -> Iterator[Parsed]:
    lines = text.splitlines()
    widest = max(map(len, lines))
    if too_many := [
        line.strip() for line in lines if line.strip().isdecimal() and int(line) > len(lines)
    ]:  # ASE would look for all
        raise ValueError(f"it declares {too_many[0]} sites in {len(lines)} lines")
    for properties in re.findall(r"Properties=(\S+)", text, re.IGNORECASE):
        columns = sum(map(int, re.findall(r":(\d+)", properties)))
        if columns > widest:  # ASE makes room for all that are declared, if it takes all memory
            raise ValueError(f"Properties declares {columns} columns, and no line has more than {widest} characters")
    frames = ase.io.read(io.StringIO(text), index=":", format="extxyz")
    for index, atoms in enumerate(frames):
        name = _name_in(atoms.info) or (f"{material_id}-{index}" if len(frames) > 1 else material_id)
        try:
            yield _parsed(_structure_of_atoms(atoms, name), name, config)
        except StructureError as error:
            yield Parsed(name, error)


def _json(text: str, material_id: str, config: ReadingConfig) -> Iterator[Parsed]:
    documents = _documents(json.loads(text), material_id)
    for name, document in documents:
        yield read_document(document, name, config)


def _json_lines(text: str, material_id: str, config: ReadingConfig) -> Iterator[Parsed]:
    for index, line in enumerate(filter(str.strip, text.splitlines())):
        found: Any = None
        try:
            found = json.loads(line)
        except ValueError as error:
            yield _refused(f"{material_id}-{index}", f"line {index + 1} is not JSON ({error})")
            continue
        yield read_document(found, _name_in(found) or f"{material_id}-{index}", config)


_READERS = {
    ".cif": _cif,
    ".mcif": _cif,
    ".vasp": _poscar,
    ".poscar": _poscar,
    ".extxyz": _extxyz,
    ".xyz": _extxyz,
    ".json": _json,
    ".jsonl": _json_lines,
}


def read_document(document: Any, material_id: str, config: ReadingConfig) -> Parsed:
    """Read the structure of one JSON document: pymatgen's, OPTIMADE's, or any with one of these under `structure`."""
    try:
        return _parsed(_structure_of_document(document), material_id, config)
    except StructureError as error:
        return _refused(material_id, error.rule)
    except Exception as error:  # from_dict raises whatever is missing
        return _refused(
            material_id, f"the document is no structure ({type(error).__name__}: {' '.join(str(error).split())[:150]})"
        )


def _documents(content: Any, material_id: str) -> list[tuple[str, Any]]:
    """Name each document of a JSON file: one, a list, OPTIMADE's `data`, or documents by id."""
    if isinstance(content, dict) and isinstance(content.get("data"), list | dict) and "lattice" not in content:
        content = content["data"]
    if isinstance(content, list):
        several = len(content) > 1
        return [
            (_name_in(item) or (f"{material_id}-{i}" if several else material_id), item)
            for i, item in enumerate(content)
        ]
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(value, dict) and _holds_structure(value) for value in content.values())
    ):
        return [(str(key), value) for key, value in content.items()]
    return [(_name_in(content) or material_id, content)]


def _holds_structure(document: dict[str, Any]) -> bool:
    return bool({"sites", "structure"} & document.keys()) or "lattice_vectors" in document.get("attributes", {})


def _name_in(document: Any) -> str | None:
    """The name that a document gives itself."""
    if isinstance(document, dict):
        for key in ("material_id", "id", "task_id"):
            if isinstance(document.get(key), str | int | np.integer) and document[key] != "":
                return str(document[key])
    return None


def _structure_of_document(document: Any) -> Structure:
    if not isinstance(document, dict):
        raise StructureError(
            "", f"the document is {type(document).__name__}, no structure; need pymatgen's as_dict or an OPTIMADE entry"
        )
    if isinstance(document.get("structure"), dict | str):
        inner = document["structure"]
        return _structure_of_document(json.loads(inner) if isinstance(inner, str) else inner)
    if "attributes" in document:
        return OptimadeStructureAdapter.get_structure(document)
    if "lattice" not in document or "sites" not in document:
        keys = ", ".join(sorted(document))[:100] or "none"
        raise StructureError(
            "", f"the document is no structure; need pymatgen's as_dict or an OPTIMADE entry (its keys are {keys})"
        )
    return Structure.from_dict(document)


def _structure_of_atoms(atoms: Atoms, name: str) -> Structure:
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise StructureError(
            name,
            "no periodic cell (Lattice in the second line of extXYZ); a molecule has no bands and no phonon branches",
        )
    return Structure(
        Lattice(np.array(atoms.cell)), atoms.get_atomic_numbers(), atoms.get_positions(), coords_are_cartesian=True
    )


def _parsed(structure: Structure, material_id: str, config: ReadingConfig) -> Parsed:
    return parse_structure(structure, material_id, disorder=config.disorder, largest_cell=config.largest_cell)
