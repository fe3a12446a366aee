"""How many atoms the primitive cell of a crystal has, and its space group."""

from math import gcd
from typing import Any

import numpy as np
import spglib
from jaxtyping import Float64

from mat2spec.structure.crystal import Crystal

SYMPREC = 1e-2
"""[Å] How far an atom may lie from where a symmetry would put it."""

_SCREENING_TOLERANCE = 10 * SYMPREC


def primitive_nsites(crystal: Crystal) -> int:
    """Count the sites of the primitive cell, as spglib finds it with a precision of 1e-2 Å.

    spglib takes milliseconds, so that it is asked only about cells that some pure translation maps nearly onto themselves.
    Where it finds no cell, the cell is taken as primitive.
    """
    if not _may_repeat(crystal):
        return len(crystal)
    try:
        found = spglib.find_primitive(_cell(crystal), symprec=SYMPREC)
    except spglib.SpglibError:  # what versions after 2.8 do instead of giving None
        return len(crystal)
    return len(crystal) if found is None else len(found[2])


def standard_primitive(crystal: Crystal) -> Crystal:
    """Give the standardised, idealised primitive cell, as spglib finds it with a precision of 1e-2 Å.

    Coordinates rounded in a file break symmetries and multiply the k-points of a calculation; this restores them. Where spglib finds no
    cell, the crystal is given back as it is.
    """
    try:
        found = spglib.standardize_cell(_cell(crystal), to_primitive=True, no_idealize=False, symprec=SYMPREC)
    except spglib.SpglibError:
        return crystal
    if found is None:
        return crystal
    lattice, frac_coords, numbers = found
    return Crystal(
        crystal.material_id, np.array(numbers, np.uint8), np.array(lattice, float), np.array(frac_coords, float)
    )


def space_group_number(crystal: Crystal) -> int:
    """International number of the space group, as spglib finds it with a precision of 1e-2 Å; 1 where it finds none."""
    try:
        found = spglib.get_symmetry_dataset(_cell(crystal), symprec=SYMPREC)
    except spglib.SpglibError:
        return 1
    return 1 if found is None else found.number


def _cell(crystal: Crystal) -> Any:
    """A crystal as spglib takes it."""
    return crystal.lattice, crystal.frac_coords, crystal.atomic_numbers


def _may_repeat(crystal: Crystal) -> bool:
    """Whether a translation shorter than the lattice maps each atom to within 0.1 Å of one of its element."""
    elements, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    if gcd(*counts.tolist()) == 1:
        return False  # n cells in one multiply every element's count by n
    rarest = crystal.frac_coords[crystal.atomic_numbers == elements[counts.argmin()]]
    shifts = rarest[1:] - rarest[0]
    return any(_maps_onto_itself(crystal, shift) for shift in shifts)


def _maps_onto_itself(crystal: Crystal, shift: Float64[np.ndarray, " 3"]) -> bool:
    offsets = crystal.frac_coords[:, None] + shift - crystal.frac_coords
    offsets -= np.round(offsets)
    near = np.linalg.norm(offsets @ crystal.lattice, axis=2) < _SCREENING_TOLERANCE
    same = np.equal.outer(crystal.atomic_numbers, crystal.atomic_numbers)
    return bool((near & same).any(axis=1).all())
