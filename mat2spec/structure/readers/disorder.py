"""Structures with partly occupied sites: refused, or replaced by their most likely ordering."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from pymatgen.core import Composition, Structure

from mat2spec.errors import StructureError
from mat2spec.structure.crystal import ROUNDED_OCCUPANCY, Crystal, disordered_site, isotope_in
from mat2spec.structure.distances import check_distances

Disorder = Literal["reject", "ordered"]

MAX_ORDERED_SITES = 120
"""Largest supercell in which an ordering is sought."""

MAX_ORDERINGS = 20_000
"""Most ways to fill the sites of that supercell; searching them takes seconds."""

_OCCUPANCY_TOLERANCE = 0.006
"""Largest difference between the occupancy of an ordering and the declared one: 0.33 may be a third, 0.67 two."""


@dataclass(frozen=True)
class ParsedStructure:
    """One structure of a file, or the error that says why it cannot be used.

    Args:
        name: Its name inside the file, or "" if the file holds only one.
        crystal: The crystal, or the error.
        ordered_from: Formula of the disordered structure, where its most likely ordering was taken.
    """

    name: str
    crystal: Crystal | StructureError
    ordered_from: str | None = None


def parse_structure(
    structure: Structure, material_id: str, *, disorder: Disorder = "reject", largest_cell: int = 5000
) -> ParsedStructure:
    """Convert a pymatgen structure to a crystal, or to the error that says why it is refused."""
    try:
        return _parse(structure, material_id, disorder, largest_cell)
    except StructureError as error:
        return ParsedStructure("", StructureError(material_id, error.rule))


def disordered_formula(structure: Structure) -> str:
    """Formula with the species that share a site in brackets: (Ca0.5Mg0.5)O."""
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


def normalized(occupancies: Mapping[str, float]) -> dict[str, float]:
    """Occupancies of one site, scaled so that their sum is one where it is so within rounding."""
    total = sum(occupancies.values())
    scale = total if abs(total - 1) <= ROUNDED_OCCUPANCY else 1.0
    return {element: occupancy / scale for element, occupancy in occupancies.items()}


def _parse(structure: Structure, material_id: str, disorder: Disorder, largest_cell: int) -> ParsedStructure:
    check_size(len(structure), largest_cell)
    structure = _with_normalized_sites(structure)
    if isotope := isotope_in(structure):
        raise StructureError("", isotope)
    site = disordered_site(structure)
    if not site:
        return ParsedStructure("", _whole(structure, material_id))
    if disorder == "reject":
        way_out = "order it yourself, or with --reading.disorder ordered (mat2spec predict, screen, ingest files)"
        raise StructureError("", f"{site}; {way_out}")
    ordered = most_likely_ordering(structure, site)
    return ParsedStructure("", _whole(ordered, material_id), disordered_formula(structure))


def _with_normalized_sites(structure: Structure) -> Structure:
    totals = [site.species.num_atoms for site in structure]
    rounded = [index for index, total in enumerate(totals) if 0 < abs(total - 1) <= ROUNDED_OCCUPANCY]
    if rounded:
        structure = structure.copy()
        for index in rounded:
            structure[index].species = structure[index].species / totals[index]
    return structure


def _whole(structure: Structure, material_id: str) -> Crystal:
    """Crystal of a structure of whole atoms, none of which overlap."""
    crystal = Crystal.from_structure(structure, material_id)
    check_distances(crystal)
    return crystal


def check_size(sites: int, largest_cell: int) -> None:
    """Refuse a cell with too many sites.

    Raises:
        StructureError: If it has more than `largest_cell`.
    """
    if sites > largest_cell:
        raise StructureError("", f"{sites:,} sites; the limit is {largest_cell:,} (largest_cell)")


def most_likely_ordering(structure: Structure, site: str) -> Structure:
    """Fill partly occupied sites with whole atoms so that the electrostatic energy of the ions is lowest.

    The cell is repeated until every occupancy is a whole number of atoms. Oxidation states are pymatgen's guess; where
    none balance, as in an alloy, all orderings have the same energy and the structure is refused.

    Args:
        structure: With disordered sites.
        site: Description of one of them, for errors.

    Raises:
        StructureError: If the supercell, or the number of orderings, is too large to search, or charges do not balance.
    """
    whole = Structure.from_sites(structure.sites)
    whole.remove_oxidation_states()
    repeats = _repeats_for_whole_atoms(whole, site)
    cell = whole.make_supercell(_most_compact(whole, repeats), in_place=False)
    orderings = math.prod(_arrangements(sites, counts) for sites, counts in _whole_atoms(cell))
    if orderings > MAX_ORDERINGS:
        too_many = f"its {len(cell)} sites have {orderings:.3g} orderings, over {MAX_ORDERINGS:,}"
        raise StructureError("", f"{site}; {too_many}; give an ordered structure")
    composition = _composition(cell)
    charges = composition.oxi_state_guesses(max_sites=-1) if len(composition) <= 8 else ()
    if not charges or not any(charges[0].values()):
        unbalanced = f"no oxidation states balance {composition.reduced_formula}, so no ordering is the most likely"
        raise StructureError("", f"{site}; {unbalanced}; give an ordered structure")
    # here, because it takes as long to import as torch, and few inputs need it
    from pymatgen.transformations.standard_transformations import OrderDisorderedStructureTransformation

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            cell.add_oxidation_state_by_element(charges[0])
            transformation = OrderDisorderedStructureTransformation(occ_tol=0.5)
            transformation.apply_transformation(cell)
            return transformation.lowest_energy_structure
    except (ValueError, ArithmeticError, IndexError) as error:
        reason = " ".join(str(error).split())[:100]
        raise StructureError("", f"{site}; pymatgen finds no ordering ({reason})") from None


def _repeats_for_whole_atoms(structure: Structure, site: str) -> int:
    """Smallest number of cells in which every occupancy is a whole number of atoms."""
    groups = [(len(sites), occupancies) for sites, occupancies in _groups(structure)]
    for repeats in range(1, MAX_ORDERED_SITES // len(structure) + 1):
        if all(
            _fills(sites * repeats, occupancy) for sites, occupancies in groups for occupancy in occupancies.values()
        ):
            return repeats
    too_large = f"a supercell of whole atoms has more than {MAX_ORDERED_SITES} sites (one cell has {len(structure)})"
    raise StructureError("", f"{site}; {too_large}; give an ordered structure")


def _fills(sites: int, occupancy: float) -> bool:
    atoms = round(sites * occupancy)
    return atoms > 0 and abs(atoms / sites - occupancy) < _OCCUPANCY_TOLERANCE


def _groups(structure: Structure) -> Iterator[tuple[list[int], dict[str, float]]]:
    """Disordered sites with equal occupancies, grouped as pymatgen's transformation groups them."""
    disordered = [i for i, site in enumerate(structure) if not site.is_ordered]
    occupancies = {
        i: tuple(sorted((e.symbol, round(float(o), 8)) for e, o in structure[i].species.items())) for i in disordered
    }
    disordered.sort(key=occupancies.__getitem__)
    for filling, sites in groupby(disordered, key=occupancies.__getitem__):
        yield list(sites), dict(filling)


