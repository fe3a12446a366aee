"""Primitive cell and space group of a crystal, by spglib."""

from math import gcd
from typing import Any

import numpy as np
import spglib
from jaxtyping import Float64

from mat2spec.structure.crystal import Crystal

SYMPREC = 1e-2
"""[Å] Largest distance of an atom from its symmetric position."""

_SCREENING_TOLERANCE = 10 * SYMPREC


def primitive_nsites(crystal: Crystal) -> int:
    """Count the sites of the primitive cell that spglib finds with a precision of 1e-2 Å.

    spglib takes milliseconds, so it is called only for cells that a translation maps nearly onto themselves. Where it
    finds no cell, the cell is taken as primitive.
    """
    if not _may_repeat(crystal):
        return len(crystal)
    try:
        primitive = spglib.find_primitive(_cell(crystal), symprec=SYMPREC)
    except spglib.SpglibError:  # versions after 2.8 raise instead of returning None
        return len(crystal)
    return len(crystal) if primitive is None else len(primitive[2])


def standard_primitive(crystal: Crystal) -> Crystal:
    """Return the standardized, idealized primitive cell that spglib finds with a precision of 1e-2 Å.

    Coordinates rounded in a file break symmetries and multiply the k-points of a calculation; this restores them. Where
    spglib finds no cell, the crystal is returned unchanged.
    """
    try:
        cell = spglib.standardize_cell(_cell(crystal), to_primitive=True, no_idealize=False, symprec=SYMPREC)
    except spglib.SpglibError:
        return crystal
    if cell is None:
        return crystal
    lattice, frac_coords, numbers = cell
    return Crystal(
        crystal.material_id, np.array(numbers, np.uint8), np.array(lattice, float), np.array(frac_coords, float)
    )


def space_group_number(crystal: Crystal) -> int:
    """International number of the space group that spglib finds with a precision of 1e-2 Å; 1 where it finds none."""
    try:
        dataset = spglib.get_symmetry_dataset(_cell(crystal), symprec=SYMPREC)
    except spglib.SpglibError:
        return 1
    return 1 if dataset is None else dataset.number


def _cell(crystal: Crystal) -> Any:
    """Lattice, positions and numbers, the cell format of spglib."""
    return crystal.lattice, crystal.frac_coords, crystal.atomic_numbers


def _may_repeat(crystal: Crystal) -> bool:
    """Whether a translation shorter than the lattice maps each atom to within 0.1 Å of one of the same element."""
    elements, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    if gcd(*counts.tolist()) == 1:
        return False  # in a cell of n primitive cells, n divides the count of every element
    rarest = crystal.frac_coords[crystal.atomic_numbers == elements[counts.argmin()]]
    shifts = rarest[1:] - rarest[0]
    return any(_maps_onto_itself(crystal, shift) for shift in shifts)


def _maps_onto_itself(crystal: Crystal, shift: Float64[np.ndarray, " 3"]) -> bool:
    offsets = crystal.frac_coords[:, None] + shift - crystal.frac_coords
    offsets -= np.round(offsets)
    near = np.linalg.norm(offsets @ crystal.lattice, axis=2) < _SCREENING_TOLERANCE
    same = np.equal.outer(crystal.atomic_numbers, crystal.atomic_numbers)
    return bool((near & same).any(axis=1).all())
