"""CIF files as crystals: ordinary blocks by gemmi's compiled reader, all others by pymatgen's."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
from gemmi import cif
from jaxtyping import Float64
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser

from mat2spec.elements import symbols
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.cif_blocks import DataBlock, data_blocks, suits_pymatgen, text_for_pymatgen, values
from mat2spec.structure.readers.cif_sites import AtomSites, atom_sites, formula, formula_units
from mat2spec.structure.readers.cif_symmetry import CLOSEST, Symmetry, close_pairs, declared_symmetry, expand
from mat2spec.structure.readers.disorder import Disorder, ParsedStructure, check_size, parse_structure

_CELL_TAGS = (
    *(f"_cell_length_{axis}" for axis in "abc"),
    *(f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma")),
)
_CRYSTAL_SYSTEM_TAGS = {"_symmetry_cell_setting", "_space_group_crystal_system"}
_MODULATED = (
    "_cell_modulation",
    "_cell_wave_vector",
    "_cell_subsystem",
    "_space_group_ssg",
    "_space_group_symop_ssg",
    "_atom_site_fourier",
)
_MAGNETIC = ("_space_group_magn", "_atom_site_moment", "_space_group_symop_magn", "_magnetic_space_group")
_OTHER_DICTIONARIES = ("_atom_site.", "_cell.")

_IMAGES_PER_SITE = 4
"""Symmetry images per site of the largest cell that are passed to pymatgen: it takes a minute for 20,000."""


def read_cif(
    text: str, material_id: str, *, disorder: Disorder = "reject", largest_cell: int = 5000
) -> list[ParsedStructure]:
    """Read all structures of a CIF.

    A block is ordinary if each site is one whole atom of a named element, the symmetry operations form a space group
    that agrees with the name in the file, all images either coincide or are at least 0.5 Å apart, and the declared
    formula and number of formula units agree with the cell. gemmi reads such a block, and it is expanded here to the
    sites that pymatgen returns, within 1e-4. All other blocks go to pymatgen, except those that it is known to misread:
    isotopes, modulated structures, hydrogens without coordinates, two alternatives both fully occupied.

    Sites of zero occupancy are dummies and dropped, as in pymatgen. A cell whose elements or ratios (by over 2 %)
    differ from `_chemical_formula_sum` is refused, where pymatgen only warns: most often the hydrogens are missing.

    Args:
        text: Content of the file.
        material_id: Of a file with one structure; of several, each has the name of its data block.
        disorder: Refuse partly occupied sites, or take the most likely ordering.
        largest_cell: Sites beyond which a cell is refused, before symmetry is applied.

    Returns:
        At least one entry. Blocks without cell and atoms are left out, unless there are no others.
    """
    if "\0" in text:
        return [ParsedStructure("", StructureError(material_id, "the file is binary, not text"))]
    blocks = data_blocks(text)
    structure_blocks = [block for block in blocks if block.should_hold_structure]
    if not structure_blocks:
        content = f"{len(blocks)} data blocks, none with a cell or atoms" if blocks else "no data block (data_name)"
        rule = f"the file holds {content}; is it a CIF of a structure?"
        return [ParsedStructure("", StructureError(material_id, rule))]
    if len(structure_blocks) == 1:
        return [_parse(structure_blocks[0], material_id, disorder, largest_cell)]
    structures = []
    for index, block in enumerate(structure_blocks):
        name = block.name or f"{material_id}-{index}"
        structures.append(replace(_parse(block, name, disorder, largest_cell), name=name))
    return structures


def _parse(block: DataBlock, material_id: str, disorder: Disorder, largest_cell: int) -> ParsedStructure:
    try:
        if block.content is None:
            raise StructureError("", block.flaw)
        if other := _other_kind(block.tags):
            raise StructureError("", other)
        sites = atom_sites(block.content, largest_cell)
        cell = _cell(block.content, block.tags)
        symmetry = declared_symmetry(block.content, cell[3], cell[5])
        lattice = np.array(Lattice.from_parameters(*cell).matrix, float) if np.isfinite(cell).all() else None
        if symmetry and lattice is not None and not symmetry.fits(lattice):
            lengths = ", ".join(f"{number:g}" for number in cell)
            rule = f"the {len(symmetry)} symmetry operations do not fit the cell ({lengths})"
            raise StructureError("", f"{rule}; is it given in other axes?")
        ordinary = not block.flaw and sites.ordinary and not _is_magnetic(block.tags)
        if ordinary and symmetry and symmetry.certain and lattice is not None:
            crystal = _expanded(block.content, material_id, sites, symmetry, lattice, largest_cell)
            if crystal:
                return ParsedStructure("", crystal)
        images = len(sites) * (len(symmetry) if symmetry else 192)
        if images > _IMAGES_PER_SITE * largest_cell:
            limit = f"{_IMAGES_PER_SITE} × largest_cell = {_IMAGES_PER_SITE * largest_cell:,}"
            rule = f"its {len(sites):,} listed sites have {images:,} symmetry images, more than {limit}"
            raise StructureError("", rule)
        structure = _by_pymatgen(block.content, symmetry.triplets if symmetry else ())
        return parse_structure(structure, material_id, disorder=disorder, largest_cell=largest_cell)
    except StructureError as error:
        return ParsedStructure("", StructureError(material_id, error.rule))


@lru_cache
def _other_kind(tags: frozenset[str]) -> str:
    """Why tags are not those of a crystal structure in the core CIF dictionary, or "".

    Cached, because files of one source have the same tags.
    """
    for tag in sorted(tags):
        if tag.startswith(_MODULATED):
            return f"the structure is modulated ({tag[:40]}); give a commensurate supercell"
        if tag.startswith(_OTHER_DICTIONARIES):
            kind = f"tags such as {tag[:40]} belong to mmCIF or the DDLm dictionaries"
            return f"{kind}; write the file with tags of the core CIF dictionary"
    return ""


@lru_cache
def _is_magnetic(tags: frozenset[str]) -> bool:
    return any(tag.startswith(_MAGNETIC) for tag in tags)


def _cell(block: cif.Block, tags: frozenset[str]) -> tuple[float, ...]:
    """Three lengths [Å] and three angles [°]; NaN where they follow from the crystal system."""
    cell = []
    for tag in _CELL_TAGS:
        given = values(block, tag)
        number = cif.as_number(given[0]) if len(given) == 1 else np.nan
        if not given and tags & _CRYSTAL_SYSTEM_TAGS:
            cell.append(np.nan)
        elif not np.isfinite(number) and given and given[0]:
            raise StructureError("", f"{tag} is {given[0][:20]!r}, not a number")
        elif not np.isfinite(number):
            raise StructureError("", f"no cell: {tag} is missing")
        elif not 0 < number < (1e4 if "length" in tag else 180):
            raise StructureError("", f"{tag} is {number:g}, which is impossible for a cell")
        else:
            cell.append(number)
    cosines = [math.cos(math.radians(angle)) for angle in cell[3:]]
    if 1 - sum(cosine**2 for cosine in cosines) + 2 * math.prod(cosines) < 1e-6:  # False for NaN
        angles = f"{cell[3]:g}, {cell[4]:g}, {cell[5]:g}°"
        raise StructureError("", f"the angles {angles} are impossible for a cell: its volume would be zero")
    return tuple(cell)


def _expanded(
    block: cif.Block,
    material_id: str,
    sites: AtomSites,
    symmetry: Symmetry,
    lattice: Float64[np.ndarray, "3 3"],
    largest_cell: int,
) -> Crystal | None:
    """Crystal of an ordinary block; None if it turns out not to be ordinary."""
    expanded = expand(symmetry, sites.frac_coords, lattice)
    if expanded is None:
        return None
    coordinates, rows = expanded
    check_size(len(rows), largest_cell)
    numbers = sites.atomic_numbers[rows]
    if numbers.max(initial=0) >= len(symbols()):
        return None
    declared = formula(block)
    if declared:
        counts = {symbols()[z]: float(count) for z, count in Counter(numbers.tolist()).items()}
        units = formula_units(declared, counts)
        given = [cif.as_number(z) for z in values(block, "_cell_formula_units_Z") if z]
        # one unit is accepted too: pymatgen writes the formula of the whole cell
        if units is None or (given and round(units, 3) not in (1, given[0])):
            return None
    elif values(block, "_chemical_formula_sum"):
        return None
    return Crystal(material_id, numbers.astype(np.uint8), lattice, coordinates)


def _by_pymatgen(block: cif.Block, operations: tuple[str, ...]) -> Structure:
    """Read one block with pymatgen, and refuse structures that it only warns about."""
    text = text_for_pymatgen(block, operations)
    if not suits_pymatgen(text):
        rule = f"its structure part has {len(text):,} characters, too many for anything but ordinary sites"
        raise StructureError("", rule)
    try:
        with warnings.catch_warnings():
            for kind in (UserWarning, RuntimeWarning):  # pymatgen's, and numpy's inside pymatgen
                warnings.simplefilter("ignore", kind)
            parser = CifParser.from_str(text, occupancy_tolerance=1.0)
            [structure] = parser.parse_structures(primitive=False, on_error="raise")
    except Exception as error:  # pymatgen raises any kind of exception for a broken text
        message = str(error).removeprefix("No structure parsed for section 1 in CIF.")
        reason = " ".join(message.split())[:200] or type(error).__name__
        raise StructureError("", f"it cannot be read as a structure ({reason})") from None
    if "implicit_hydrogens" in structure.site_properties:
        rule = "some sites stand for molecules with hydrogens that have no coordinates; add the hydrogens as sites"
        raise StructureError("", rule)
    _refuse_another_formula(block, structure)
    for first, second in _overlapping(structure):
        distance = structure.get_distance(first, second)
        rule = f"sites {first} and {second} are {distance:.2g} Å apart; give coordinates with more digits (0.16667)"
        raise StructureError("", rule)
    return structure


def _refuse_another_formula(block: cif.Block, structure: Structure) -> None:
    declared = formula(block)
    counts = {str(symbol): float(count) for symbol, count in structure.composition.get_el_amt_dict().items()}
    if declared and formula_units(declared, counts) is None:
        given = " ".join(f"{symbol}{count:g}" for symbol, count in sorted(declared.items()))
        listed = " ".join(f"{symbol}{count:g}" for symbol, count in sorted(counts.items()))
        way_out = "add the missing sites or correct _chemical_formula_sum"
        raise StructureError("", f"its sites are {listed}, its formula {given}; {way_out}")


def _overlapping(structure: Structure) -> Iterator[tuple[int, int]]:
    """Pairs of whole atoms closer than 0.5 Å."""
    if (
        not structure.is_ordered
        or not np.isfinite(structure.frac_coords).all()
        or min(structure.lattice.abc) < 2 * CLOSEST
    ):
        return
    pairs = close_pairs(np.array(structure.frac_coords, float), np.array(structure.lattice.matrix, float))
    for first, second in pairs if pairs is not None else ():
        yield int(first), int(second)
