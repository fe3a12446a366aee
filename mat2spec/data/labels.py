"""Crystals with known spectra, split into training, validation and test rows."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.crystal import Crystal
from mat2spec.data.schema import check_schema, crystals, is_list
from mat2spec.data.subsets import SUBSETS
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

    def __add__(self, more: "LabelledCrystals") -> "LabelledCrystals":
        """Put the rows of both one after the other."""
        return LabelledCrystals(self.crystals + more.crystals, self.graphs + more.graphs, torch.cat([self.spectra, more.spectra]))

    def take(self, rows: Int[np.ndarray, " rows"]) -> "LabelledCrystals":
        """Choose rows by number."""
        return LabelledCrystals(tuple(self.crystals[i] for i in rows), tuple(self.graphs[i] for i in rows), self.spectra[rows])

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

    @property
    def everything(self) -> LabelledCrystals:
        """All rows: what the published code fits its standardiser on."""
        return self.train + self.valid + self.test


def read_labels(path: Path, data: DataConfig, graph: GraphConfig, grid: SpectrumGrid, further: Path | None = None) -> LabelledSplits:
    """Read a table of labels and build its graphs.

    Args:
        path: The table.
        data: Columns, splits and what part of them is used.
        graph: Which atoms are neighbours.
        grid: Axis of the labels.
        further: Table of more training rows. Those with the reduced composition of a validation or test row are left out: tables of
            different origin name the same material differently, and polymorphs of a test material would tell too much.

    Raises:
        TableError: If a table, a column, a label or a structure cannot be used; a training set has no rejects.
    """
    table = _read(path, (data.label, "split"))
    rows, spectra = _labelled_rows(table, data.label, graph, grid, path)
    split = table["split"].to_numpy(zero_copy_only=False)
    wanted = np.array([data.subset is None or SUBSETS[data.subset](crystal) for crystal, _ in rows])
    parts = []
    for name in data.splits:
        chosen = np.flatnonzero((split == name) & wanted)
        if not len(chosen):
            kind = f" of {data.subset}" if data.subset else ""
            raise TableError(f"{path}: no row{kind} with split {name!r}; it has {', '.join(sorted(map(repr, set(split.tolist()))))}")
        parts.append(_part(rows, spectra, _fraction(chosen, data.fraction) if name == data.splits[0] else chosen))
    train, valid, test = parts
    fingerprint = _fingerprint(rows, spectra, split)
    if further:
        more, more_spectra = _labelled_rows(_read(further, (data.label,)), data.label, graph, grid, further)
        held_out = {crystal.composition for part in (valid, test) for crystal in part.crystals}
        apart = np.array([row for row, (crystal, _) in enumerate(more) if crystal.composition not in held_out], int)
        train = train + _part(more, more_spectra, apart)
        fingerprint = hashlib.sha256((fingerprint + _fingerprint(more, more_spectra, np.full(len(more), "further"))).encode()).hexdigest()
    return LabelledSplits(train, valid, test, fingerprint)


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    """Read a materials table that has these columns too, and each material once."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path}: cannot read the table of labels ({str(error).splitlines()[0]})") from None
    check_schema(table.schema, str(path))
    for name in columns:
        if name not in table.schema.names:
            raise TableError(f"{path}: missing column {name}; it has {', '.join(table.schema.names)}")
    if not len(table):
        raise TableError(f"{path}: the table of labels has no rows")
    for material_id, times in Counter(table["material_id"].to_pylist()).items():
        if times > 1:
            raise TableError(f"{path}: {material_id} is there {times} times; a label must be in one split only")
    return table


def _labelled_rows(
    table: pa.Table, label: str, graph: GraphConfig, grid: SpectrumGrid, path: Path
) -> tuple[list[tuple[Crystal, CrystalGraph]], Float32[np.ndarray, "crystals bins"]]:
    spectra = _spectra(table, label, grid, path)
    return [_labelled_graph(crystal, graph, path) for crystal in crystals(table)], spectra


def _part(rows: list[tuple[Crystal, CrystalGraph]], spectra: Float32[np.ndarray, "rows bins"], chosen: np.ndarray) -> LabelledCrystals:
    kept = [rows[i] for i in chosen]
    return LabelledCrystals(tuple(c for c, _ in kept), tuple(g for _, g in kept), torch.from_numpy(spectra[chosen]))


def _fraction(rows: np.ndarray, share: float) -> np.ndarray:
    """A share of rows in a fixed random order, so that a smaller share is part of every larger one."""
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[np.sort(order[: max(1, round(share * len(rows)))])]


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
