"""The search for neighbors in a small cell, compiled by Numba."""

from math import ceil, floor, inf, sqrt

import numpy as np
from jaxtyping import Float64, Int

from mat2spec.structure.compiled import compiled


@compiled
def reciprocal_vectors(lattice: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """Reciprocal lattice vectors without 2π [1/Å], the rows of a matrix whose transpose is the lattice's inverse."""
    vectors = np.empty((3, 3))
    for k in range(3):
        a, b = lattice[(k + 1) % 3], lattice[(k + 2) % 3]
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            vectors[k, x] = a[y] * b[z] - a[z] * b[y]
    volume = 0.0
    for x in range(3):
        volume += lattice[0, x] * vectors[0, x]
    return vectors / volume


@compiled
def plane_spacings(lattice: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3"]:
    """Distance of the lattice planes that two of the vectors span, for each pair of vectors [Å]."""
    reciprocal, spacings = reciprocal_vectors(lattice), np.empty(3)
    for k in range(3):
        spacings[k] = 1 / sqrt(reciprocal[k, 0] ** 2 + reciprocal[k, 1] ** 2 + reciprocal[k, 2] ** 2)
    return spacings


@compiled
def pairs_in_cell(
    radius: float, lattice: Float64[np.ndarray, "3 3"], coords: Float64[np.ndarray, "atoms 3"]
) -> tuple[
    Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"], Float64[np.ndarray, "pairs 3"]
]:
    """Find the pairs of `neighbors.pairs_within`: for two atoms, all images of one near the other are tried."""
    atoms = len(coords)
    reciprocal, reach = reciprocal_vectors(lattice), radius / plane_spacings(lattice)
    low, high, apart = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3)
    found, capacity = 0, 32 * atoms + 64
    centers, neighbors = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    distances, vectors = np.empty(capacity), np.empty((capacity, 3))
    for center in range(atoms):
        first = found
        for neighbor in range(atoms):
            for x in range(3):
                apart[x] = coords[neighbor, x] - coords[center, x]
            for k in range(3):
                cells = apart[0] * reciprocal[k, 0] + apart[1] * reciprocal[k, 1] + apart[2] * reciprocal[k, 2]
                low[k], high[k] = ceil(-cells - reach[k]), floor(-cells + reach[k])
            for i in range(low[0], high[0] + 1):
                for j in range(low[1], high[1] + 1):
                    for k in range(low[2], high[2] + 1):
                        dx = apart[0] + i * lattice[0, 0] + j * lattice[1, 0] + k * lattice[2, 0]
                        dy = apart[1] + i * lattice[0, 1] + j * lattice[1, 1] + k * lattice[2, 1]
                        dz = apart[2] + i * lattice[0, 2] + j * lattice[1, 2] + k * lattice[2, 2]
                        distance = sqrt(dx * dx + dy * dy + dz * dz)
                        if distance > radius or (center == neighbor and i == 0 and j == 0 and k == 0):
                            continue
                        if found == capacity:
                            capacity *= 2
                            centers, neighbors = _longer(centers, capacity), _longer(neighbors, capacity)
                            distances, vectors = _longer(distances, capacity), _longer(vectors, capacity)
                        centers[found], neighbors[found], distances[found] = center, neighbor, distance
                        vectors[found, 0], vectors[found, 1], vectors[found, 2] = dx, dy, dz
                        found += 1
        order = first + np.argsort(distances[first:found], kind="mergesort")  # stable
        neighbors[first:found], distances[first:found] = neighbors[order], distances[order]
        vectors[first:found] = vectors[order]
    return centers[:found], neighbors[:found], distances[:found], vectors[:found]


@compiled
def _longer(array: np.ndarray, size: int) -> np.ndarray:
    longer = np.empty((size, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


@compiled
def last_shells(
    centers: Int[np.ndarray, " pairs"], distances: Float64[np.ndarray, " pairs"], atoms: int, wanted: int
) -> Float64[np.ndarray, " atoms"]:
    """Distance of the last wanted neighbor of each atom; infinite where there are fewer, -inf where there is none."""
    shells, counts = np.full(atoms, -inf), np.zeros(atoms, np.int64)
    for pair in range(len(centers)):
        center = centers[pair]
        counts[center] += 1
        if counts[center] == 1:
            shells[center] = inf
        if counts[center] == wanted:
            shells[center] = distances[pair]
    return shells
