"""Files with a density of states at the paths that a user gives: of phonopy, VASP and pymatgen."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monty.io import zopen

from mat2spec.errors import ConfigError

Grid = Literal["phdos", "edos"]

COMPRESSED = r"(\.gz|\.bz2|\.xz)?"

NAMES: dict[str, tuple[Grid, str]] = {
    "total_dos.dat": ("phdos", r"(.+[-_.])?total_dos\.dat"),
    "mesh.yaml": ("phdos", r"(.+[-_.])?mesh\.yaml"),
    "phonopy.yaml": ("phdos", r"(.+[-_.])?phonopy(_params|_disp)?\.yaml"),
    "vasprun.xml": ("edos", r"vasprun.*\.xml"),
    "DOSCAR": ("edos", r"DOSCAR(?!.*lobster).*"),
}
"""Kinds of files with fixed names: grid and pattern of the name. Of those of a grid in one folder the first counts."""

PYMATGEN: dict[str, Grid] = {
    "Dos": "edos",
    "CompleteDos": "edos",
    "PhononDos": "phdos",
    "CompletePhononDos": "phdos",
}
"""Classes of pymatgen that JSON files hold, as `as_dict` names them."""

_LARGEST_JSON = 500_000_000
"""[bytes] Larger JSON files are no density of states."""


_LOOKED_AT = 10_000_000
"""Characters of a damaged JSON file that are searched for a density of states."""


@dataclass(frozen=True)
class CalculationFile:
    """A file with a density of states, or from which one is computed.

    Args:
        material_id: Name of the folder; of a JSON file its `material_id` or its stem.
        path: The file.
        kind: Key of `NAMES` or `PYMATGEN`.
        grid: Grid of its spectrum.
    """

    material_id: str
    path: Path
    kind: str
    grid: Grid


@dataclass(frozen=True)
class CalculationListing:
    """Files with densities of states.

    Args:
        files: One for each calculation, sorted by path.
        passed_over: Files for which another one of the same folder counts.
    """

    files: tuple[CalculationFile, ...]
    passed_over: tuple[Path, ...]


def list_calculations(
    paths: Sequence[Path], grid: Grid | None, ids: Literal["name", "path"] = "name"
) -> CalculationListing:
    """Find the densities of states at paths.

    In a folder, of the files of one calculation the first in the order of `NAMES` counts; a file that is named itself
    always does.

    Args:
        paths: Files, or folders that are searched with all their subfolders.
        grid: Kind of spectra to read; None: the only kind that there is.
        ids: Material ids: names of folders, or their paths from the given folder.

    Raises:
        ConfigError: If a path does not exist, nothing is found, or there are spectra of both kinds.
    """
    files: dict[Path, CalculationFile] = {}
    passed_over: list[Path] = []
    for path in paths:
        if path.is_dir():
            for folder, names in _folders(path):
                chosen, others = _in_folder(folder, names, path if ids == "path" else None, grid)
                files |= {file.path: file for file in chosen}
                passed_over += others
        elif path.is_file():
            file = _recognize(path)
            if file is None:
                raise ConfigError(f"{path}: holds no density of states that is known; known are {_known()}")
            files[path] = file
        else:
            raise ConfigError(f"{path}: does not exist")
    grids = sorted({file.grid for file in files.values()})
    if grid is None and len(grids) > 1:
        counts = " and ".join(f"{sum(file.grid == one for file in files.values())} of {one}" for one in grids)
        raise ConfigError(f"there are files of both kinds, {counts}; choose one with --grid phdos or --grid edos")
    chosen = [file for file in files.values() if grid in (None, file.grid)]
    if not chosen:
        raise ConfigError(f"{', '.join(map(str, paths))}: no density of states{_of(grid)}; known are {_known()}")
    kept = {file.path for file in chosen}
    return CalculationListing(tuple(chosen), tuple(path for path in passed_over if path not in kept))


def _of(grid: Grid | None) -> str:
    return f" of {grid}" if grid else ""


def _known() -> str:
    return f"{', '.join(NAMES)}, and JSON of pymatgen's {', '.join(PYMATGEN)}"


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """All folders below one, and their files, sorted."""
    for folder, below, names in os.walk(root):
        below.sort()
        yield Path(folder), sorted(name for name in names if not name.startswith("."))


def _in_folder(
    folder: Path, names: Iterable[str], root: Path | None, grid: Grid | None
) -> tuple[list[CalculationFile], list[Path]]:
    """Files of a folder that count, and the others: JSON files are calculations of their own."""
    recognized = filter(None, (_recognize(folder / name, root) for name in names))
    found = [file for file in recognized if grid in (None, file.grid)]
    order = list(NAMES)
    first: dict[Grid, CalculationFile] = {}
    for file in sorted((file for file in found if file.kind in NAMES), key=lambda file: order.index(file.kind)):
        first.setdefault(file.grid, file)
    chosen = [file for file in found if file.kind in PYMATGEN or file is first[file.grid]]
    return chosen, [file.path for file in found if file not in chosen]


def _recognize(path: Path, root: Path | None = None) -> CalculationFile | None:
    """The calculation that a file holds, by its name or its content; None if it holds none."""
    folder = path.parent.resolve()
    for kind, (grid, pattern) in NAMES.items():
        if re.fullmatch(pattern + COMPRESSED, path.name):
            name = str(folder.relative_to(root.resolve())) if root else folder.name
            return CalculationFile(folder.name if name == "." else name, path, kind, grid)
    stem = re.sub(r"\.json" + COMPRESSED + "$", "", path.name)
    if stem == path.name or path.stat().st_size > _LARGEST_JSON:
        return None
    document = read_json(path)
    inner = dos_document(document)
    if inner is None and (document is not None or not (kind := _damaged(path))):
        return None
    kind = class_of(inner) if inner else kind
    named = document.get("material_id") if inner else None
    name = str(folder.relative_to(root.resolve()) / stem) if root else str(named or stem)
    return CalculationFile(name, path, kind, PYMATGEN[kind])


def read_json(path: Path) -> Any:
    """Content of a JSON file; None if it is none."""
    try:
        with zopen(path, "rt", encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, EOFError, RecursionError):
        return None


def _damaged(path: Path) -> str:
    """Class of pymatgen that a file holds which is not JSON, as one that is cut; empty if it shows none."""
    try:
        with zopen(path, "rt", encoding="utf-8", errors="replace") as file:
            text = str(file.read(_LOOKED_AT))
    except (OSError, EOFError, ValueError):
        return ""
    if '"frequencies"' in text or 'PhononDos"' in text:
        return "PhononDos"
    return "Dos" if '"energies"' in text or 'Dos"' in text else ""


def dos_document(document: Any) -> dict[str, Any] | None:
    """The density of states in a JSON document: itself, or under a key such as dos or phonon_dos."""
    if not isinstance(document, dict):
        return None
    if class_of(document):
        return document
    for key in ("dos", "phonon_dos", "ph_dos", "complete_dos"):
        inner = document.get(key)
        if isinstance(inner, dict) and class_of(inner):
            return inner
    return None


def class_of(document: dict[str, Any]) -> str:
    """Class of pymatgen that a document is, by its name or else by its keys; empty if it is none."""
    name = document.get("@class")
    if name in PYMATGEN:
        return str(name)
    if name is None and {"frequencies", "densities"} <= document.keys():
        return "PhononDos"
    if name is None and {"energies", "densities", "efermi"} <= document.keys():
        return "Dos"
    return ""
