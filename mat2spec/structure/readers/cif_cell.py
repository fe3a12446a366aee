"""Sites of the whole cell, which symmetry generates from the listed ones."""

import numpy as np
from jaxtyping import Float64, Int64
from scipy.spatial import cKDTree

from mat2spec.structure.readers.cif_symmetry import Symmetry

SITE_TOLERANCE = 1e-4
"""Images whose fractional coordinates all differ by less than this are one site, as in pymatgen."""

CLOSEST = 0.5
"""[Å] Smallest distance between two atoms of a crystal."""

_MANY = 1_000
_MAX_NEIGHBORS = 9
"""Average neighbors of a site, itself included, above which pairs are not listed: 10⁶ equal sites would fill memory."""


def expand(
    symmetry: Symmetry, listed: Float64[np.ndarray, "rows 3"], lattice: Float64[np.ndarray, "3 3"]
) -> tuple[Float64[np.ndarray, "sites 3"], Int64[np.ndarray, " sites"]] | None:
    """Apply all operations to all listed sites, and merge images that coincide.

    Returns:
        Fractional coordinates, and the listed row of each site. None if images of two rows coincide, or if two images
        neither coincide nor are 0.5 Å apart.
    """
    images = np.einsum("oij,rj->roi", symmetry.rotations, listed) + symmetry.translations
    images = images.reshape(-1, 3)
    images = images - np.floor(images)
    rows = np.repeat(np.arange(len(listed)), len(symmetry))
    if len(symmetry) > 1:  # most coincidences hold to five digits; the others are handled below
        rounded = np.rint(images * 1e5).astype(np.int64) % 100_000
        _, first, same = np.unique(rounded @ np.array([10**10, 10**5, 1]), return_index=True, return_inverse=True)
        if (rows[first][same] != rows).any():
            return None
        first = np.sort(first)
        images, rows = images[first], rows[first]
    pairs = close_pairs(images, lattice)
    if pairs is None:
        return None
    if not len(pairs):
        return images, rows
    offsets = images[pairs[:, 0]] - images[pairs[:, 1]]
    coincide = (np.abs(offsets - np.rint(offsets)) < SITE_TOLERANCE).all(axis=1)
    if not coincide.all() or (rows[pairs[:, 0]] != rows[pairs[:, 1]]).any():
        return None
    distinct = np.setdiff1d(np.arange(len(images)), pairs.max(axis=1, initial=-1))
    return images[distinct], rows[distinct]


def close_pairs(
    fractions: Float64[np.ndarray, "sites 3"], lattice: Float64[np.ndarray, "3 3"]
) -> Int64[np.ndarray, "pairs 2"] | None:
    """Find the pairs of sites closer than 0.5 Å, periodic images included.

    Returns:
        Positions, each pair twice. None if many sites have eight or more neighbors on average, or the cell is thinner
        than two such distances.
    """
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    if (heights <= 2 * CLOSEST).any():
        return None
    projections = np.mod(fractions, 1.0) * heights
    projections[projections >= heights] = 0.0
    # along the heights of a cell no two points are further apart than in space, so that no pair is missed
    tree = cKDTree(projections, boxsize=heights)
    if len(projections) > _MANY and tree.count_neighbors(tree, CLOSEST, p=np.inf) > _MAX_NEIGHBORS * len(projections):
        return None
    pairs = tree.query_pairs(CLOSEST, p=np.inf, output_type="ndarray").astype(np.int64)
    offsets = fractions[pairs[:, 0]] - fractions[pairs[:, 1]]
    pairs = pairs[np.linalg.norm((offsets - np.rint(offsets)) @ lattice, axis=1) < CLOSEST]
    return np.concatenate([pairs, pairs[:, ::-1]])
