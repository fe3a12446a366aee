"""What becomes of a structure whose sites are partly occupied: refused by name, or the most likely ordering taken."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from pymatgen.core import Composition, Structure
from pymatgen.transformations.standard_transformations import OrderDisorderedStructureTransformation

from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal

Disorder = Literal["reject", "ordered"]

ISOTOPES = ("D", "T")

MAX_ORDERED_SITES = 120
"""Of the supercell in which an ordering is sought."""

MAX_ORDERINGS = 20_000
"""Ways to fill the sites of that supercell; the search through them takes seconds."""

_OCCUPANCY_TOLERANCE = 0.006
"""How far the occupancy of an ordering may be from the declared one: 0.33 may be a third, 0.67 two."""


@dataclass(frozen=True)
class Parsed:
    """One structure of a file, or why there is none.

    Args:
        name: What the file calls it, or "" if it holds only one.
        crystal: The crystal, or the reason.
        ordered_from: The formula of the disordered structure whose ordering was taken.
    """

    name: str
    crystal: Crystal | StructureError
    ordered_from: str | None = None


def parse_structure(
    structure: Structure, material_id: str, *, disorder: Disorder = "reject", largest_cell: int = 5000
) -> Parsed:
    """Make a crystal of what one of pymatgen's readers found.

    Deuterium and tritium are refused: they bond as hydrogen does, but their phonons are others, and a crystal knows no masses.
    """
    try:
        return _parse(structure, material_id, disorder, largest_cell)
    except StructureError as error:
        return Parsed("", StructureError(material_id, error.rule))


def isotope(site: str, symbol: str) -> str:
    """Say that an isotope of hydrogen is none of our elements."""
    name = {"D": "deuterium", "T": "tritium"}[symbol]
    return f"{site} is {symbol} ({name}), whose phonons are not those of hydrogen; replace it by H if isotopes do not matter"


def name_disorder(structure: Structure) -> str:
    """Name the first disordered site with its species and occupancies; "" if there is none."""
    for index, site in enumerate(structure):
        if not site.is_ordered:
            label = f" {site.label}" if site.label and site.label != site.species_string else ""
            return f"site {index}{label[:20]} is disordered ({site.species_string})"
    return ""


def disordered_formula(structure: Structure) -> str:
    """Write the species that share a site in brackets: (Ca0.5Mg0.5)O."""
    counts = Counter(
        "".join(
            f"{element.symbol}{occupancy:.4g}" if occupancy != 1 else element.symbol
            for element, occupancy in sorted(site.species.items())
        )
        for site in structure
    )
    divisor = math.gcd(*counts.values())
    parts = (
        (f"({species})" if any(map(str.isdigit, species)) else species, count // divisor)
        for species, count in counts.items()
    )
    return "".join(f"{species}{count}" if count > 1 else species for species, count in parts)


def _parse(structure: Structure, material_id: str, disorder: Disorder, largest_cell: int) -> Parsed:
    if len(structure) > largest_cell:
        raise StructureError(
            "", f"{len(structure):,} sites; the largest cell that is read has {largest_cell:,} (largest_cell)"
        )
    for index, site in enumerate(structure):
        for species in site.species:
            name = getattr(getattr(species, "element", species), "name", "")  # the symbol of deuterium is H
            if name in ISOTOPES:
                raise StructureError("", isotope(f"site {index}", name))
    named = name_disorder(structure)
    if not named:
        return Parsed("", Crystal.from_structure(structure, material_id))
    if disorder == "reject":
        raise StructureError(
            "", f"{named}; give an ordered structure, or take the most likely ordering with --disorder ordered"
        )
    ordered = most_likely_ordering(structure, named)
    return Parsed("", Crystal.from_structure(ordered, material_id), disordered_formula(structure))


def most_likely_ordering(structure: Structure, named: str) -> Structure:
    """Fill partly occupied sites with whole atoms so that the electrostatic energy of the ions is lowest.

    The cell is doubled, tripled and so on as far as whole atoms need. Oxidation states are pymatgen's guess; where none balance, as in
    an alloy, all orderings have the same energy and none is taken.

    Raises:
        StructureError: If the supercell, or the number of orderings, is too large to search, or charges do not balance.
    """
    whole = Structure.from_sites(structure.sites)
    whole.remove_oxidation_states()
    repeats = _repeats_for_whole_atoms(whole, named)
    cell = whole.make_supercell(_most_compact(whole, repeats), in_place=False)
    orderings = math.prod(_arrangements(sites, counts) for sites, counts in _whole_atoms(cell))
    if orderings > MAX_ORDERINGS:
        raise StructureError(
            "",
            f"{named}; its {len(cell)} sites have {orderings:.3g} orderings, over {MAX_ORDERINGS:,}; give an ordered structure",
        )
    composition = _composition(cell)
    charges = composition.oxi_state_guesses(max_sites=-1) if len(composition) <= 8 else ()
    if not charges or not any(charges[0].values()):
        raise StructureError(
            "",
            f"{named}; no oxidation states balance {composition.reduced_formula}, so no ordering is likeliest; give an ordered structure",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            cell.add_oxidation_state_by_element(charges[0])
            transformation = OrderDisorderedStructureTransformation(occ_tol=0.5)
            transformation.apply_transformation(cell)
            return transformation.lowest_energy_structure
    except (ValueError, ArithmeticError, IndexError) as error:
        raise StructureError(
            "", f"{named}; pymatgen finds no ordering ({' '.join(str(error).split())[:100]})"
        ) from None


def _repeats_for_whole_atoms(structure: Structure, named: str) -> int:
    """The smallest number of cells in which every occupancy is a whole number of atoms."""
    groups = [(len(sites), occupancies) for sites, occupancies in _groups(structure)]
    for repeats in range(1, MAX_ORDERED_SITES // len(structure) + 1):
        if all(
            _fills(sites * repeats, occupancy) for sites, occupancies in groups for occupancy in occupancies.values()
        ):
            return repeats
    raise StructureError(
        "",
        f"{named}; a supercell of whole atoms has more than {MAX_ORDERED_SITES} sites ({len(structure)} in one); give an ordered structure",
    )


def _fills(sites: int, occupancy: float) -> bool:
    atoms = round(sites * occupancy)
    return atoms > 0 and abs(atoms / sites - occupancy) < _OCCUPANCY_TOLERANCE


def _groups(structure: Structure) -> Iterator[tuple[list[int], dict[str, float]]]:
    """Sites that are occupied alike, disordered ones only: as pymatgen's transformation groups them."""
    disordered = [i for i, site in enumerate(structure) if not site.is_ordered]
    occupancies = {
        i: tuple(sorted((e.symbol, round(float(o), 8)) for e, o in structure[i].species.items())) for i in disordered
    }
    disordered.sort(key=occupancies.__getitem__)
    for filling, sites in groupby(disordered, key=occupancies.__getitem__):
        yield list(sites), dict(filling)


