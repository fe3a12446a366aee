"""Readers for CIF, POSCAR, extXYZ and JSON. Each returns crystals, or a StructureError per structure it cannot read."""

import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pymatgen.core import Structure

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import check_distances
from mat2spec.structure.readers.archives import without_compression
from mat2spec.structure.readers.cif import read_cif
from mat2spec.structure.readers.disorder import ParsedStructure, check_size, normalized, parse_structure
from mat2spec.structure.readers.names import POSCAR, is_table, stem, structure_format
from mat2spec.structure.readers.optimade import structure_of_entry
from mat2spec.structure.readers.poscar import read_poscar

_STRUCTURE_DOCUMENT = "a structure: pymatgen's as_dict or an OPTIMADE entry"


def read_structures(
    name: str, content: bytes, config: ReadingConfig, material_id: str | None = None
) -> list[ParsedStructure]:
    """Read all structures of a file.

    Args:
        name: File name; its extension determines the format.
        content: Its bytes, decompressed.
        config: Treatment of disorder, and the largest cell.
        material_id: Of a file with one structure; default: the file's stem.

    Returns:
        At least one entry; for a file that cannot be read, an error.
    """
    material_id = material_id or stem(name)
    reader = _READERS.get(structure_format(name))
    if reader is None:
        unknown = "has no known extension: .cif, .vasp, .extxyz, .json, .csv, .parquet"
        rule = "is a compressed table; decompress it" if is_table(without_compression(name)) else unknown
        return [_error(material_id, f"{PurePosixPath(name).name} {rule}")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parsers warn of rounding and site order
            structures = list(reader(_text(content), material_id, config))
    except Exception as error:  # the parsers raise any kind of exception for a broken file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [_error(material_id, f"{PurePosixPath(name).name} cannot be read as a structure ({reason})")]
    return structures or [_error(material_id, f"{name} holds no structure")]


def _text(content: bytes) -> str:
    if not content.strip():
        raise ValueError("it is empty")
    if b"\0" in content:
        raise ValueError("it is binary; is it compressed without an extension such as .gz?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # for names of authors; everything else is ASCII in every format


def _error(material_id: str, rule: str) -> ParsedStructure:
    return ParsedStructure("", StructureError(material_id, rule))


def _cif(text: str, material_id: str, config: ReadingConfig) -> Iterator[ParsedStructure]:
    yield from read_cif(text, material_id, disorder=config.disorder, largest_cell=config.largest_cell)


def _poscar(text: str, material_id: str, config: ReadingConfig) -> Iterator[ParsedStructure]:
    yield _parsed(read_poscar(text), material_id, config)


def _extxyz(text: str, material_id: str, config: ReadingConfig) -> Iterator[ParsedStructure]:
    import ase.io  # nearly a second, in every worker that reads no such file

    _check_extxyz(text)
    frames = ase.io.read(io.StringIO(text), index=":", format="extxyz")
    for index, atoms in enumerate(frames):
        name = _name_in(atoms.info) or (f"{material_id}-{index}" if len(frames) > 1 else material_id)
        try:
            check_size(len(atoms), config.largest_cell)
            crystal = Crystal.from_atoms(atoms, name)
            check_distances(crystal)
            yield ParsedStructure("", crystal)
        except StructureError as error:
            yield ParsedStructure(name, StructureError(name, error.rule))


def _check_extxyz(text: str) -> None:
    """Refuse declared sizes that the text cannot hold: ASE would allocate memory for them."""
    lines = text.splitlines()
    longest = max(map(len, lines))
    for count in map(str.strip, lines):
        if count.isdecimal() and int(count) > len(lines):
            raise ValueError(f"it declares {count} sites in {len(lines)} lines")
    for properties in re.findall(r"Properties=(\S+)", text, re.IGNORECASE):
        columns = sum(map(int, re.findall(r":(\d+)", properties)))
        if columns > longest:
            raise ValueError(f"Properties declares {columns} columns, and no line has more than {longest} characters")


def _json(text: str, material_id: str, config: ReadingConfig) -> Iterator[ParsedStructure]:
    for name, document in _documents(json.loads(text), material_id):
        yield read_document(document, name, config)


def _json_lines(text: str, material_id: str, config: ReadingConfig) -> Iterator[ParsedStructure]:
    for index, line in enumerate(filter(str.strip, text.splitlines())):
        try:
            document = json.loads(line)
        except ValueError as error:
            yield _error(f"{material_id}-{index}", f"line {index + 1} is not JSON ({error})")
            continue
        yield read_document(document, _name_in(document) or f"{material_id}-{index}", config)


_READERS: dict[str | None, Callable[[str, str, ReadingConfig], Iterator[ParsedStructure]]] = {
    ".cif": _cif,
    ".mcif": _cif,
    ".vasp": _poscar,
    POSCAR: _poscar,
    ".extxyz": _extxyz,
    ".xyz": _extxyz,
    ".json": _json,
    ".jsonl": _json_lines,
}


def read_document(document: Any, material_id: str, config: ReadingConfig) -> ParsedStructure:
    """Read one JSON document: pymatgen's as_dict, an OPTIMADE entry, or one of these under the key `structure`."""
    try:
        return _parsed(_structure_of_document(document), material_id, config)
    except StructureError as error:
        return _error(material_id, error.rule)
    except Exception as error:  # from_dict raises any kind of exception
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        return _error(material_id, f"the document is not a structure ({reason})")


def _documents(content: Any, material_id: str) -> list[tuple[str, Any]]:
    """Documents of a JSON file with their names: one document, a list, OPTIMADE's `data`, or documents by id."""
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
    """Id that a document holds."""
    if isinstance(document, dict):
        for key in ("material_id", "id", "task_id"):
            if isinstance(document.get(key), str | int | np.integer) and document[key] != "":
                return str(document[key])
    return None


def _structure_of_document(document: Any) -> Structure:
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise StructureError("", f"the document is a {kind}, not {_STRUCTURE_DOCUMENT}")
    if isinstance(document.get("structure"), dict | str):
        inner = document["structure"]
        return _structure_of_document(json.loads(inner) if isinstance(inner, str) else inner)
    if "attributes" in document:
        return structure_of_entry(document["attributes"])
    if "lattice" not in document or "sites" not in document:
        keys = ", ".join(sorted(document))[:100] or "none"
        raise StructureError("", f"the document is not {_STRUCTURE_DOCUMENT} (its keys are {keys})")
    return Structure.from_dict(document | {"sites": [_with_normalized_occupancies(site) for site in document["sites"]]})


def _with_normalized_occupancies(site: dict[str, Any]) -> dict[str, Any]:
    """A site of as_dict: pymatgen refuses an occupancy of 1.000001."""
    occupancies = normalized({str(index): float(species["occu"]) for index, species in enumerate(site["species"])})
    species = [one | {"occu": occupancies[str(index)]} for index, one in enumerate(site["species"])]
    return site | {"species": species}


def _parsed(structure: Structure, material_id: str, config: ReadingConfig) -> ParsedStructure:
    return parse_structure(structure, material_id, disorder=config.disorder, largest_cell=config.largest_cell)
