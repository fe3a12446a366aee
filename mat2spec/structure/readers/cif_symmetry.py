"""Symmetry declared in a CIF, and the sites of the cell that it generates from the listed ones."""

import re
from dataclasses import dataclass
from functools import cache, lru_cache

import gemmi
import numpy as np
from gemmi import cif
from jaxtyping import Float64, Int64
from scipy.spatial import cKDTree

from mat2spec.errors import StructureError
from mat2spec.structure.readers.cif_blocks import values

SITE_TOLERANCE = 1e-4
"""Images whose fractional coordinates all differ by less than this are one site, as in pymatgen."""

CLOSEST = 0.5
"""[Å] Smallest distance between two atoms of a crystal."""

_MAX_OPERATIONS = 192
_METRIC_TOLERANCE = 0.02
_MANY = 1_000
_MAX_NEIGHBORS = 9
"""Average neighbors of a site, itself included, above which pairs are not listed: 10⁶ equal sites would fill memory."""

_OPERATION_TAGS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_NAME_TAGS = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M_alt")
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_NUMBER_TAGS = ("_symmetry_Int_Tables_number", "_space_group_IT_number")
_CHOICES = {"S": "1", "Z": "2", "H": "H", "R": "R"}
"""Suffixes for the choice of origin or axes: the ICSD's, and gemmi's."""
_ORIGINS = ("1", "2")


@dataclass(frozen=True)
class Symmetry:
    """The operations of a space group.

    Args:
        rotations: Matrices that act on columns of fractional coordinates.
        translations: In fractions of the cell.
        certain: Whether the operations form a space group, the one named in the file.
        triplets: The operations in CIF notation, where the file does not list them.
    """

    rotations: Float64[np.ndarray, "operations 3 3"]
    translations: Float64[np.ndarray, "operations 3"]
    certain: bool
    triplets: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rotations)

    def fits(self, lattice: Float64[np.ndarray, "3 3"]) -> bool:
        """Whether each operation keeps the lengths and angles of the cell."""
        metric = lattice @ lattice.T
        rotated = self.rotations.transpose(0, 2, 1) @ metric @ self.rotations
        return bool((np.abs(rotated - metric) <= _METRIC_TOLERANCE * metric.max()).all())


def declared_symmetry(block: cif.Block, alpha: float, gamma: float) -> Symmetry | None:
    """Read the symmetry of a block: its operations, else its symbol, else its number, else P 1.

    Args:
        block: A data block.
        alpha: Angle of the cell [°]; with gamma it distinguishes rhombohedral from hexagonal axes.
        gamma: Angle of the cell [°].

    Returns:
        None where only pymatgen can decide.

    Raises:
        StructureError: If the origin is ambiguous, or no space group has the given name.
    """
    listed = tuple(filter(None, values(block, *_OPERATION_TAGS)))
    names = [name for tag in _NAME_TAGS for name in values(block, tag) if name]
    halls = [hall for tag in _HALL_TAGS for hall in values(block, tag) if hall]
    named: list[gemmi.SpaceGroup | None] = [
        gemmi.find_spacegroup_by_name(_gemmi_name(name), alpha, gamma) for name in names
    ]
    named += [_groups_by_hall().get(" ".join(hall.split())) for hall in halls]
    known = [group for group in named if group]
    numbers = {group.number for group in known} | {_number(number) for number in values(block, *_NUMBER_TAGS) if number}
    if listed:
        return _symmetry_of_operations(listed, frozenset(numbers), len(known) == len(named))
    if known:
        if not halls and known[-1].ext in _ORIGINS and not any(":" in _gemmi_name(name) for name in names):
            raise _two_origins(known[-1])
        agree = all(group and (group == known[-1] or (halls and group.hm == known[-1].hm)) for group in named)
        certain = len(numbers) == 1 and agree
        return _symmetry_of_group(known[-1], certain)
    settings = [group for group in gemmi.spacegroup_table_itb() if {group.number} == numbers]
    if any(group.ext in _ORIGINS for group in settings):
        raise _two_origins(settings[0])
    if settings:
        return _symmetry_of_group(settings[0], not named) if len(settings) == 1 else None
    unknown = [*names, *halls, *filter(None, values(block, *_NUMBER_TAGS))]
    if unknown:
        raise StructureError("", f"{unknown[0][:40]!r} is not a known space group; list the symmetry operations")
    return _symmetry_of_group(gemmi.SpaceGroup(1), True)


def _two_origins(group: gemmi.SpaceGroup) -> StructureError:
    rule = f"space group {group.hm} has two origins and the file does not say which"
    return StructureError("", f"{rule}; list the symmetry operations")


def _symmetry_of_group(group: gemmi.SpaceGroup, certain: bool) -> Symmetry:
    operations = tuple(group.operations())
    return Symmetry(*_arrays(operations), certain, triplets=tuple(operation.triplet() for operation in operations))


