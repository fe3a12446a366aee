"""Labeled crystals, split into training, validation and test rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.folds import chemical_system, split_of_folds
from mat2spec.data.labels.lazy_graphs import LazyGraph, build_all
from mat2spec.data.labels.subsets import SUBSETS
from mat2spec.data.labels.table import LabelTable, read_label_table, read_valid_crystals
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import StructureError, TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, check_graph
from mat2spec.structure.perturbation import perturb

_EXCLUDED, _EXTRA = "apart", "further"
"""Names of parts that enter fingerprints only; those of existing checkpoints have these."""


@dataclass(frozen=True)
class LabeledCrystals:
    """Crystals with their graphs and labels, row by row.

    Args:
        crystals: The crystals.
        lazy_graphs: Graph of each; rows that were selected from others share it.
        spectra: Label of each, as networks learn it: a spectrum in the table's own scale, but per atom where the table
            has it per primitive cell; one number; or features of its atoms, padded with NaN.
        cell_sizes: Atoms of the primitive cell where a label was divided by them, else 1.
    """

    crystals: tuple[Crystal, ...]
    lazy_graphs: tuple[LazyGraph, ...]
    spectra: Float32[Tensor, "crystals bins"]
    cell_sizes: Int[np.ndarray, " crystals"]

    @classmethod
    def from_table(cls, table: LabelTable, rows: Int[np.ndarray, " rows"]) -> "LabeledCrystals":
        """Select rows of a table by number."""
        sizes = table.cell_sizes[rows]
        spectra = torch.from_numpy(table.labels[rows] / sizes[:, None].astype(np.float32))
        return cls(tuple(table.crystals[i] for i in rows), tuple(table.graphs[i] for i in rows), spectra, sizes)

    def __len__(self) -> int:
        return len(self.crystals)

    def __add__(self, other: "LabeledCrystals") -> "LabeledCrystals":
        """Concatenate the rows of both."""
        spectra = torch.cat([self.spectra, other.spectra])
        sizes = np.concatenate([self.cell_sizes, other.cell_sizes])
        return LabeledCrystals(self.crystals + other.crystals, self.lazy_graphs + other.lazy_graphs, spectra, sizes)

    def take(self, rows: Int[np.ndarray, " rows"]) -> "LabeledCrystals":
        """Select rows by number."""
        crystals = tuple(self.crystals[i] for i in rows)
        graphs = tuple(self.lazy_graphs[i] for i in rows)
        return LabeledCrystals(crystals, graphs, self.spectra[rows], self.cell_sizes[rows])

    @cached_property
    def graphs(self) -> tuple[CrystalGraph, ...]:
        """Graph of each crystal, built at the first access: the process that starts a training needs few of them."""
        return build_all(self.lazy_graphs)

    def with_graphs(self, crystals: Sequence[Crystal], config: GraphConfig) -> "LabeledCrystals":
        """Return the same rows with graphs of other crystals, or with other neighbors."""
        return replace(self, lazy_graphs=tuple(LazyGraph(crystal, config) for crystal in crystals))

    @property
    def material_ids(self) -> list[str]:
        return [crystal.material_id for crystal in self.crystals]

    @property
    def elements(self) -> list[str]:
        """Symbols of all elements in any of the crystals."""
        return sorted({symbol for crystal in self.crystals for symbol in crystal.elements})


@dataclass(frozen=True)
class LabeledSplits:
    """The three parts of a table of labels, and a hash of their content."""

    train: LabeledCrystals
    valid: LabeledCrystals
    test: LabeledCrystals
    fingerprint: str

    @property
    def everything(self) -> LabeledCrystals:
        """All rows: the published code fits its standardization on them."""
        return self.train + self.valid + self.test


def read_labels(
    path: Path,
    data: DataConfig,
    graph: GraphConfig,
    axis: SpectrumGrid | int,
    extra_train: Path | None = None,
    exclude_systems_of: Path | None = None,
    *,
    check_graphs: bool = True,
) -> LabeledSplits:
    """Read a table of labels. Graphs are built when they are first used.

    Args:
        path: The table.
        data: Columns, splits, and the subset and fraction of them to use.
        graph: Which atoms are neighbors.
        axis: Grid of the spectra; or, if labels are features, how many each atom has.
        extra_train: Table of extra training rows. Rows with the reduced composition of a validation or test row are
            left out: tables of different origin name the same material differently, and polymorphs of a test material
            would leak information. With folds, all rows of the chemical systems of these two folds are left out.
        exclude_systems_of: Table of labels on which another network will be evaluated; rows of its chemical systems are
            left out.
        check_graphs: Whether to check that every graph can be built.

    Raises:
        TableError: If a table, a column, a label or a structure cannot be used; a training set has no rejects.
    """
    with_split = data.fold is None
    table = read_label_table(path, data.label, graph, axis, with_split=with_split, check_graphs=check_graphs)
    split = table.split if table.split is not None else split_of_folds(table.crystals, data.fold or 1, data.splits)
    if exclude_systems_of:
        systems = {chemical_system(crystal) for crystal in read_valid_crystals(exclude_systems_of)}
        split = np.where([chemical_system(crystal) in systems for crystal in table.crystals], _EXCLUDED, split)
    train, valid, test = _split(table, split, data, path)
    fingerprint = table.fingerprint(split.tolist())
    if extra_train:
        extra = read_label_table(extra_train, data.label, graph, axis, with_split=False, check_graphs=check_graphs)
        train += LabeledCrystals.from_table(extra, _rows_to_add(extra.crystals, valid + test, data))
        both = fingerprint + extra.fingerprint([_EXTRA] * len(extra.crystals))
        fingerprint = hashlib.sha256(both.encode()).hexdigest()
    valid, test = (_perturbed(part, data, graph, check_graphs) for part in (valid, test))
    return LabeledSplits(train, valid, test, fingerprint)


def _split(table: LabelTable, split: np.ndarray, data: DataConfig, path: Path) -> list[LabeledCrystals]:
    """Rows of the three splits, restricted to the subset; of the first split only a fraction."""
    in_subset = np.array([data.subset is None or SUBSETS[data.subset](crystal) for crystal in table.crystals])
    parts = []
    for name in data.splits:
        rows = np.flatnonzero((split == name) & in_subset)
        if not len(rows):
            subset = f" of {data.subset}" if data.subset else ""
            existing = ", ".join(sorted(map(repr, set(split.tolist()))))
            raise TableError(f"{path}: no row{subset} with split {name!r}; it has {existing}")
        if name == data.splits[0]:
            rows = _fraction(rows, data.fraction)
        parts.append(LabeledCrystals.from_table(table, rows))
    return parts


def _rows_to_add(crystals: Sequence[Crystal], held_out: LabeledCrystals, data: DataConfig) -> np.ndarray:
    """Numbers of the extra rows that may be trained on."""
    compositions = {crystal.composition for crystal in held_out.crystals}
    allowed = np.array([crystal.composition not in compositions for crystal in crystals])
    if data.fold is not None:
        allowed &= split_of_folds(crystals, data.fold, data.splits) == data.splits[0]
    return np.flatnonzero(allowed)


def _perturbed(part: LabeledCrystals, data: DataConfig, graph: GraphConfig, check_graphs: bool) -> LabeledCrystals:
    """Rows with graphs of strained and displaced crystals; their labels stay those of the relaxed crystals."""
    if not data.strain and not data.displacement:
        return part
    try:
        crystals = perturb(part.crystals, data.strain, data.displacement)
        for crystal in crystals if check_graphs else ():
            check_graph(crystal, graph)
        return part.with_graphs(crystals, graph)
    except StructureError as error:
        sizes = f"data.strain {data.strain:g} and data.displacement {data.displacement:g} Å"
        raise TableError(f"{data.table}: with {sizes}, {error}; use smaller ones") from None


def _fraction(rows: np.ndarray, fraction: float) -> np.ndarray:
    """A fraction of rows in a fixed random order, so that a smaller fraction is part of every larger one."""
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[np.sort(order[: max(1, round(fraction * len(rows)))])]
