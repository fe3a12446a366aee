"""CIF files as crystals: ordinary blocks by gemmi's compiled reader, all others by pymatgen's."""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from gemmi import cif
from jaxtyping import Float64
from pymatgen.core import Lattice, Structure

from mat2spec.elements import symbols
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import check_distances
from mat2spec.structure.readers.cif_blocks import DataBlock, data_blocks, suits_pymatgen, text_for_pymatgen, values
from mat2spec.structure.readers.cif_cell import CLOSEST, close_pairs, expand
from mat2spec.structure.readers.cif_formula import declared_z, formula, refuse_another_formula
from mat2spec.structure.readers.cif_sites import AtomSites, atom_sites
from mat2spec.structure.readers.cif_symmetry import Symmetry, declared_symmetries
from mat2spec.structure.readers.disorder import Disorder, ParsedStructure, check_size, parse_structure
from mat2spec.structure.symmetry import space_group_number

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

_IMAGES_PER_SITE = 4
"""Symmetry images per site of the largest cell that are passed to pymatgen: it takes a minute for 20,000."""


def read_cif(
    text: str, material_id: str, *, disorder: Disorder = "reject", largest_cell: int = 5000
) -> list[ParsedStructure]:
    """Read all structures of a CIF.

    A block is ordinary if each site is one whole atom of a named element and all images either coincide or are at least
    0.5 Å apart. gemmi reads such a block, and it is expanded here to the sites that pymatgen returns, within 1e-4. All
    other blocks go to pymatgen, except those that it is known to misread: isotopes, modulated structures, hydrogens
    without coordinates, two alternatives both fully occupied.

    The symmetry operations must form the space group that the file names; incomplete ones are completed from the name
    where the sites allow only that. A cell that is not Z times `_chemical_formula_sum` is refused, where pymatgen only
    warns. Dummies, flagged or of zero occupancy, are dropped.

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
        lattice = np.array(Lattice.from_parameters(*cell).matrix, float) if np.isfinite(cell).all() else None
        reader = _SitesReader(block, material_id, sites, lattice, disorder, largest_cell)
        return reader.read(declared_symmetries(block.content, cell[3], cell[5]))
    except StructureError as error:
        return ParsedStructure("", StructureError(material_id, error.rule))


@dataclass(frozen=True)
class _SitesReader:
    """Sites of a block, made a crystal by that reading of the block's symmetry which the sites confirm."""

    block: DataBlock
    material_id: str
    sites: AtomSites
    lattice: Float64[np.ndarray, "3 3"] | None
    disorder: Disorder
    largest_cell: int

    def read(self, readings: tuple[Symmetry, ...]) -> ParsedStructure:
        """Read the sites.

        Raises:
            StructureError: If no reading gives a crystal, or several give different ones.
        """
        if len(readings) == 1:
            return self._by(readings[0])
        structures, reasons = {}, []
        for symmetry in readings:
            try:
                structures[symmetry.triplets] = self._by(symmetry)
            except StructureError as error:
                reasons.append(error.rule.removeprefix(symmetry.conflict).strip("; "))
        sizes = {_size(structure) for structure in structures.values()}
        # a group and one that contains it give the same crystal if they give equally many sites
        nested = readings[0].expected and readings[0].triplets in structures and len(sizes) == 1
        if len(structures) == 1 or nested:
            return next(iter(structures.values()))
        reason = f" ({reasons[-1]})" if reasons and not structures else ""
        raise StructureError("", f"{readings[0].conflict}{reason}; list all operations, or correct the name")

    def _by(self, symmetry: Symmetry) -> ParsedStructure:
        """Read the sites by one symmetry."""
        content, lattice = self.block.content, self.lattice
        assert content is not None
        if lattice is not None and not symmetry.fits(lattice):
            lengths = ", ".join(f"{number:g}" for number in Lattice(lattice).parameters)
            rule = f"the {len(symmetry)} symmetry operations do not fit the cell ({lengths})"
            raise StructureError("", f"{rule}; is it given in other axes?")
        ordinary = not self.block.flaw and self.sites.ordinary and not _is_magnetic(self.block.tags)
        if ordinary and lattice is not None:
            crystal = _expanded(content, self.material_id, self.sites, symmetry, lattice, self.largest_cell)
            if crystal:
                _refuse_unconfirmed(content, symmetry, crystal)
                return ParsedStructure("", crystal)
        images = len(self.sites) * len(symmetry)
        if images > _IMAGES_PER_SITE * self.largest_cell:
            limit = f"{_IMAGES_PER_SITE} × largest_cell = {_IMAGES_PER_SITE * self.largest_cell:,}"
            rule = f"its {len(self.sites):,} listed sites have {images:,} symmetry images, more than {limit}"
            raise StructureError("", rule)
        structure = _by_pymatgen(content, symmetry.triplets)
        parsed = parse_structure(structure, self.material_id, disorder=self.disorder, largest_cell=self.largest_cell)
        if isinstance(parsed.crystal, Crystal) and not _is_magnetic(self.block.tags):
            _refuse_unconfirmed(content, symmetry, parsed.crystal)
        return parsed


def _size(structure: ParsedStructure) -> int:
    return len(structure.crystal) if isinstance(structure.crystal, Crystal) else 0


def _refuse_unconfirmed(block: cif.Block, symmetry: Symmetry, crystal: Crystal) -> None:
    """Refuse the smaller of two contradictory symmetries, unless Z × formula or the symmetry of the sites confirms it.

    Without an expected group nothing is to be confirmed. That Z × formula agrees has been checked before.
    """
    if not symmetry.expected or (formula(block) and declared_z(block)):
        return
    if space_group_number(crystal) not in symmetry.expected:
        raise StructureError("", f"{symmetry.conflict}; list all operations, or correct the name")


@lru_cache
def _other_kind(tags: frozenset[str]) -> str:
    """Why tags are not those of a crystal structure in the core CIF dictionary, or "".

    Cached, because files of one source have the same tags.
    """
    for tag in sorted(tags):
        if tag.startswith(_MODULATED):
            return f"the structure is modulated ({tag[:40]}); give a commensurate supercell"
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
    counts = Counter(symbols()[z] for z in numbers.tolist())
    refuse_another_formula(block, {symbol: float(count) for symbol, count in counts.items()}, whole=True)
    crystal = Crystal(material_id, numbers.astype(np.uint8), lattice, coordinates)
    check_distances(crystal)
    return crystal


def _by_pymatgen(block: cif.Block, operations: tuple[str, ...]) -> Structure:
    """Read one block with pymatgen, and refuse structures that it only warns about."""
    from pymatgen.io.cif import CifParser  # half a second, in every worker that reads no CIF

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
        if re.match(r"Occupancy \S+ exceeded", reason):
            reason = f"{reason.rstrip('.')} Sites coincide: list no image of a site, and each site once"
        raise StructureError("", f"it cannot be read as a structure ({reason})") from None
    if "implicit_hydrogens" in structure.site_properties:
        rule = "some sites stand for molecules with hydrogens that have no coordinates; add the hydrogens as sites"
        raise StructureError("", rule)
    counts = {str(symbol): float(count) for symbol, count in structure.composition.get_el_amt_dict().items()}
    refuse_another_formula(block, counts, whole=structure.is_ordered)
    for first, second in _overlapping(structure):
        distance = structure.get_distance(first, second)
        rule = f"sites {first} and {second} are {distance:.2g} Å apart; give coordinates with more digits (0.16667)"
        raise StructureError("", rule)
    return structure


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