def _symmetry_of_operations(listed: tuple[str, ...], numbers: frozenset[int], names_known: bool) -> Symmetry | None:
    if len(listed) > _MAX_OPERATIONS:
        rule = f"{len(listed):,} symmetry operations are listed; a space group has at most {_MAX_OPERATIONS}"
        raise StructureError("", rule)
    try:
        number, rotations, translations = _group_of_operations(listed)
    except (ValueError, RuntimeError):
        return None
    return Symmetry(rotations, translations, certain=number > 0 and names_known and numbers <= {number})


@lru_cache(maxsize=1024)
def _group_of_operations(listed: tuple[str, ...]) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of the space group that operations form, or 0 if they form none; and the operations in their order."""
    operations = tuple(gemmi.Op(xyz) for xyz in listed)
    group = gemmi.GroupOps(list(operations))
    listed_triplets = {operation.wrap().triplet() for operation in operations}
    group_triplets = {operation.wrap().triplet() for operation in group}
    complete = listed_triplets == group_triplets and len(group) == len(operations)
    space_group = gemmi.find_spacegroup_by_ops(group) if complete else None
    return (space_group.number if space_group else 0, *_arrays(operations))


def _arrays(operations: tuple[gemmi.Op, ...]) -> tuple[np.ndarray, np.ndarray]:
    rotations = np.array([operation.rot for operation in operations]) / gemmi.Op.DEN
    translations = np.array([operation.tran for operation in operations]) / gemmi.Op.DEN
    return rotations, translations


def _gemmi_name(name: str) -> str:
    """Name of a space group as gemmi writes it: F d -3 m:2 for F d -3 m Z, and F d -3 m for F_d_-3_m."""
    name = name.replace("_", " ").strip()
    choice = re.fullmatch(r"(.*\S)\s+([SZHR])", name)
    return f"{choice[1]}:{_CHOICES[choice[2]]}" if choice else name


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 4 else 0


@cache
def _groups_by_hall() -> dict[str, gemmi.SpaceGroup]:
    return {group.hall: group for group in gemmi.spacegroup_table()}


def expand(
    symmetry: Symmetry, listed: Float64[np.ndarray, "rows 3"], lattice: Float64[np.ndarray, "3 3"]
) -> tuple[Float64[np.ndarray, "sites 3"], Int64[np.ndarray, " sites"]] | None:
    """Apply all operations to all listed sites, and merge images that coincide.

    Returns:
        Fractional coordinates, and the listed row of each site. None if images of two rows coincide, or if two images
        neither coincide nor are 0.5 Å apart.
    """
    images = np.einsum("oij,rj->roi", symmetry.rotations, listed) + symmetry.translations
    images = images.reshape(-1, 3)
    images = images - np.floor(images)
    rows = np.repeat(np.arange(len(listed)), len(symmetry))
    if len(symmetry) > 1:  # most coincidences hold to five digits; the others are handled below
        rounded = np.rint(images * 1e5).astype(np.int64) % 100_000
        _, first, same = np.unique(rounded @ np.array([10**10, 10**5, 1]), return_index=True, return_inverse=True)
        if (rows[first][same] != rows).any():
            return None
        first = np.sort(first)
        images, rows = images[first], rows[first]
    pairs = close_pairs(images, lattice)
    if pairs is None:
        return None
    if not len(pairs):
        return images, rows
    offsets = images[pairs[:, 0]] - images[pairs[:, 1]]
    coincide = (np.abs(offsets - np.rint(offsets)) < SITE_TOLERANCE).all(axis=1)
    if not coincide.all() or (rows[pairs[:, 0]] != rows[pairs[:, 1]]).any():
        return None
    distinct = np.setdiff1d(np.arange(len(images)), pairs.max(axis=1, initial=-1))
    return images[distinct], rows[distinct]


def close_pairs(
    fractions: Float64[np.ndarray, "sites 3"], lattice: Float64[np.ndarray, "3 3"]
) -> Int64[np.ndarray, "pairs 2"] | None:
    """Find the pairs of sites closer than 0.5 Å, periodic images included.

    Returns:
        Positions, each pair twice. None if many sites have eight or more neighbors on average, or the cell is thinner
        than two such distances.
    """
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    if (heights <= 2 * CLOSEST).any():
        return None
    projections = np.mod(fractions, 1.0) * heights
    projections[projections >= heights] = 0.0
    # along the heights of a cell no two points are further apart than in space, so that no pair is missed
    tree = cKDTree(projections, boxsize=heights)
    if len(projections) > _MANY and tree.count_neighbors(tree, CLOSEST, p=np.inf) > _MAX_NEIGHBORS * len(projections):
        return None
    pairs = tree.query_pairs(CLOSEST, p=np.inf, output_type="ndarray").astype(np.int64)
    offsets = fractions[pairs[:, 0]] - fractions[pairs[:, 1]]
    pairs = pairs[np.linalg.norm((offsets - np.rint(offsets)) @ lattice, axis=1) < CLOSEST]
    return np.concatenate([pairs, pairs[:, ::-1]])