def _whole_atoms(cell: Structure) -> Iterator[tuple[int, dict[str, int]]]:
    """Number of sites in each group, and the atoms that share them."""
    for sites, occupancies in _groups(cell):
        counts = {symbol: round(occupancy * len(sites)) for symbol, occupancy in occupancies.items()}
        yield len(sites), counts


def _arrangements(sites: int, counts: dict[str, int]) -> int:
    """Number of ways to place atoms on sites, some of which may stay empty."""
    empty = max(sites - sum(counts.values()), 0)
    return math.factorial(sites) // math.prod(math.factorial(count) for count in (*counts.values(), empty))


def _composition(cell: Structure) -> Composition:
    atoms = sum((site.species for site in cell if site.is_ordered), Composition())
    return sum((Composition(counts) for _, counts in _whole_atoms(cell)), atoms)


def _most_compact(structure: Structure, repeats: int) -> tuple[int, int, int]:
    """Repeats of each axis that make the longest edge of the supercell as short as possible."""
    shapes = [
        (i, j, repeats // i // j)
        for i in range(1, repeats + 1)
        for j in range(1, repeats + 1)
        if repeats % (i * j) == 0
    ]
    return min(shapes, key=lambda shape: float(np.max(np.array(shape) * structure.lattice.lengths)))
