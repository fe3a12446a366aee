"""Labels of the modes above the phonon grid: share and mean frequency, with the error of the share."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from mat2spec.config import GraphConfig
from mat2spec.data.labels.splits import PARTS
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.errors import StructureError, TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph

NUMBERS = ("share_above_grid", "share_error", "mean_frequency_above_grid", "max_frequency")
"""Columns of numbers, besides those of a materials table and `split`."""


@dataclass(frozen=True)
class AboveGridLabels:
    """Crystals and what is known of their modes above the grid.

    Args:
        crystals: The crystals.
        graphs: Graph of each.
        shares: Fraction of the modes above the grid.
        errors: Standard error of the shares: curves are sampled at points that narrow peaks fall between.
        frequencies: Mean frequency of the modes above the grid [cm⁻¹].
        highest: Highest frequency of each crystal [cm⁻¹].
        fingerprint: SHA-256 of ids, structures, labels and split of the whole table.
    """

    crystals: tuple[Crystal, ...]
    graphs: tuple[CrystalGraph, ...]
    shares: Float64[np.ndarray, " crystals"]
    errors: Float64[np.ndarray, " crystals"]
    frequencies: Float64[np.ndarray, " crystals"]
    highest: Float64[np.ndarray, " crystals"]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.crystals)


def read_above_grid_labels(path: Path, graph: GraphConfig) -> dict[str, AboveGridLabels]:
    """Read the training, validation and test rows of a table.

    Args:
        path: A materials table with the columns of `NUMBERS` and `split`.
        graph: Which atoms are neighbors.

    Raises:
        TableError: If a column is missing, a label is impossible, a structure cannot be used, or a part has no row.
    """
    if not path.exists():
        raise TableError(f"{path}: there is no such table of labels; choose another table")
    table = read_whole_table(path, "table of labels")
    for name in (*NUMBERS, "split"):
        if name not in table.column_names:
            raise TableError(f"{path}: missing column {name}; it has {', '.join(table.column_names)}")
    numbers = {name: table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in NUMBERS}
    split = np.array(table["split"].to_pylist())
    crystals = [_checked(crystal, path) for crystal in read_crystals(table)]
    for name, low, high in (("share_above_grid", 0, 1), ("share_error", 0, 1), ("max_frequency", 0, np.inf)):
        for row in np.flatnonzero(~((numbers[name] >= low) & (numbers[name] <= high))):
            rule = f"{name} is {numbers[name][row]:g}, must be {low} … {high}"
            raise TableError(f"{path}: {crystals[row].material_id}: {rule}; remove the row")
    digest = hashlib.sha256(b"".join(column.tobytes() for column in numbers.values()))
    for crystal, part in zip(crystals, split, strict=True):
        digest.update(f"{crystal.material_id}\t{part}\t{crystal.content_hash}\n".encode())
    labels = {}
    for part in PARTS:
        rows = np.flatnonzero(split == part)
        if not len(rows):
            raise TableError(f"{path}: no row with split {part!r}; it has {', '.join(sorted(set(split.tolist())))}")
        labels[part] = _take(crystals, graph, numbers, rows, digest.hexdigest(), path)
    return labels


def _take(
    crystals: list[Crystal],
    graph: GraphConfig,
    numbers: dict[str, np.ndarray],
    rows: Int[np.ndarray, " rows"],
    fingerprint: str,
    path: Path,
) -> AboveGridLabels:
    chosen = tuple(crystals[row] for row in rows)
    try:
        graphs = tuple(build_graph(crystal, graph) for crystal in chosen)
    except StructureError as error:
        raise TableError(f"{path}: {error}; remove the row from the labels") from None
    shares, errors, frequencies, highest = (numbers[name][rows] for name in NUMBERS)
    return AboveGridLabels(chosen, graphs, shares, errors, frequencies, highest, fingerprint)


def _checked(crystal: Crystal | StructureError, path: Path) -> Crystal:
    if isinstance(crystal, StructureError):
        raise TableError(f"{path}: {crystal}; remove the row from the labels")
    return crystal
