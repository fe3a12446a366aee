"""A crystal as arrays: which atoms, in which cell, where. What cannot be a crystal is refused when it is made."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, UInt8
from pymatgen.core import Composition

from mat2spec.elements import MAX_ATOMIC_NUMBER, symbols
from mat2spec.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure

MIN_VOLUME_PER_ATOM = 0.1
"""[Å³] Atoms that keep 0.5 Å from each other need 0.088 Å³ each even in the densest packing."""

MAX_VOLUME_PER_ATOM = 1e4
"""[Å³] About five times the sphere of 8 Å in which neighbours are sought: an isolated atom or molecule, not a crystal."""


@dataclass(frozen=True)
class Crystal:
    """One periodic structure.

    Args:
        material_id: Its name in every message and table.
        atomic_numbers: One per site.
        lattice: Rows are the vectors a, b, c [Å].
        frac_coords: Fractional coordinates of the sites; any integer shift of a site is the same site.

    Raises:
        StructureError: If a number is not finite, an element is unknown or the volume is no crystal's.
    """

    material_id: str
    atomic_numbers: UInt8[np.ndarray, " atoms"]
    lattice: Float64[np.ndarray, "3 3"]
    frac_coords: Float64[np.ndarray, "atoms 3"]

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise StructureError(self.material_id, "no sites")
        if not np.isfinite(self.lattice).all():
            raise StructureError(self.material_id, "the lattice holds a number that is not finite")
        if not np.isfinite(self.frac_coords).all():
            site = int(np.flatnonzero(~np.isfinite(self.frac_coords).all(axis=1))[0])
            raise StructureError(self.material_id, f"site {site} has a coordinate that is not finite")
        if not ((self.atomic_numbers >= 1) & (self.atomic_numbers <= MAX_ATOMIC_NUMBER)).all():
            unknown = self.atomic_numbers[(self.atomic_numbers < 1) | (self.atomic_numbers > MAX_ATOMIC_NUMBER)][0]
            raise StructureError(self.material_id, unknown_element(unknown))
        per_atom = self.volume / len(self)
        if not MIN_VOLUME_PER_ATOM <= per_atom <= MAX_VOLUME_PER_ATOM:
            limits = f"{MIN_VOLUME_PER_ATOM:g} … {MAX_VOLUME_PER_ATOM:g}"
            raise StructureError(self.material_id, f"the cell has {per_atom:.3g} Å³ per atom; a crystal has {limits}")

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def volume(self) -> float:
        """Volume of the cell [Å³]."""
        with np.errstate(over="ignore"):  # an infinite volume is refused below
            return float(abs(np.linalg.det(self.lattice)))

    @property
    def elements(self) -> list[str]:
        """Symbols of the elements in it, in alphabetical order."""
        return sorted(symbols()[z] for z in set(self.atomic_numbers.tolist()))

    @property
    def composition(self) -> tuple[tuple[int, int], ...]:
        """Reduced composition: atomic numbers in ascending order with their counts, without a common divisor."""
        numbers, counts = np.unique(self.atomic_numbers, return_counts=True)
        return tuple(zip(numbers.tolist(), (counts // np.gcd.reduce(counts)).tolist(), strict=True))

    @property
    def formula(self) -> str:
        """Reduced formula, as pymatgen and the Materials Project write it."""
        return _reduced_formula(tuple(sorted(Counter(self.atomic_numbers.tolist()).items())))

    @classmethod
    def from_structure(cls, structure: "Structure", material_id: str) -> "Crystal":
        """Take a pymatgen structure; oxidation states are dropped.

        Raises:
            StructureError: Also if a site is disordered: partly occupied or shared by several species.
        """
        for index, site in enumerate(structure):
            if not site.is_ordered:
                raise StructureError(
                    material_id, f"site {index} is disordered ({site.species_string}); give an ordered structure"
                )
            if not 1 <= site.specie.Z <= MAX_ATOMIC_NUMBER:
                raise StructureError(
                    material_id, f"site {index} is {site.species_string}, an unknown element; known are H to Fm"
                )
        numbers = np.array([site.specie.Z for site in structure], np.uint8)
        return cls(
            material_id, numbers, np.array(structure.lattice.matrix, float), np.array(structure.frac_coords, float)
        )


@lru_cache(maxsize=10_000)
def _reduced_formula(counts: tuple[tuple[int, int], ...]) -> str:
    return str(Composition({symbols()[z]: count for z, count in counts}).reduced_formula)


def unknown_element(atomic_number: float | np.number | int) -> str:
    """Say that there are no features for an element."""
    return f"unknown element with atomic number {atomic_number:g}; known are 1 (H) to {MAX_ATOMIC_NUMBER} (Fm)"


HASH_DECIMALS = 5
"""Digits of a length [Å] or a fractional coordinate that count; files seldom give more."""


def content_hash(crystal: Crystal) -> str:
    """Hash what a crystal consists of: 32 hexadecimal digits, the same for any name and any order of sites.

    Descriptions of one crystal in different cells differ; pymatgen's `StructureMatcher` knows better, at a thousand times the cost.
    """
    places = np.mod(crystal.frac_coords, 1.0).round(HASH_DECIMALS) % 1.0
    sites = np.column_stack([crystal.atomic_numbers, places])
    digest = hashlib.sha256((crystal.lattice.round(HASH_DECIMALS) + 0.0).tobytes())  # -0.0 is 0.0
    digest.update(sites[np.lexsort(sites.T[::-1])].tobytes())
    return digest.hexdigest()[:32]
