"""The graph of a crystal: sites are nodes, and each has edges from its nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int32, UInt8
from pymatgen.core import Lattice
from pymatgen.optimization.neighbors import find_points_in_spheres
from torch import Tensor

from mat2spec.config import GraphConfig
from mat2spec.crystal import Crystal
from mat2spec.errors import StructureError

MIN_DISTANCE = 0.5
"""[Å] Closer atoms are an error of the file; the shortest bond, that of H₂, is 0.74 Å."""

_EXPECTED_NEIGHBORS = 24
"""Neighbours inside the first search radius at uniform density: twice the 12 that are kept, so that one search nearly always does."""

_THIN_CELL = 2.0
"""[Å] Distance of lattice planes below which a cell is reduced first: a search in a long, thin cell visits very many images."""


@dataclass(frozen=True)
class CrystalGraph:
    """Nodes and edges of one crystal.

    Args:
        atomic_numbers: One per node.
        edge_index: Row 0 the neighbour (source), row 1 the centre (target), ordered by centre, then distance (PyG's convention).
        distances: Length of each edge [Å].
    """

    atomic_numbers: UInt8[np.ndarray, " atoms"]
    edge_index: Int32[np.ndarray, "2 edges"]
    distances: Float32[np.ndarray, " edges"]

    @property
    def num_edges(self) -> int:
        return len(self.distances)


@dataclass(frozen=True)
class GraphBatch:
    """Many crystal graphs as one, on a device.

    Args:
        atomic_numbers: One per node.
        edge_index: As in `CrystalGraph`, indices into all nodes of the batch.
        distances: Length of each edge [Å].
        batch: Number of the crystal to which each node belongs.
        num_graphs: How many crystals there are.
    """

    atomic_numbers: Int[Tensor, " atoms"]
    edge_index: Int[Tensor, "2 edges"]
    distances: Float[Tensor, " edges"]
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
            torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
            len(graphs),
        )

    def to(self, device: torch.device) -> "GraphBatch":
        """Move every array to a device."""
        moved = (t.to(device, non_blocking=True) for t in (self.atomic_numbers, self.edge_index, self.distances, self.batch))
        return GraphBatch(*moved, num_graphs=self.num_graphs)  # type: ignore[misc, arg-type]


def build_graph(crystal: Crystal, config: GraphConfig) -> CrystalGraph:
    """Connect each atom to its nearest neighbours, the whole last shell included.

    Neighbours whose distance equals that of the last one kept, within the tolerance, are kept too. The choice then depends on
    distances alone: rotation, a shift of the origin, another order of sites or another choice of cell give the same graph.

    Raises:
        StructureError: If an atom has no neighbour within the cutoff, or two atoms are closer than 0.5 Å.
    """
    lattice, coords = _compact_cell(crystal)
    if (shortest := np.linalg.norm(lattice, axis=1).min()) < MIN_DISTANCE:
        raise StructureError(
            crystal.material_id, f"a site is {shortest:.3g} Å from its own image; atoms closer than {MIN_DISTANCE} Å overlap"
        )
    density = len(crystal) / crystal.volume
    radius = min(config.cutoff, (3 * _EXPECTED_NEIGHBORS / (4 * pi * density)) ** (1 / 3))
    while True:
        neighbors, centers, distances = _pairs_within(radius, lattice, coords)
        counts = np.bincount(centers, minlength=len(crystal))
        shell = _last_shell(distances, counts, config.neighbors) + config.tie_tolerance
        if radius >= config.cutoff or (shell <= radius).all():
            break
        radius = min(config.cutoff, 1.26 * radius)  # twice the volume
    if distances.size and distances.min() < MIN_DISTANCE:
        closest = int(distances.argmin())
        pair = f"sites {centers[closest]} and {neighbors[closest]} are {distances[closest]:.3f} Å apart"
        raise StructureError(crystal.material_id, f"{pair}; atoms closer than {MIN_DISTANCE} Å overlap")
    if not counts.all():
        alone = int(np.flatnonzero(counts == 0)[0])
        raise StructureError(crystal.material_id, f"site {alone} has no neighbour within {config.cutoff:g} Å; the atom is isolated")
    kept = distances <= shell[centers]
    edge_index = np.stack([neighbors[kept], centers[kept]]).astype(np.int32)
    return CrystalGraph(crystal.atomic_numbers, edge_index, distances[kept].astype(np.float32))


def _compact_cell(crystal: Crystal) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "atoms 3"]]:
    """Lattice and Cartesian coordinates inside the cell; the LLL-reduced cell where the given one is long and thin."""
    lattice, frac = crystal.lattice, crystal.frac_coords
    areas = np.linalg.norm(np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]]), axis=1)
    if crystal.volume < _THIN_CELL * areas.max():
        reduced = Lattice(lattice).get_lll_reduced_lattice()
        frac = frac @ lattice @ np.linalg.inv(reduced.matrix)
        lattice = np.ascontiguousarray(reduced.matrix)
    return lattice, (frac - np.floor(frac)) @ lattice


def _pairs_within(
    radius: float, lattice: Float64[np.ndarray, "3 3"], coords: Float64[np.ndarray, "atoms 3"]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Neighbour, centre and distance of every pair within the radius, by centre and then by distance."""
    periodic = np.ones(3, dtype=np.int64)
    centers, neighbors, images, distances = find_points_in_spheres(coords, coords, r=radius, pbc=periodic, lattice=lattice, tol=1e-8)
    centers, neighbors = centers.view(np.int64), neighbors.view(np.int64)  # from C's long long
    itself = (centers == neighbors) & ~images.any(axis=1)
    order = np.lexsort((distances, centers))
    order = order[~itself[order]]
    return neighbors[order], centers[order], distances[order]


def _last_shell(
    distances: Float64[np.ndarray, " pairs"], counts: Int[np.ndarray, " atoms"], neighbors: int
) -> Float64[np.ndarray, " atoms"]:
    """Distance of each atom's last wanted neighbour; infinite where there are fewer."""
    starts = np.cumsum(counts) - counts
    last = np.minimum(starts + neighbors - 1, max(distances.size - 1, 0))
    return np.where(counts >= neighbors, distances[last] if distances.size else np.inf, np.inf)
