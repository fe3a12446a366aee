"""Graph of a crystal: sites are nodes, with edges from their nearest neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, UInt8
from torch import Tensor

from mat2spec.config import GraphConfig
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import (
    LARGEST_FLOOR,
    check_distances_in_cell,
    compact_cell,
    refuse_flat_cell,
    refuse_overlap,
)
from mat2spec.structure.neighbors import Pairs, pairs_by_pymatgen, pairs_within

if TYPE_CHECKING:
    from torch_geometric.data import Data

PHANTOM_DISTANCE = 9.0
"""[Å] Length of the edges that the published code adds for missing neighbors."""

_EXPECTED_NEIGHBORS = 24
"""Neighbors in the first search radius at uniform density: twice the 12 needed, so one search nearly always does."""


@dataclass(frozen=True)
class CrystalGraph:
    """Nodes and edges of one crystal.

    Args:
        atomic_numbers: One per node.
        edge_index: Row 0 the neighbor (source), row 1 the center (target), ordered by center, then distance (the
            convention of PyG).
        distances: Length of each edge [Å].
        vectors: From the center to the neighbor [Å]; zero for a phantom edge.
    """

    atomic_numbers: UInt8[np.ndarray, " atoms"]
    edge_index: Int32[np.ndarray, "2 edges"]
    distances: Float32[np.ndarray, " edges"]
    vectors: Float32[np.ndarray, "edges 3"]

    @property
    def num_edges(self) -> int:
        return len(self.distances)

    def to_pyg(self) -> "Data":
        """Convert to PyG's Data, for networks of one's own.

        Returns:
            `z` the atomic numbers, `edge_index` as here, `edge_weight` the distances and `edge_attr` the vectors [Å].
        """
        from torch_geometric.data import Data  # takes longer to import than torch

        return Data(
            z=torch.from_numpy(self.atomic_numbers.astype(np.int64)),
            edge_index=torch.from_numpy(self.edge_index.astype(np.int64)),
            edge_weight=torch.from_numpy(self.distances),
            edge_attr=torch.from_numpy(self.vectors),
            num_nodes=len(self.atomic_numbers),
        )


@dataclass(frozen=True)
class GraphBatch:
    """Several crystal graphs as one, on a device.

    Args:
        atomic_numbers: One per node.
        edge_index: As in `CrystalGraph`, indices into all nodes of the batch.
        distances: Length of each edge [Å].
        vectors: From the center to the neighbor [Å].
        batch: Index of the crystal to which each node belongs.
        num_graphs: Number of crystals.
    """

    atomic_numbers: Int[Tensor, " atoms"]
    edge_index: Int[Tensor, "2 edges"]
    distances: Float[Tensor, " edges"]
    vectors: Float[Tensor, "edges 3"]
    batch: Int[Tensor, " atoms"]
    num_graphs: int

    @classmethod
    def from_graphs(cls, graphs: Sequence[CrystalGraph]) -> "GraphBatch":
        """Join graphs by concatenating their arrays."""
        sizes = np.array([len(g.atomic_numbers) for g in graphs])
        offsets = np.repeat(np.cumsum(sizes) - sizes, [g.num_edges for g in graphs])
        return cls(
            torch.from_numpy(np.concatenate([g.atomic_numbers for g in graphs]).astype(np.int64)),
            torch.from_numpy(np.concatenate([g.edge_index for g in graphs], axis=1) + offsets),
            torch.from_numpy(np.concatenate([g.distances for g in graphs])),
            torch.from_numpy(np.concatenate([g.vectors for g in graphs])),
            torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
            len(graphs),
        )

    def to(self, device: torch.device) -> "GraphBatch":
        """Move every array to a device."""
        arrays = (self.atomic_numbers, self.edge_index, self.distances, self.vectors, self.batch)
        numbers, edge_index, distances, vectors, batch = (array.to(device, non_blocking=True) for array in arrays)
        return GraphBatch(numbers, edge_index, distances, vectors, batch, self.num_graphs)


def build_graph(crystal: Crystal, config: GraphConfig) -> CrystalGraph:
    """Connect each atom to its nearest neighbors, including the whole last shell.

    Neighbors as far as the last one, within the tolerance, are included too. The choice then depends on distances
    alone: rotation, a shift of the origin, another order of sites or another choice of cell give the same graph.

    Raises:
        StructureError: If an atom has no neighbor within the cutoff, or two atoms overlap (`check_distances`).
    """
    lattice, coords = compact_cell(crystal)
    refuse_flat_cell(crystal, lattice)
    pairs, shell = _neighbor_search(lattice, coords, crystal.volume, config)
    refuse_overlap(crystal, pairs)
    if config.phantoms:
        return _with_phantoms(crystal.atomic_numbers, pairs, config)
    if np.isneginf(shell).any():
        isolated = int(np.flatnonzero(np.isneginf(shell))[0])
        rule = f"site {isolated} has no neighbor within {config.cutoff:g} Å; the atom is isolated"
        raise StructureError(crystal.material_id, rule)
    return _graph(crystal.atomic_numbers, pairs, pairs.distances <= shell[pairs.centers])


def check_graph(crystal: Crystal, config: GraphConfig) -> None:
    """Check that `build_graph` accepts a crystal, in half its time (100 of 200 µs for 7 sites).

    It does if no two atoms are close and a lattice vector is shorter than the cutoff: each atom then has its own image
    as a neighbor. In any other case the graph is built.

    Raises:
        StructureError: As `build_graph` does.
    """
    lattice, coords = compact_cell(crystal)
    if np.linalg.norm(lattice, axis=1).min() < config.cutoff:
        check_distances_in_cell(crystal, lattice, coords)
    else:
        build_graph(crystal, config)


def _neighbor_search(
    lattice: Float64[np.ndarray, "3 3"], coords: Float64[np.ndarray, "atoms 3"], volume: float, config: GraphConfig
) -> tuple[Pairs, Float64[np.ndarray, " atoms"]]:
    """Search growing spheres until each holds the wanted neighbors.

    Returns:
        Pairs within the last radius, and the distance up to which each atom has edges [Å]; -inf where it has no pair.
    """
    from mat2spec.structure.neighbor_loops import last_shells  # imports Numba

    radius = config.cutoff
    if config.neighbors:
        expected = (3 * _EXPECTED_NEIGHBORS * volume / (4 * pi * len(coords))) ** (1 / 3)
        radius = min(radius, max(expected, LARGEST_FLOOR))
    search = pairs_by_pymatgen if config.phantoms else pairs_within
    wanted = config.neighbors or 0  # 0: all within the cutoff
    while True:
        pairs = search(radius, lattice, coords)
        shell = last_shells(pairs.centers, pairs.distances, len(coords), wanted) + config.tie_tolerance
        if radius >= config.cutoff or ((shell <= radius) & (shell > 0)).all():
            return pairs, shell
        radius = min(config.cutoff, 1.26 * radius)  # twice the volume


def _graph(
    atomic_numbers: UInt8[np.ndarray, " atoms"], pairs: Pairs, selected: Bool[np.ndarray, " pairs"]
) -> CrystalGraph:
    edge_index = np.stack([pairs.neighbors[selected], pairs.centers[selected]]).astype(np.int32)
    distances = pairs.distances[selected].astype(np.float32)
    return CrystalGraph(atomic_numbers, edge_index, distances, pairs.vectors[selected].astype(np.float32))


def _with_phantoms(atomic_numbers: UInt8[np.ndarray, " atoms"], pairs: Pairs, config: GraphConfig) -> CrystalGraph:
    """Graph with exactly the wanted number of edges for each atom, as the published code builds it.

    A tied shell is cut in the order in which the search lists it, and missing neighbors become edges of 9 Å to the
    first site: spectra then depend on the choice of the cell and the order of sites.
    """
    assert config.neighbors is not None
    atoms = len(atomic_numbers)
    rank = np.arange(len(pairs.centers)) - np.searchsorted(pairs.centers, pairs.centers)
    nearest = rank < config.neighbors
    missing = np.repeat(np.arange(atoms), config.neighbors - np.bincount(pairs.centers[nearest], minlength=atoms))
    centers = np.concatenate([pairs.centers[nearest], missing])
    order = np.argsort(centers, kind="stable")
    filled = Pairs(
        centers[order],
        np.concatenate([pairs.neighbors[nearest], np.zeros_like(missing)])[order],
        np.concatenate([pairs.distances[nearest], np.full(len(missing), PHANTOM_DISTANCE)])[order],
        np.concatenate([pairs.vectors[nearest], np.zeros((len(missing), 3))])[order],
    )
    return _graph(atomic_numbers, filled, np.ones(len(order), bool))
