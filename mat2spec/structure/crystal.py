"""A crystal as arrays, and its conversion from and to pymatgen, ASE and rows of a materials table."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float64, UInt8
from pymatgen.core import Composition, Lattice, Structure

from mat2spec.elements import MAX_ATOMIC_NUMBER, symbols
from mat2spec.errors import StructureError

MIN_VOLUME_PER_ATOM = 0.1
"""[Å³] Atoms at least 0.5 Å apart need 0.088 Å³ each even in the densest packing."""

MAX_VOLUME_PER_ATOM = 1e4
"""[Å³] About five times the 8 Å sphere searched for neighbors: an isolated atom or molecule, not a crystal."""

HASH_DECIMALS = 5
"""Digits of a length [Å] or a fractional coordinate that enter `content_hash`; files seldom give more."""

ROUNDED_OCCUPANCY = 1e-3
"""Difference from one within which the occupancy of a site is one: 0.9999, 1.000001, or three times 0.3333."""

ISOTOPES = {"D": "deuterium", "T": "tritium"}
"""They bond as hydrogen does, but their phonons differ, and a crystal knows no masses."""


@dataclass(frozen=True)
class Crystal:
    """One periodic structure. The constructor refuses arrays that cannot be a crystal.

    Args:
        material_id: Its name in every message and table.
        atomic_numbers: One per site.
        lattice: Rows are the vectors a, b, c [Å].
        frac_coords: Fractional coordinates of the sites; any integer shift of a site is the same site.

    Raises:
        StructureError: If a number is not finite, an element is unknown or the volume per atom is out of range.
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
            raise _unknown_element(self.material_id, unknown)
        per_atom = self.volume / len(self)
        if not MIN_VOLUME_PER_ATOM <= per_atom <= MAX_VOLUME_PER_ATOM:
            limits = f"{MIN_VOLUME_PER_ATOM:g} … {MAX_VOLUME_PER_ATOM:g}"
            raise StructureError(self.material_id, f"the cell has {per_atom:.3g} Å³ per atom; a crystal has {limits}")

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def volume(self) -> float:
        """Volume of the cell [Å³]."""
        with np.errstate(over="ignore"):  # the constructor refuses an infinite volume
            return float(abs(np.linalg.det(self.lattice)))

    @property
    def elements(self) -> list[str]:
        """Symbols of its elements, in alphabetical order."""
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

    @property
    def content_hash(self) -> str:
        """Hash of cell and sites: 32 hexadecimal digits, the same for any name and any order of sites.

        Descriptions of one crystal in different cells have different hashes; pymatgen's `StructureMatcher` recognizes
        them, at a thousand times the cost.
        """
        coords = np.mod(self.frac_coords, 1.0).round(HASH_DECIMALS) % 1.0
        sites = np.column_stack([self.atomic_numbers, coords])
        digest = hashlib.sha256((self.lattice.round(HASH_DECIMALS) + 0.0).tobytes())  # -0.0 becomes 0.0
        digest.update(sites[np.lexsort(sites.T[::-1])].tobytes())
        return digest.hexdigest()[:32]

    @classmethod
    def from_structure(cls, structure: Structure, material_id: str | None = None) -> "Crystal":
        """Convert a pymatgen structure; oxidation states are dropped.

        Args:
            structure: Without disorder.
            material_id: Default: the reduced formula.

        Raises:
            StructureError: Also if a site is disordered (partly occupied, or shared by several species) or an isotope.
        """
        name = material_id or structure.reduced_formula
        if not all(structure.pbc):
            periodic = ", ".join(axis for axis, is_periodic in zip("abc", structure.pbc, strict=True) if is_periodic)
            raise StructureError(
                name, f"it is periodic along {periodic or 'no vector'} only; a crystal is along all three"
            )
        if isotope := isotope_in(structure):
            raise StructureError(name, isotope)
        if disorder := disordered_site(structure):
            raise StructureError(name, f"{disorder}; give an ordered structure")
        for index, site in enumerate(structure):
            if not 1 <= site.specie.Z <= MAX_ATOMIC_NUMBER:
                rule = f"site {index} is {site.species_string}, an unknown element; known are H to Fm"
                raise StructureError(name, rule)
        numbers = np.array([site.specie.Z for site in structure], np.uint8)
        lattice = np.array(structure.lattice.matrix, np.float64)
        return cls(name, numbers, lattice, np.array(structure.frac_coords, np.float64).reshape(-1, 3))

    def to_structure(self) -> Structure:
        """Convert to a pymatgen structure."""
        return Structure(Lattice(self.lattice), self.atomic_numbers.tolist(), self.frac_coords)

    @classmethod
    def from_atoms(cls, atoms: Atoms, material_id: str | None = None) -> "Crystal":
        """Convert ASE atoms.

        Args:
            atoms: Periodic in three directions.
            material_id: Default: the reduced formula.

        Raises:
            StructureError: Also if there is no periodic cell.
        """
        name = material_id or atoms.get_chemical_formula("metal", empirical=True)
        if not atoms.pbc.all() or atoms.cell.rank < 3:
            rule = "it has no periodic cell (pbc and three lattice vectors); a molecule has no bands or phonon branches"
            raise StructureError(name, rule)
        if disorder := _disorder_of_atoms(atoms):
            raise StructureError(name, f"{disorder}; give an ordered structure")
        lattice = np.array(atoms.cell, np.float64)
        frac_coords = atoms.get_positions() @ np.linalg.inv(lattice)  # as pymatgen computes them, to the last digit
        return cls(name, _checked_numbers(name, atoms.get_atomic_numbers()), lattice, frac_coords)

    def to_atoms(self) -> Atoms:
        """Convert to ASE atoms, periodic in three directions."""
        return Atoms(self.atomic_numbers, cell=self.lattice, scaled_positions=self.frac_coords, pbc=True)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Crystal":
        """Read a row of a materials table.

        Args:
            row: At least material_id, nsites, atomic_numbers, lattice (9 numbers: rows a, b, c [Å]) and frac_coords (3
                per site), as lists or arrays, flat or in rows of three; float32 and integers are accepted.

        Raises:
            StructureError: Also if a value is NULL or the lengths of the lists do not match.
        """
        name, nsites = str(row["material_id"]), row["nsites"]
        numbers, lattice, frac_coords = row["atomic_numbers"], row["lattice"], row["frac_coords"]
        if numbers is None or lattice is None or frac_coords is None:
            raise StructureError(name, "atomic_numbers, lattice or frac_coords is NULL")
        lattice, frac_coords = _flat(name, "lattice", lattice), _flat(name, "frac_coords", frac_coords)
        if len(lattice) != 9:
            raise StructureError(name, f"the lattice has {len(lattice)} numbers; need 9, the rows a, b, c")
        if nsites is None or np.isnan(nsites) or nsites != len(numbers):
            raise StructureError(name, f"nsites is {nsites} but there are {len(numbers)} atomic numbers")
        if len(frac_coords) != 3 * len(numbers):
            rule = f"{len(frac_coords)} fractional coordinates for {len(numbers)} sites; need 3 per site"
            raise StructureError(name, rule)
        return cls(
            name,
            _checked_numbers(name, np.asarray(numbers)),
            lattice.reshape(3, 3),
            frac_coords.reshape(-1, 3),
        )

    def to_row(self) -> dict[str, Any]:
        """Convert to a row of a materials table: its six columns and content_hash, as values that JSON can hold."""
        return {
            "material_id": self.material_id,
            "formula_pretty": self.formula,
            "nsites": len(self),
            "atomic_numbers": self.atomic_numbers.tolist(),
            "lattice": self.lattice.ravel().tolist(),
            "frac_coords": self.frac_coords.ravel().tolist(),
            "content_hash": self.content_hash,
        }


