"""CIF files as crystals: what is plainly ordinary by a compiled reader, everything else by pymatgen's."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator
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
from mat2spec.structure.readers.disorder import Disorder, Parsed, parse_structure

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
"""Symmetry makes so many copies of the sites of the largest cell before pymatgen is not asked: 20,000 take it a minute."""


def read_cif(text: str, material_id: str, *, disorder: Disorder = "reject", largest_cell: int = 5000) -> list[Parsed]:
    """Read all structures of a CIF.

    A block is ordinary if each site is one whole atom of a named element, the symmetry is that of a space group and of the name beside it,
    all images either coincide or keep 0.5 Å, and the declared formula and number of formula units agree with the cell. Such a block is
    read by gemmi and expanded here, to the sites that pymatgen gives within 1e-4. All others go to pymatgen, unless it is known to read
    them as something else: isotopes, modulated structures, hydrogens without places, two alternatives both occupied.

    Sites of zero occupancy are dummies and dropped, as in pymatgen. A cell whose elements or ratios (by over 2 %) are not those of
    `_chemical_formula_sum` is refused, where pymatgen only warns: most often it lacks the hydrogens.

    Args:
        text: Of the file.
        material_id: Of a file with one structure; of several, each has the name of its data block.
        disorder: Refuse partly occupied sites, or take the most likely ordering.
        largest_cell: More sites are refused, before symmetry makes them.

    Returns:
        At least one. Blocks without cell and atoms are left out, unless there are no others.
    """
    if "\0" in text:
        return [Parsed("", StructureError(material_id, "the file is binary, not text"))]
    blocks = data_blocks(text)
    found = [block for block in blocks if block.should_hold_structure]
    if not found:
        held = f"{len(blocks)} data blocks, none with a cell or atoms" if blocks else "no data block (data_name)"
        return [Parsed("", StructureError(material_id, f"the file holds {held}; is it a CIF of a structure?"))]
    if len(found) == 1:
        return [_parse(found[0], material_id, disorder, largest_cell)]
    parsed = []
    for index, block in enumerate(found):
        name = block.name or f"{material_id}-{index}"
        one = _parse(block, name, disorder, largest_cell)
        parsed.append(Parsed(name, one.crystal, one.ordered_from))
    return parsed


def _parse(block: DataBlock, material_id: str, disorder: Disorder, largest_cell: int) -> Parsed:
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
            raise StructureError(
                "",
                f"the {len(symmetry)} symmetry operations do not fit the cell ({lengths}); is it given in other axes?",
            )
        ordinary = not block.flaw and sites.ordinary and not _is_magnetic(block.tags)
        if ordinary and symmetry and symmetry.certain and lattice is not None:
            crystal = _expanded(block.content, material_id, sites, symmetry, lattice, largest_cell)
            if crystal:
                return Parsed("", crystal)
        images = len(sites) * (len(symmetry) if symmetry else 192)
        if images > _IMAGES_PER_SITE * largest_cell:
            limit = f"{_IMAGES_PER_SITE} × largest_cell = {_IMAGES_PER_SITE * largest_cell:,}"
            raise StructureError(
                "", f"its {len(sites):,} listed sites have {images:,} symmetry images, more than {limit}"
            )
        structure = _by_pymatgen(block.content, symmetry.triplets if symmetry else ())
        return parse_structure(structure, material_id, disorder=disorder, largest_cell=largest_cell)
    except StructureError as error:
        return Parsed("", StructureError(material_id, error.rule))


@lru_cache
def _other_kind(tags: frozenset[str]) -> str:
    """Why tags are not those of a crystal structure in the core dictionary of CIF, or ""; files of one source have the same tags."""
    for tag in sorted(tags):
        if tag.startswith(_MODULATED):
            return f"the structure is modulated ({tag[:40]}); give a commensurate supercell"
        if tag.startswith(_OTHER_DICTIONARIES):
            return f"tags such as {tag[:40]} are those of mmCIF or of the DDLm dictionaries; write it with those of the core CIF"
    return ""


@lru_cache
def _is_magnetic(tags: frozenset[str]) -> bool:
    return any(tag.startswith(_MAGNETIC) for tag in tags)


def _cell(block: cif.Block, tags: frozenset[str]) -> tuple[float, ...]:
    """Three lengths [Å] and three angles [°]; NaN where the crystal system implies them."""
    cell = []
    for tag in _CELL_TAGS:
        given = values(block, tag)
        number = cif.as_number(given[0]) if len(given) == 1 else np.nan
        if not given and tags & _CRYSTAL_SYSTEM_TAGS:
            cell.append(np.nan)
        elif not np.isfinite(number):
            raise StructureError(
                "", f"{tag} is {given[0][:20]!r}, no number" if given and given[0] else f"no cell: {tag} is not given"
            )
        elif not 0 < number < (1e4 if "length" in tag else 180):
            raise StructureError("", f"{tag} is {number:g}, which makes no cell")
        else:
            cell.append(number)
    cosines = [math.cos(math.radians(angle)) for angle in cell[3:]]
    if 1 - sum(cosine**2 for cosine in cosines) + 2 * math.prod(cosines) < 1e-6:  # never of NaN
        raise StructureError(
            "", f"the angles {cell[3]:g}, {cell[4]:g}, {cell[5]:g}° make no cell: its volume would be zero"
        )
    return tuple(cell)


def _expanded(
    block: cif.Block,
    material_id: str,
    sites: AtomSites,
    symmetry: Symmetry,
    lattice: Float64[np.ndarray, "3 3"],
    largest_cell: int,
) -> Crystal | None:
    """The crystal of an ordinary block; None if it turns out not to be ordinary."""
    expanded = expand(symmetry, sites.frac_coords, lattice)
    if expanded is None:
        return None
    coordinates, rows = expanded
    if len(rows) > largest_cell:
        raise StructureError(
            "", f"{len(rows):,} sites; the largest cell that is read has {largest_cell:,} (largest_cell)"
        )
    numbers = sites.atomic_numbers[rows]
    if numbers.max(initial=0) >= len(symbols()):
        return None
    declared = formula(block)
    if declared:
        counts = {symbols()[z]: float(count) for z, count in Counter(numbers.tolist()).items()}
        units = formula_units(declared, counts)
        given = [cif.as_number(z) for z in values(block, "_cell_formula_units_Z") if z]
        if units is None or (
            given and round(units, 3) not in (1, given[0])
        ):  # one: pymatgen writes the formula of the whole cell
            return None
    elif values(block, "_chemical_formula_sum"):
        return None
    return Crystal(material_id, numbers.astype(np.uint8), lattice, coordinates)


def _by_pymatgen(block: cif.Block, operations: tuple[str, ...]) -> Structure:
    """Read one block with pymatgen, and refuse what it only warns about."""
    text = text_for_pymatgen(block, operations)
    if not suits_pymatgen(text):
        raise StructureError(
            "", f"what describes the structure has {len(text):,} characters, too many for anything but plain sites"
        )
    try:
        with warnings.catch_warnings():
            for kind in (UserWarning, RuntimeWarning):  # its remarks, and numpy's on the way to them
                warnings.simplefilter("ignore", kind)
            parser = CifParser.from_str(text, occupancy_tolerance=1.0)
            [structure] = parser.parse_structures(primitive=False, on_error="raise")
    except Exception as error:  # it raises whatever a broken text leads it to
        reason = str(error).removeprefix("No structure parsed for section 1 in CIF.")
        raise StructureError(
            "", f"it cannot be read as a structure ({' '.join(reason.split())[:200] or type(error).__name__})"
        ) from None
    if "implicit_hydrogens" in structure.site_properties:
        raise StructureError(
            "", "some sites stand for molecules with hydrogens that have no coordinates; add them as sites"
        )
    _refuse_another_formula(block, structure)
    for first, second in _overlapping(structure):
        apart = structure.get_distance(first, second)
        raise StructureError(
            "", f"sites {first} and {second} are {apart:.2g} Å apart; give coordinates with more digits (0.16667)"
        )
    return structure


def _refuse_another_formula(block: cif.Block, structure: Structure) -> None:
    declared = formula(block)
    found = {str(symbol): float(count) for symbol, count in structure.composition.get_el_amt_dict().items()}
    if declared and formula_units(declared, found) is None:
        given = " ".join(f"{symbol}{count:g}" for symbol, count in sorted(declared.items()))
        listed = " ".join(f"{symbol}{count:g}" for symbol, count in sorted(found.items()))
        raise StructureError(
            "", f"its sites are {listed}, its formula {given}; add what is missing or correct _chemical_formula_sum"
        )


def _overlapping(structure: Structure) -> Iterator[tuple[int, int]]:
    """Pairs of whole atoms that are closer than atoms can be."""
    if (
        not structure.is_ordered
        or not np.isfinite(structure.frac_coords).all()
        or min(structure.lattice.abc) < 2 * CLOSEST
    ):
        return
    pairs = close_pairs(np.array(structure.frac_coords, float), np.array(structure.lattice.matrix, float))
    for first, second in pairs if pairs is not None else ():
        yield int(first), int(second)
