"""Fingerprint of a structure: mean distances between atoms, the same for every cell, origin, orientation and name.

It extends the average minimum distances of Widdowson et al., MATCH 87, 529 (2022), doi 10.46793/match.87-3.529W, by
elements: without them CuAu and any other order of its atoms on the same lattice would be one crystal.
"""

from math import pi

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64

from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import compact_cell
from mat2spec.structure.neighbors import pairs_within

SAME_ELEMENT, ANY_ELEMENT = 48, 24
"""Neighbors of each atom whose distances count. Zinc blende and wurtzite agree in the first 16, fcc and hcp in 18."""

EVERY = 2
"""Of these distances every second is stored: the others raise F1, 0.917, by less than 0.001 (benchmarks/seen.py)."""

DISTANCE_TOLERANCE = 0.085
"""Largest difference of two distances of one crystal, in units of the cube root of the volume per atom."""

VOLUME_TOLERANCE = 0.15
"""Largest difference of the logarithms of its volumes: layered crystals differ most between functionals."""


def structure_fingerprint(crystal: Crystal) -> Float16[np.ndarray, " numbers"]:
    """Compute the fingerprint of a crystal whose atoms do not overlap (`check_distances`).

    Returns:
        Logarithm of the volume per atom [Å³]; then for each element, by atomic number, the mean over its atoms of the
        sorted distances to the nearest atoms of any element, and to the nearest of its own, in units of the cube root
        of the volume per atom. Crystals of the same elements have equally many numbers.
    """
    lattice, coords = compact_cell(crystal)
    numbers, volume = crystal.atomic_numbers, crystal.volume
    distances = _nearest_distances(lattice, coords, volume, ANY_ELEMENT)
    parts = []
    for element in np.unique(numbers):
        own = numbers == element
        parts.append(distances[own].mean(axis=0))
        parts.append(_nearest_distances(lattice, coords[own], volume, SAME_ELEMENT).mean(axis=0))
    per_atom = volume / len(crystal)
    return np.concatenate([[np.log(per_atom)], np.concatenate(parts) / np.cbrt(per_atom)]).astype(np.float16)


def same_structure(
    fingerprint: Float16[np.ndarray, " numbers"], others: Float32[np.ndarray, "crystals numbers"]
) -> Bool[np.ndarray, " crystals"]:
    """Compare a fingerprint with those of crystals of the same reduced composition.

    The tolerances recognize a crystal that was relaxed with another functional. Long-period polytypes (those of SiC or
    CdI2) count as the same. `benchmarks/seen.py` measures both against pymatgen's StructureMatcher.
    """
    differences = np.abs(others - fingerprint.astype(np.float32))
    return (differences[:, 0] <= VOLUME_TOLERANCE) & (differences[:, 1:].max(axis=1) <= DISTANCE_TOLERANCE)


def _nearest_distances(
    lattice: Float64[np.ndarray, "3 3"], coords: Float64[np.ndarray, "atoms 3"], volume: float, neighbors: int
) -> Float64[np.ndarray, "atoms distances"]:
    """Every second of the sorted distances from each atom to its nearest neighbors [Å]."""
    radius = (3 * 1.5 * neighbors * volume / (4 * pi * len(coords))) ** (1 / 3)  # half as many again as needed
    while True:
        pairs = pairs_within(radius, lattice, coords)
        counts = np.bincount(pairs.centers, minlength=len(coords))
        if counts.min() >= neighbors:
            break
        radius *= 1.26  # twice the volume
    first = np.cumsum(counts) - counts
    return pairs.distances[first[:, None] + np.arange(0, neighbors, EVERY)]
