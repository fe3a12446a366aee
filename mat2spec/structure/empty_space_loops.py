"""The loop over pairs of atoms in the search for empty space, compiled by Numba."""

import numpy as np
from jaxtyping import Float32, Float64, Int

from mat2spec.structure.compiled import compiled


@compiled
def largest_inverses(
    atoms: int,
    centers: Int[np.ndarray, " pairs"],
    distances: Float64[np.ndarray, " pairs"],
    vectors: Float64[np.ndarray, "pairs 3"],
    directions: Float32[np.ndarray, "3 directions"],
) -> Float32[np.ndarray, "atoms directions"]:
    """Inverse of where each ray leaves the Voronoi cell of its atom: the largest 2 (u·v) / |v|², at least 0 [1/Å]."""
    inverses = np.zeros((atoms, directions.shape[1]), np.float32)
    plane = np.empty(3, np.float32)
    along_x, along_y, along_z = directions[0], directions[1], directions[2]
    for pair in range(len(centers)):
        for k in range(3):
            plane[k] = 2 * vectors[pair, k] / distances[pair] ** 2
        x, y, z = plane
        rays = inverses[centers[pair]]
        for ray in range(len(rays)):
            inverse = x * along_x[ray] + y * along_y[ray] + z * along_z[ray]
            rays[ray] = inverse if inverse > rays[ray] else rays[ray]
    return inverses
