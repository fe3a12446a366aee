"""The symmetry that a CIF declares, and the sites that it makes of the listed ones."""

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
"""Images whose fractional coordinates all differ by less are one site, as in pymatgen."""

CLOSEST = 0.5
"""[Å] No two atoms of a crystal come closer."""

_MAX_OPERATIONS = 192
_METRIC_TOLERANCE = 0.02
_MANY = 1_000
_MAX_NEIGHBORS = 9
"""Of a site on average, itself included, where there are many: all pairs of 10⁶ equal places would fit in no memory."""

_OPERATION_TAGS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_NAME_TAGS = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M_alt")
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_NUMBER_TAGS = ("_symmetry_Int_Tables_number", "_space_group_IT_number")
_CHOICES = {"S": "1", "Z": "2", "H": "H", "R": "R"}
"""How the ICSD writes the choice of origin or axes behind a name, and how gemmi does."""
_ORIGINS = ("1", "2")


@dataclass(frozen=True)
class Symmetry:
    """The operations of a space group.

    Args:
        rotations: They act on columns of fractional coordinates.
        translations: In fractions of the cell.
        certain: Whether they are a space group, and the one that the file names.
        triplets: Where the file does not list them, as it would.
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
        turned = self.rotations.transpose(0, 2, 1) @ metric @ self.rotations
        return bool((np.abs(turned - metric) <= _METRIC_TOLERANCE * metric.max()).all())


def declared_symmetry(block: cif.Block, alpha: float, gamma: float) -> Symmetry | None:
    """Take the symmetry of a block: its operations, else its symbol, else its number, else P 1.

    Args:
        block: A data block.
        alpha: Angle of the cell [°], which with gamma tells rhombohedral from hexagonal axes.
        gamma: Angle of the cell [°].

    Returns:
        None where only pymatgen can say.

    Raises:
        StructureError: If the file leaves open where the origin is, or names no space group.
    """
    listed = tuple(filter(None, values(block, *_OPERATION_TAGS)))
    names = [name for tag in _NAME_TAGS for name in values(block, tag) if name]
    halls = [hall for tag in _HALL_TAGS for hall in values(block, tag) if hall]
    named: list[gemmi.SpaceGroup | None] = [
        gemmi.find_spacegroup_by_name(_spelled(name), alpha, gamma) for name in names
    ]
    named += [_groups_by_hall().get(" ".join(hall.split())) for hall in halls]
    known = [group for group in named if group]
    numbers = {group.number for group in known} | {_number(number) for number in values(block, *_NUMBER_TAGS) if number}
    if listed:
        return _of_operations(listed, frozenset(numbers), len(known) == len(named))
    if known:
        if not halls and known[-1].ext in _ORIGINS and not any(":" in _spelled(name) for name in names):
            raise _two_origins(known[-1])
        agree = all(group and (group == known[-1] or (halls and group.hm == known[-1].hm)) for group in named)
        certain = len(numbers) == 1 and agree
        return _of_group(known[-1], certain)
    settings = [group for group in gemmi.spacegroup_table_itb() if {group.number} == numbers]
    if any(group.ext in _ORIGINS for group in settings):
        raise _two_origins(settings[0])
    if settings:
        return _of_group(settings[0], not named) if len(settings) == 1 else None
    unknown = [*names, *halls, *filter(None, values(block, *_NUMBER_TAGS))]
    if unknown:
        raise StructureError("", f"{unknown[0][:40]!r} is no known space group; list the symmetry operations")
    return _of_group(gemmi.SpaceGroup(1), True)


def _two_origins(group: gemmi.SpaceGroup) -> StructureError:
    return StructureError(
        "", f"space group {group.hm} has two origins and the file does not say which; list the symmetry operations"
    )


def _of_group(group: gemmi.SpaceGroup, certain: bool) -> Symmetry:
    operations = tuple(group.operations())
    return Symmetry(*_arrays(operations), certain, triplets=tuple(operation.triplet() for operation in operations))


def _of_operations(listed: tuple[str, ...], numbers: frozenset[int], understood: bool) -> Symmetry | None:
    if len(listed) > _MAX_OPERATIONS:
        raise StructureError(
            "", f"{len(listed):,} symmetry operations are listed; a space group has at most {_MAX_OPERATIONS}"
        )
    try:
        found, rotations, translations = _group_of_operations(listed)
    except (ValueError, RuntimeError):
        return None
    return Symmetry(rotations, translations, certain=found > 0 and understood and numbers <= {found})


@lru_cache(maxsize=1024)
def _group_of_operations(listed: tuple[str, ...]) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of the space group that operations make up, or 0 if they are none; and the operations in their order."""
    operations = tuple(gemmi.Op(xyz) for xyz in listed)
    group = gemmi.GroupOps(list(operations))
    whole = {op.wrap().triplet() for op in operations} == {op.wrap().triplet() for op in group} and len(group) == len(
        operations
    )
    found = gemmi.find_spacegroup_by_ops(group) if whole else None
    return (found.number if found else 0, *_arrays(operations))


def _arrays(operations: tuple[gemmi.Op, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([op.rot for op in operations]) / gemmi.Op.DEN, np.array(
        [op.tran for op in operations]
    ) / gemmi.Op.DEN


def _spelled(name: str) -> str:
    """Write F d -3 m Z as F d -3 m:2, and F_d_-3_m as F d -3 m."""
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
    """Apply all operations to all listed sites, and take images that coincide as one.

    Returns:
        Fractional coordinates, and for each site the row that it comes from. None if two rows meet, or if two images
        neither coincide nor keep the distance of atoms.
    """
    images = np.einsum("oij,rj->roi", symmetry.rotations, listed) + symmetry.translations
    images = images.reshape(-1, 3)
    images = images - np.floor(images)
    rows = np.repeat(np.arange(len(listed)), len(symmetry))
    if len(symmetry) > 1:  # most of what coincides does so to five digits; the rest is found below
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
    kept = np.setdiff1d(np.arange(len(images)), pairs.max(axis=1, initial=-1))
    return images[kept], rows[kept]


def close_pairs(
    fractions: Float64[np.ndarray, "sites 3"], lattice: Float64[np.ndarray, "3 3"]
) -> Int64[np.ndarray, "pairs 2"] | None:
    """Find the pairs of sites closer than 0.5 Å, periodic images included.

    Returns:
        Positions, each pair twice. None if many sites have eight or more on average, or the cell is flatter than two such distances.
    """
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    if (heights <= 2 * CLOSEST).any():
        return None
    places = np.mod(fractions, 1.0) * heights
    places[places >= heights] = 0.0
    # along the heights of a cell no two points are further apart than in space, so that no pair is missed
    tree = cKDTree(places, boxsize=heights)
    if len(places) > _MANY and tree.count_neighbors(tree, CLOSEST, p=np.inf) > _MAX_NEIGHBORS * len(places):
        return None
    pairs = tree.query_pairs(CLOSEST, p=np.inf, output_type="ndarray").astype(np.int64)
    offsets = fractions[pairs[:, 0]] - fractions[pairs[:, 1]]
    pairs = pairs[np.linalg.norm((offsets - np.rint(offsets)) @ lattice, axis=1) < CLOSEST]
    return np.concatenate([pairs, pairs[:, ::-1]])
