"""Crystals of which something is known, split into training, validation and test rows."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.folds import chemical_system, split_of_folds
from mat2spec.data.labels.subsets import SUBSETS
from mat2spec.data.labels.table import LabelTable, read_crystals, read_label_table
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import StructureError, TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.structure.perturbation import perturb


@dataclass(frozen=True)
class LabelledCrystals:
    """Crystals, their graphs and what is known of them, row by row.

    Args:
        crystals: What is labelled.
        graphs: Graph of each.
        spectra: Label of each, as networks learn it: a spectrum in the table's own scale, but per atom where the table has it per primitive
            cell; or one number.
        cell_sizes: Atoms of the primitive cell where a label was divided by them, else 1.
    """

    crystals: tuple[Crystal, ...]
    graphs: tuple[CrystalGraph, ...]
    spectra: Float32[Tensor, "crystals bins"]
    cell_sizes: Int[np.ndarray, " crystals"]

    @classmethod
    def of(cls, table: LabelTable, rows: Int[np.ndarray, " rows"]) -> "LabelledCrystals":
        """Choose rows of a table by number."""
        sizes = table.cell_sizes[rows]
        spectra = torch.from_numpy(table.labels[rows] / sizes[:, None].astype(np.float32))
        return cls(tuple(table.crystals[i] for i in rows), tuple(table.graphs[i] for i in rows), spectra, sizes)

    def __len__(self) -> int:
        return len(self.graphs)

    def __add__(self, more: "LabelledCrystals") -> "LabelledCrystals":
        """Put the rows of both one after the other."""
        spectra, sizes = torch.cat([self.spectra, more.spectra]), np.concatenate([self.cell_sizes, more.cell_sizes])
        return LabelledCrystals(self.crystals + more.crystals, self.graphs + more.graphs, spectra, sizes)

    def take(self, rows: Int[np.ndarray, " rows"]) -> "LabelledCrystals":
        """Choose rows by number."""
        crystals, graphs = tuple(self.crystals[i] for i in rows), tuple(self.graphs[i] for i in rows)
        return LabelledCrystals(crystals, graphs, self.spectra[rows], self.cell_sizes[rows])

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


def read_labels(
    path: Path,
    data: DataConfig,
    graph: GraphConfig,
    grid: SpectrumGrid,
    further: Path | None = None,
    apart_from: Path | None = None,
) -> LabelledSplits:
    """Read a table of labels and build its graphs.

    Args:
        path: The table.
        data: Columns, splits and what part of them is used.
        graph: Which atoms are neighbours.
        grid: Axis of the labels.
        further: Table of more training rows. Those with the reduced composition of a validation or test row are left out: tables of
            different origin name the same material differently, and polymorphs of a test material would tell too much.
        apart_from: Table of labels that another network will be judged on: rows of its chemical systems are left out.

    Raises:
        TableError: If a table, a column, a label or a structure cannot be used; a training set has no rejects.
    """
    table = read_label_table(path, data.label, graph, grid, with_split=data.fold is None)
    split = table.split if table.split is not None else split_of_folds(table.crystals, data.fold or 1, data.splits)
    if apart_from:
        systems = {chemical_system(crystal) for crystal in read_crystals(apart_from)}
        split = np.where([chemical_system(crystal) in systems for crystal in table.crystals], "apart", split)
    wanted = np.array([data.subset is None or SUBSETS[data.subset](crystal) for crystal in table.crystals])
    parts = []
    for name in data.splits:
        chosen = np.flatnonzero((split == name) & wanted)
        if not len(chosen):
            kind = f" of {data.subset}" if data.subset else ""
            raise TableError(
                f"{path}: no row{kind} with split {name!r}; it has {', '.join(sorted(map(repr, set(split.tolist()))))}"
            )
        parts.append(LabelledCrystals.of(table, _fraction(chosen, data.fraction) if name == data.splits[0] else chosen))
    train, valid, test = parts
    fingerprint = table.fingerprint(split.tolist())
    if further:
        more = read_label_table(further, data.label, graph, grid, with_split=False)
        held_out = {crystal.composition for part in (valid, test) for crystal in part.crystals}
        train += LabelledCrystals.of(
            more, np.array([i for i, c in enumerate(more.crystals) if c.composition not in held_out], int)
        )
        fingerprint = hashlib.sha256(
            (fingerprint + more.fingerprint(["further"] * len(more.crystals))).encode()
        ).hexdigest()
    valid, test = (_perturbed(part, data, graph) for part in (valid, test))
    return LabelledSplits(train, valid, test, fingerprint)


def _perturbed(part: LabelledCrystals, data: DataConfig, graph: GraphConfig) -> LabelledCrystals:
    """Rows with the graphs that they have before a relaxation; their labels stay those of the relaxed crystals."""
    if not data.strain and not data.displacement:
        return part
    try:
        crystals = perturb(part.crystals, data.strain, data.displacement)
        return replace(part, graphs=tuple(build_graph(crystal, graph) for crystal in crystals))
    except StructureError as error:
        sizes = f"data.strain {data.strain:g} and data.displacement {data.displacement:g} Å"
        raise TableError(f"{data.table}: with {sizes}, {error}; take smaller ones") from None


def _fraction(rows: np.ndarray, share: float) -> np.ndarray:
    """A share of rows in a fixed random order, so that a smaller share is part of every larger one."""
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[np.sort(order[: max(1, round(share * len(rows)))])]
