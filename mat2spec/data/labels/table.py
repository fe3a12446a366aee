"""Reading of a table of labels: structures as graphs, labels as numbers."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int

from mat2spec.config import GraphConfig
from mat2spec.data.labels.lazy_graphs import LazyGraph, lazy_graphs
from mat2spec.data.materials.schema import is_list, read_crystals
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.vibrations import check_scale
from mat2spec.errors import SpectrumError, StructureError, TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import check_graph
from mat2spec.structure.symmetry import primitive_nsites

MADE_BY = {
    "chgnet-features.parquet": "python benchmarks/chgnet_features.py runs/chgnet-features.parquet",
    "labels-edos.parquet": "mat2spec ingest labels RUN --output runs/labels-edos.parquet",
    "phdos-teacher.parquet": "python benchmarks/distillation.py teacher runs/phdos-teacher.parquet --perturbed 1",
    "my-labels.parquet": "mat2spec ingest labels FILES --output my-labels.parquet",
}
"""Command that writes each table that a configuration of this repository names and that does not ship, by file name."""


@dataclass(frozen=True)
class LabelTable:
    """The labeled rows of a table.

    Args:
        crystals: One per row.
        graphs: Graph of each.
        labels: A spectrum per row, one number, or features of one atom after another, padded with NaN to the largest
            crystal.
        cell_sizes: Atoms of the primitive cell where spectra are states of that cell, else 1.
        split: Column `split`, if it was requested.
    """

    crystals: tuple[Crystal, ...]
    graphs: tuple[LazyGraph, ...]
    labels: Float32[np.ndarray, "rows bins"]
    cell_sizes: Int[np.ndarray, " rows"]
    split: np.ndarray | None

    def fingerprint(self, split: Sequence[str]) -> str:
        """SHA-256 of ids, structures, labels and the part to which each row belongs."""
        digest = hashlib.sha256(self.labels.tobytes())
        for crystal, part in zip(self.crystals, split, strict=True):
            digest.update(f"{crystal.material_id}\t{part}\n".encode())
            for array in (crystal.atomic_numbers, crystal.lattice, crystal.frac_coords):
                digest.update(array.tobytes())
        return digest.hexdigest()


def read_label_table(
    path: Path, label: str, graph: GraphConfig, axis: SpectrumGrid | int, *, with_split: bool, check_graphs: bool
) -> LabelTable:
    """Read a materials table with labels.

    If labels are numbers, such as a band gap, rows with NULL are left out; a spectrum must not be NULL.

    Args:
        path: The table.
        label: Column of the labels.
        graph: Which atoms are neighbors.
        axis: Grid of the spectra; or, if labels are features, how many each atom has.
        with_split: Whether to read the column `split`.
        check_graphs: Whether to check that every graph can be built.

    Raises:
        TableError: If the table, a column, a label or a structure cannot be used; a training set has no rejects.
    """
    table = _read(path, (label, "split") if with_split else (label,))
    for material_id, times in Counter(table["material_id"].to_pylist()).items():
        if times > 1:
            raise TableError(f"{path}: {material_id} occurs {times} times; a label must be in one split only")
    if pa.types.is_floating(table.schema.field(label).type):
        table = table.filter(pc.is_finite(table[label]))
        labels = table[label].to_numpy().astype(np.float32)[:, None]
        if not len(table):
            raise TableError(f"{path}: column {label} is NULL in every row")
        per_cell = False
    elif isinstance(axis, int):
        labels, per_cell = _features(table, label, axis, path), False
    else:
        labels, per_cell = _spectra(table, label, axis, path), axis.per_cell
    crystals = tuple(_checked(crystal, graph if check_graphs else None, path) for crystal in read_crystals(table))
    if isinstance(axis, SpectrumGrid) and not per_cell and labels.shape[1] == len(axis):
        _check_frequencies(crystals, labels, axis, path)
    sizes = np.array([primitive_nsites(crystal) if per_cell else 1 for crystal in crystals], int)
    split = table["split"].to_numpy(zero_copy_only=False) if with_split else None
    return LabelTable(crystals, lazy_graphs(crystals, graph), labels, sizes, split)


def read_valid_crystals(path: Path) -> list[Crystal]:
    """Read the crystals of a materials table, labeled or not; rows that cannot be a crystal are left out.

    Raises:
        TableError: If the table cannot be used.
    """
    return [crystal for crystal in read_crystals(_read(path, ())) if isinstance(crystal, Crystal)]


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    """Read a materials table that must have these columns too."""
    if not path.exists():
        way_out = f"make it first: {MADE_BY[path.name]}" if path.name in MADE_BY else "choose another data.table"
        raise TableError(f"{path}: there is no such table of labels; {way_out}")
    table = read_whole_table(path, "table of labels")
    for name in columns:
        if name not in table.schema.names:
            way_out = "make it with mat2spec ingest split" if name == "split" else "name the labels with --data.label"
            raise TableError(f"{path}: missing column {name}; it has {', '.join(table.schema.names)}; {way_out}")
    if not len(table):
        raise TableError(f"{path}: the table of labels has no rows")
    return table


def _checked(crystal: Crystal | StructureError, config: GraphConfig | None, path: Path) -> Crystal:
    """Return the crystal of a row; given a configuration, check that its graph can be built."""
    try:
        if isinstance(crystal, StructureError):
            raise crystal
        if config:
            check_graph(crystal, config)
        return crystal
    except StructureError as error:
        raise TableError(f"{path}: {error}; remove the row from the labels") from None


def _spectra(table: pa.Table, label: str, grid: SpectrumGrid, path: Path) -> Float32[np.ndarray, "crystals bins"]:
    """Spectra as one array; each must be on the grid, finite, non-negative and not all zero."""
    spectra = _lists(table, label, f"{len(grid)} numbers", path)
    for material_id, spectrum in zip(table["material_id"].to_pylist(), spectra, strict=True):
        if spectrum is None or len(spectrum) != len(grid):
            got = "NULL" if spectrum is None else f"{len(spectrum)} values"
            raise TableError(f"{path}: {material_id}: {label} is {got}; the grid {grid.name} has {len(grid)} bins")
        if not np.isfinite(spectrum).all() or spectrum.min() < 0 or not spectrum.any():
            raise TableError(f"{path}: {material_id}: {label} must be finite, non-negative and not all zero")
    return np.stack(spectra).astype(np.float32)


def _check_frequencies(
    crystals: tuple[Crystal, ...], spectra: Float32[np.ndarray, "crystals bins"], grid: SpectrumGrid, path: Path
) -> None:
    """Check that phonon spectra were put on the grid in its unit."""
    for crystal, spectrum in zip(crystals, spectra, strict=True):
        try:
            check_scale(crystal.material_id, grid.points, spectrum.astype(np.float64), crystal)
        except SpectrumError as error:
            raise TableError(f"{path}: {error}, or remove the row") from None


def _features(table: pa.Table, label: str, features: int, path: Path) -> Float32[np.ndarray, "crystals padded"]:
    """Features of the atoms of each crystal, one atom after another, padded with NaN; all must be finite."""
    rows = _lists(table, label, f"{features} numbers per atom", path)
    sites = table["nsites"].to_pylist()
    padded = np.full((len(rows), max(sites) * features), np.nan, np.float32)
    for material_id, count, row, target in zip(table["material_id"].to_pylist(), sites, rows, padded, strict=True):
        if row is None or len(row) != count * features:
            got = "NULL" if row is None else f"{len(row)} values"
            raise TableError(f"{path}: {material_id}: {label} is {got}; {count} atoms need {features} each")
        if not np.isfinite(row).all():
            raise TableError(f"{path}: {material_id}: {label} must be finite")
        target[: len(row)] = row
    return padded


def _lists(table: pa.Table, label: str, what: str, path: Path) -> list[Any]:
    """Column of lists of numbers, one array per row, or None where it is NULL."""
    kind = table.schema.field(label).type
    if not (is_list(kind) and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))):
        raise TableError(f"{path}: column {label} is {kind}, must be a list of {what} per row")
    return list(table[label].to_numpy())