def _whole_atoms(cell: Structure) -> Iterator[tuple[int, dict[str, int]]]:
    """For each group of sites: how many there are, and the atoms that they share."""
    for sites, occupancies in _groups(cell):
        counts = {symbol: round(occupancy * len(sites)) for symbol, occupancy in occupancies.items()}
        yield len(sites), counts


def _arrangements(sites: int, counts: dict[str, int]) -> int:
    """Number of ways to put atoms on sites, some of which may stay empty."""
    empty = max(sites - sum(counts.values()), 0)
    return math.factorial(sites) // math.prod(math.factorial(count) for count in (*counts.values(), empty))


def _composition(cell: Structure) -> Composition:
    atoms = sum((site.species for site in cell if site.is_ordered), Composition())
    return sum((Composition(counts) for _, counts in _whole_atoms(cell)), atoms)


def _most_compact(structure: Structure, repeats: int) -> tuple[int, int, int]:
    """How often to repeat each axis, so that the longest is as short as can be."""
    shapes = [
        (i, j, repeats // i // j)
        for i in range(1, repeats + 1)
        for j in range(1, repeats + 1)
        if repeats % (i * j) == 0
    ]
    return min(shapes, key=lambda shape: float(np.max(np.array(shape) * structure.lattice.lengths)))
