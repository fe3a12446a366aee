"""The loop over pairs of atoms in the search for empty space, compiled by Numba."""

import numpy as np
from jaxtyping import Float32, Float64, Int

from mat2spec.structure.compiled import compiled


@compiled
def largest_inverses(
    coords: Float64[np.ndarray, "atoms 3"],
    lattice: Float64[np.ndarray, "3 3"],
    centers: Int[np.ndarray, " pairs"],
    neighbors: Int[np.ndarray, " pairs"],
    images: Float64[np.ndarray, "pairs 3"],
    distances: Float64[np.ndarray, " pairs"],
    directions: Float32[np.ndarray, "3 directions"],
) -> Float32[np.ndarray, "atoms directions"]:
    """Inverse of where each ray leaves the Voronoi cell of its atom: the largest 2 (u·v) / |v|², at least 0 [1/Å]."""
    inverses = np.zeros((len(coords), directions.shape[1]), np.float32)
    plane = np.empty(3, np.float32)
    along_x, along_y, along_z = directions[0], directions[1], directions[2]
    for pair in range(len(centers)):
        for k in range(3):
            shift = 0.0
            for axis in range(3):
                shift += images[pair, axis] * lattice[axis, k]
            vector = coords[neighbors[pair], k] - coords[centers[pair], k] + shift
            plane[k] = 2 * vector / distances[pair] ** 2
        x, y, z = plane
        rays = inverses[centers[pair]]
        for ray in range(len(rays)):
            inverse = x * along_x[ray] + y * along_y[ray] + z * along_z[ray]
            rays[ray] = inverse if inverse > rays[ray] else rays[ray]
    return inverses
