"""Smallest distances between the atoms of a crystal: closer than their elements allow is an error in the file."""

from functools import cache

import numpy as np
from jaxtyping import Float64
from pymatgen.core import Lattice

from mat2spec.elements import covalent_radii, symbols
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.neighbors import Pairs, pairs_within

MIN_DISTANCE = 0.6
"""[Å] Of any two atoms; the shortest bond, that of H₂, is 0.74 Å."""

FRACTION = 0.5
"""Of the sum of covalent radii, the smallest distance of two atoms."""

LIGHT_FRACTION = 0.7
"""The same between C, N, O and F, where N₂ has the shortest bond relative to the radii: 0.77 of the sum."""

LARGEST_FLOOR = 2.6
"""[Å] Smallest distance of two atoms of francium, the largest element."""

_LIGHT = ("C", "N", "O", "F")

_THIN_CELL = 2.0
"""[Å] Plane spacing below which a cell is reduced first: a search in a long, thin cell visits very many images."""


@cache
def distance_floors() -> Float64[np.ndarray, "elements elements"]:
    """Smallest distance of two atoms [Å] by their atomic numbers: H–H 0.6, O–O 0.92, Na–Cl 1.34."""
    radii = covalent_radii()
    light = np.isin(symbols()[: len(radii)], _LIGHT)
    fractions = np.where(np.logical_and.outer(light, light), LIGHT_FRACTION, FRACTION)
    return np.maximum(MIN_DISTANCE, fractions * np.add.outer(radii, radii))


def check_distances(crystal: Crystal) -> None:
    """Check that no two atoms overlap.

    Raises:
        StructureError: With the two sites, their distance and the smallest one that their elements allow.
    """
    check_distances_in_cell(crystal, *compact_cell(crystal))


def check_distances_in_cell(
    crystal: Crystal, lattice: Float64[np.ndarray, "3 3"], coords: Float64[np.ndarray, "atoms 3"]
) -> None:
    """Check that no two atoms overlap, where the compact cell of the crystal is known."""
    refuse_flat_cell(crystal, lattice)
    refuse_overlap(crystal, pairs_within(LARGEST_FLOOR, lattice, coords))


def refuse_flat_cell(crystal: Crystal, lattice: Float64[np.ndarray, "3 3"]) -> None:
    """Refuse a lattice vector shorter than any two atoms are apart, before a search visits all of its images."""
    if (shortest := np.linalg.norm(lattice, axis=1).min()) < MIN_DISTANCE:
        rule = f"a site is {shortest:.3g} Å from its own image; atoms closer than {MIN_DISTANCE} Å overlap"
        raise StructureError(crystal.material_id, rule)


def refuse_overlap(crystal: Crystal, pairs: Pairs) -> None:
    """Refuse a crystal with a pair of atoms closer than their elements allow."""
    numbers = crystal.atomic_numbers
    centers, neighbors, distances, _ = pairs
    excess = distances - distance_floors()[numbers[centers], numbers[neighbors]]
    if not excess.size or excess.min() >= 0:
        return
    closest = int(np.lexsort((neighbors, centers, excess.round(9)))[0])  # of equal pairs the first, in any order
    pair = sorted((int(centers[closest]), int(neighbors[closest])))
    first, second = (f"{site} ({symbols()[numbers[site]]})" for site in pair)
    apart = f"sites {first} and {second} are {distances[closest]:.3f} Å apart"
    floor = distances[closest] - excess[closest]
    rule = f"{apart}; closer than {floor:.2f} Å these elements overlap: correct the coordinates, or remove one site"
    raise StructureError(crystal.material_id, rule)


def compact_cell(crystal: Crystal) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "atoms 3"]]:
    """Lattice and Cartesian coordinates inside the cell; the LLL-reduced cell where the given one is long and thin."""
    from mat2spec.structure.neighbor_loops import plane_spacings  # imports Numba

    lattice, frac = np.array(crystal.lattice), crystal.frac_coords  # loops are compiled anew for read-only arrays
    if plane_spacings(lattice).min() < _THIN_CELL:
        reduced = Lattice(lattice).get_lll_reduced_lattice()
        frac = frac @ lattice @ np.linalg.inv(reduced.matrix)
        lattice = np.ascontiguousarray(reduced.matrix)
    return lattice, (frac - np.floor(frac)) @ lattice
