"""Pairs of atoms near each other in a periodic crystal."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int
from pymatgen.optimization.neighbors import find_points_in_spheres

LARGEST_LOOP = 128
"""Atoms of a cell up to which a loop over all pairs is faster than pymatgen's search, which sorts atoms into boxes.

It takes a fifth of the time for 10 atoms, half of it for 80, as long for 270."""

_TOLERANCE = 1e-8
"""[Å] Pairs at the radius itself are within it."""


class Pairs(NamedTuple):
    """Pairs of different atoms, or of an atom and its own image, ordered by center and then by distance.

    Args:
        centers: Site of the first atom.
        neighbors: Site of the other one.
        distances: How far apart they are [Å].
        vectors: From the center to the neighbor [Å].
    """

    centers: Int[np.ndarray, " pairs"]
    neighbors: Int[np.ndarray, " pairs"]
    distances: Float64[np.ndarray, " pairs"]
    vectors: Float64[np.ndarray, "pairs 3"]


def pairs_within(radius: float, lattice: Float64[np.ndarray, "3 3"], coords: Float64[np.ndarray, "atoms 3"]) -> Pairs:
    """Find all pairs up to a distance.

    Args:
        radius: The distance [Å].
        lattice: Rows are the vectors of a cell that is not much longer than thick.
        coords: Cartesian coordinates inside the cell [Å].
    """
    if len(coords) > LARGEST_LOOP:
        return pairs_by_pymatgen(radius, lattice, coords)
    from mat2spec.structure.neighbor_loops import pairs_in_cell  # imports Numba

    return Pairs(*pairs_in_cell(radius + _TOLERANCE, lattice, coords))


def pairs_by_pymatgen(
    radius: float, lattice: Float64[np.ndarray, "3 3"], coords: Float64[np.ndarray, "atoms 3"]
) -> Pairs:
    """Find the same pairs with pymatgen; equally distant ones are in the order in which it lists them."""
    periodic = np.ones(3, dtype=np.int64)
    centers, neighbors, images, distances = find_points_in_spheres(
        coords, coords, r=radius, pbc=periodic, lattice=lattice, tol=_TOLERANCE
    )
    centers, neighbors = centers.view(np.int64), neighbors.view(np.int64)  # C's long long
    other = (centers != neighbors) | images.any(axis=1)
    order = np.flatnonzero(other)
    order = order[np.lexsort((distances[order], centers[order]))]
    centers, neighbors = centers[order], neighbors[order]
    return Pairs(centers, neighbors, distances[order], coords[neighbors] + images[order] @ lattice - coords[centers])