def disordered_site(structure: Structure) -> str:
    """Describe the first disordered site with its species and occupancies; "" if there is none."""
    for index, site in enumerate(structure):
        if not site.is_ordered:
            label = f" {site.label}" if site.label and site.label != site.species_string else ""
            return f"site {index}{label[:20]} is disordered ({site.species_string})"
    return ""


def _disorder_of_atoms(atoms: Atoms) -> str:
    """Describe a partly occupied site; "" if there is none. ASE keeps occupancies beside the atoms, by kind of site."""
    for kind, species in (atoms.info.get("occupancy") or {}).items():
        if len(species) > 1 or abs(sum(species.values()) - 1) > ROUNDED_OCCUPANCY:
            shares = ", ".join(f"{symbol}:{share:g}" for symbol, share in species.items())
            return f"a site of kind {kind} is disordered ({shares})"
    return ""


def isotope_in(structure: Structure) -> str:
    """Describe the first site that holds deuterium or tritium, and why it is refused; "" if there is none."""
    for index, site in enumerate(structure):
        for species in site.species:
            name = getattr(getattr(species, "element", species), "name", "")  # pymatgen gives deuterium the symbol H
            if name in ISOTOPES:
                return isotope_rule(f"site {index}", name)
    return ""


def isotope_rule(site: str, symbol: str) -> str:
    """Explain why a site that holds deuterium or tritium is refused."""
    isotope = f"{site} is {symbol} ({ISOTOPES[symbol]}), whose phonons are not those of hydrogen"
    return f"{isotope}; replace it by H if isotopes do not matter"


def _flat(material_id: str, what: str, numbers: Any) -> Float64[np.ndarray, " numbers"]:
    """Numbers that are flat or in rows of three, as a flat array."""
    if isinstance(numbers, np.ndarray) and numbers.dtype.kind != "O":
        return np.array(numbers, np.float64).ravel()
    if not any(map(np.ndim, numbers)):
        return np.array(numbers, np.float64)
    if any(np.shape(row) != (3,) for row in numbers):
        raise StructureError(material_id, f"each row of {what} must be 3 numbers")
    return np.concatenate(numbers, dtype=np.float64)


def _checked_numbers(material_id: str, numbers: np.ndarray) -> UInt8[np.ndarray, " atoms"]:
    """Atomic numbers as bytes, checked before the conversion wraps 273 to 17."""
    if numbers.dtype.kind == "O":
        numbers = numbers.astype(np.float64)  # None becomes NaN
    known = (numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)
    if not known.all():
        raise _unknown_element(material_id, numbers[~known][0])
    return numbers.astype(np.uint8)


def _unknown_element(material_id: str, atomic_number: float | np.number | int) -> StructureError:
    known = f"known are 1 (H) to {MAX_ATOMIC_NUMBER} (Fm)"
    return StructureError(material_id, f"unknown element with atomic number {atomic_number:g}; {known}")


@lru_cache(maxsize=10_000)
def _reduced_formula(counts: tuple[tuple[int, int], ...]) -> str:
    return str(Composition({symbols()[z]: count for z, count in counts}).reduced_formula)
