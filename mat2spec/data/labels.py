"""Crystals with known spectra, split into training, validation and test rows."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float32
from torch import Tensor

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.crystal import Crystal
from mat2spec.data.schema import check_schema, crystals, is_list
from mat2spec.errors import StructureError, TableError
from mat2spec.graph import CrystalGraph, build_graph
from mat2spec.spectrum import SpectrumGrid


@dataclass(frozen=True)
class LabelledCrystals:
    """Crystals, their graphs and their spectra, row by row.

    Args:
        crystals: What is labelled.
        graphs: Graph of each.
        spectra: Label of each, in the table's own scale.
    """

    crystals: tuple[Crystal, ...]
    graphs: tuple[CrystalGraph, ...]
    spectra: Float32[Tensor, "crystals bins"]

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def material_ids(self) -> list[str]:
        return [crystal.material_id for crystal in self.crystals]

    @property
    def elements(self) -> list[str]:
        """Symbols of all elements in any of the crystals."""
        return sorted({symbol for crystal in self.crystals for symbol in crystal.elements})


@dataclass(frozen=True)
class LabelledSplits:
    """The three parts of a table of labels, and a hash of what they hold."""

    train: LabelledCrystals
    valid: LabelledCrystals
    test: LabelledCrystals
    fingerprint: str


def read_labels(path: Path, data: DataConfig, graph: GraphConfig, grid: SpectrumGrid) -> LabelledSplits:
    """Read a table of labels and build its graphs.

    Raises:
        TableError: If the table, a column, a label or a structure cannot be used; a training set has no rejects.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path}: cannot read the table of labels ({str(error).splitlines()[0]})") from None
    check_schema(table.schema, str(path))
    for name in (data.label, "split"):
        if name not in table.schema.names:
            raise TableError(f"{path}: missing column {name}; it has {', '.join(table.schema.names)}")
    for material_id, times in Counter(table["material_id"].to_pylist()).items():
        if times > 1:
            raise TableError(f"{path}: {material_id} is there {times} times; a label must be in one split only")
    spectra = _spectra(table, data.label, grid, path)
    rows = [_labelled_graph(crystal, graph, path) for crystal in crystals(table)]
    split = table["split"].to_numpy(zero_copy_only=False)
    parts = []
    for name in data.splits:
        chosen = np.flatnonzero(split == name)
        if not len(chosen):
            raise TableError(f"{path}: no row with split {name!r}; it has {', '.join(sorted(map(repr, set(split.tolist()))))}")
        kept = [rows[i] for i in chosen]
        parts.append(LabelledCrystals(tuple(c for c, _ in kept), tuple(g for _, g in kept), torch.from_numpy(spectra[chosen])))
    train, valid, test = parts
    return LabelledSplits(train, valid, test, _fingerprint(rows, spectra, split))


def _labelled_graph(crystal: Crystal | StructureError, config: GraphConfig, path: Path) -> tuple[Crystal, CrystalGraph]:
    try:
        if isinstance(crystal, StructureError):
            raise crystal
        return crystal, build_graph(crystal, config)
    except StructureError as error:
        raise TableError(f"{path}: {error}; remove the row from the labels") from None


def _spectra(table: pa.Table, label: str, grid: SpectrumGrid, path: Path) -> Float32[np.ndarray, "crystals bins"]:
    """Labels as one array; each must be on the grid, finite, non-negative and not all zero."""
    kind = table.schema.field(label).type
    if not (is_list(kind) and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))):
        raise TableError(f"{path}: column {label} is {kind}, must be a list of {len(grid)} numbers per row")
    spectra = table[label].to_numpy()
    for material_id, spectrum in zip(table["material_id"].to_pylist(), spectra, strict=True):
        if spectrum is None or len(spectrum) != len(grid):
            got = "NULL" if spectrum is None else f"{len(spectrum)} values"
            raise TableError(f"{path}: {material_id}: {label} is {got}; the grid {grid.name} has {len(grid)} bins")
        if not np.isfinite(spectrum).all() or spectrum.min() < 0 or not spectrum.any():
            raise TableError(f"{path}: {material_id}: {label} must be finite, nowhere negative and not all zero")
    return np.stack(spectra).astype(np.float32)


def _fingerprint(rows: list[tuple[Crystal, CrystalGraph]], spectra: np.ndarray, split: np.ndarray) -> str:
    """SHA-256 of ids, structures, labels and split."""
    digest = hashlib.sha256(spectra.tobytes())
    for (crystal, _), part in zip(rows, split, strict=True):
        digest.update(f"{crystal.material_id}\t{part}\n".encode())
        for array in (crystal.atomic_numbers, crystal.lattice, crystal.frac_coords):
            digest.update(array.tobytes())
    return digest.hexdigest()
