"""Symmetry declared in a CIF: by operations, names and numbers, which may contradict each other."""

import re
from dataclasses import dataclass
from functools import lru_cache

import gemmi
import numpy as np
import spglib
from gemmi import cif
from jaxtyping import Float64

from mat2spec.errors import StructureError, counted
from mat2spec.structure.readers.cif_blocks import all_tags, values
from mat2spec.structure.readers.cif_formula import declared_z, formula
from mat2spec.structure.readers.space_groups import (
    numbers_by_schoenflies,
    operations_of,
    setting_of_hall,
    settings_of_name,
    settings_of_number,
)

_MAX_OPERATIONS = 192
_METRIC_TOLERANCE = 0.02

_OPERATION_TAGS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_NAME_TAGS = (
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_alt",
    "_symmetry_space_group_name_H-M_alt",
    "_space_group_name_H-M_full",
    "_symmetry_space_group_name_H-M_full",
)
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_NUMBER_TAGS = ("_symmetry_Int_Tables_number", "_space_group_IT_number")
_SCHOENFLIES_TAGS = ("_space_group_name_Schoenflies",)
_SYSTEM_TAGS = ("_symmetry_cell_setting", "_space_group_crystal_system")
_OTHER_SYMMETRY_TAGS = re.compile(
    r"_(symmetry_equiv|symmetry_space_group_name|space_group_(name|generator|symop))_(?!magn|ssg|\w*id$)", re.IGNORECASE
)
"""Tags that hold a symmetry if none of the others does: generators, or names of a dialect that is not known here."""

_ORIGINS = ("1", "2")


@dataclass(frozen=True)
class Symmetry:
    """The operations of a space group.

    Args:
        rotations: Matrices that act on columns of fractional coordinates.
        translations: In fractions of the cell.
        triplets: The operations in CIF notation.
        conflict: How the file contradicts itself, or "".
        expected: With a conflict, the numbers of the space groups one of which the crystal must have, unless its atoms
            are Z × formula; empty where it may have any.
    """

    rotations: Float64[np.ndarray, "operations 3 3"]
    translations: Float64[np.ndarray, "operations 3"]
    triplets: tuple[str, ...]
    conflict: str = ""
    expected: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.rotations)

    def fits(self, lattice: Float64[np.ndarray, "3 3"]) -> bool:
        """Whether each operation keeps the lengths and angles of the cell."""
        metric = lattice @ lattice.T
        rotated = self.rotations.transpose(0, 2, 1) @ metric @ self.rotations
        return bool((np.abs(rotated - metric) <= _METRIC_TOLERANCE * metric.max()).all())


def declared_symmetries(block: cif.Block, alpha: float, gamma: float) -> tuple[Symmetry, ...]:
    """Read the symmetry of a block: its operations, else its name, else its number, else P 1.

    Args:
        block: A data block.
        alpha: Angle of the cell [°]; with gamma it distinguishes rhombohedral from hexagonal axes.
        gamma: Angle of the cell [°].

    Returns:
        One reading. Several where operations and names contradict each other: the smaller group, and the named ones
        that contain it; the sites decide.

    Raises:
        StructureError: If origin or axes are ambiguous, no space group has the given name, or the operations form no
            group.
    """
    listed = tuple(filter(None, values(block, *_OPERATION_TAGS)))
    if len(listed) > _MAX_OPERATIONS:
        rule = f"{len(listed):,} symmetry operations are listed; a space group has at most {_MAX_OPERATIONS}"
        raise StructureError("", rule)
    named, unknown = _named_groups(block, alpha, gamma)
    if listed:
        return _readings(listed, named, unknown)
    if len(named) > 1:
        smallest = min((settings[0] for settings in named.values()), key=lambda group: len(group.operations()))
        return _readings(operations_of(smallest), named, unknown)
    if named:
        [settings] = named.values()
        return (_symmetry(operations_of(_only_setting(settings, gamma))),)
    if unknown:
        raise StructureError("", f"{unknown[0][:40]!r} is not a known space group; list the symmetry operations")
    return (_without_group(block),)


def _only_setting(settings: tuple[gemmi.SpaceGroup, ...], gamma: float) -> gemmi.SpaceGroup:
    """The setting that a name means: the standard one where it is only a number; in the axes of the cell.

    Raises:
        StructureError: If it leaves the origin or the axes open.
    """
    in_axes = [group for group in settings if group.ext not in "HR" or (group.ext == "H") == (gamma > 110)]
    first = in_axes[0] if in_axes else settings[0]
    if len({frozenset(operations_of(group)) for group in in_axes}) < 2:
        return first
    if any(group.ext in _ORIGINS for group in in_axes):
        rule = f"space group {first.hm} has two origins and the file does not say which"
        raise StructureError("", f"{rule}; list the symmetry operations")
    if settings != settings_of_number(first.number):
        rule = f"its space group may be {' or '.join(group.hm for group in in_axes[:3])}"
        raise StructureError("", f"{rule}; list the symmetry operations")
    return first


def _named_groups(
    block: cif.Block, alpha: float, gamma: float
) -> tuple[dict[int, tuple[gemmi.SpaceGroup, ...]], list[str]]:
    """Space groups that a file names, by number, in the settings on which its names agree; and names that are unknown.

    The Hall symbol decides where settings differ, for it alone determines the operations.
    """
    named: dict[int, tuple[gemmi.SpaceGroup, ...]] = {}
    unknown = []
    schoenflies = numbers_by_schoenflies() if values(block, *_SCHOENFLIES_TAGS) else {}
    sources = [
        *((name, settings_of_name(name, alpha, gamma)) for tag in _NAME_TAGS for name in values(block, tag) if name),
        *((number, settings_of_number(_number(number))) for tag in _NUMBER_TAGS for number in values(block, tag)),
        *((name, settings_of_number(schoenflies.get(name.lower(), 0))) for name in values(block, *_SCHOENFLIES_TAGS)),
        *((hall, (setting_of_hall(hall),)) for tag in _HALL_TAGS for hall in values(block, tag) if hall),
    ]
    for text, settings in sources:
        known = [group for group in settings if group]
        if not known:
            unknown += [text] * bool(text)
            continue
        before = named.get(known[0].number, tuple(known))
        both = tuple(group for group in before if group in known)
        named[known[0].number] = both or (tuple(known) if len(known) < 3 else before)
    return named, unknown


def _readings(
    listed: tuple[str, ...], named: dict[int, tuple[gemmi.SpaceGroup, ...]], unknown: list[str]
) -> tuple[Symmetry, ...]:
    """Readings of operations beside names: one if they agree."""
    number, operations, closed = _closure(listed)
    if (closed and not named and not (unknown and len(operations) == 1)) or set(named) == {number}:
        return (_symmetry(operations),)
    others = [settings for settings in named.values() if settings[0].number != number]
    names = ", ".join([settings[0].xhm() for settings in others] or unknown)
    group = next((setting.hm for setting in settings_of_number(number)), "") if closed else "no complete group"
    given = f"{group}, {counted(len(listed), 'operation')}"
    conflict = f"its listed symmetry ({given}) is not that of the space group it names ({names})"
    sets = {frozenset(operations_of(setting)): setting for settings in others for setting in settings}
    nested = [group for group in sets if group < set(operations)]
    readings = [_symmetry(operations_of(sets[group]), conflict) for group in sets if group > set(operations)]
    if closed and (nested or readings):
        readings = [_symmetry(operations, conflict, frozenset(named)), *readings]
    if not readings:
        raise StructureError("", f"{conflict}; list all operations, or correct the name")
    return tuple(readings)


def _without_group(block: cif.Block) -> Symmetry:
    """P 1, for a block that gives neither operations nor a name.

    Where it gives a crystal system, its group was lost: its sites may happen to have that system, and yet be those of
    an asymmetric unit. So it is refused, unless Z × formula can tell.
    """
    for tag in all_tags(block):
        if _OTHER_SYMMETRY_TAGS.match(tag) and any(values(block, tag)):
            rule = f"its symmetry stands in {tag[:60]}, which is not read"
            raise StructureError("", f"{rule}; list the operations under {_OPERATION_TAGS[1]}")
    system = "".join(values(block, *_SYSTEM_TAGS)[:1]).lower()
    if system and not (formula(block) and declared_z(block)):
        rule = f"it is {system}, and neither a space group nor symmetry operations are given"
        raise StructureError("", f"{rule}; list all operations, or all sites with Z and the formula")
    return _symmetry(("x,y,z",))


def _symmetry(operations: tuple[str, ...], conflict: str = "", expected: frozenset[int] = frozenset()) -> Symmetry:
    return Symmetry(*_arrays(operations), operations, conflict, expected)


@lru_cache(maxsize=1024)
def _arrays(operations: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    parsed = [gemmi.Op(triplet) for triplet in operations]
    rotations = np.array([operation.rot for operation in parsed]) / gemmi.Op.DEN
    return rotations, np.array([operation.tran for operation in parsed]) / gemmi.Op.DEN


@lru_cache(maxsize=1024)
def _closure(listed: tuple[str, ...]) -> tuple[int, tuple[str, ...], bool]:
    """Group that operations generate: its number, its operations, and whether they are all listed.

    The number is 0 where it is unknown. Listed operations come first, in their order.

    Raises:
        StructureError: If an operation cannot be read.
    """
    operations = {}
    for text in listed:
        try:
            operation = gemmi.Op(text).wrap()
        except (ValueError, RuntimeError):
            raise StructureError("", f"the symmetry operation {text[:40]!r} cannot be read; write x,y+1/2,z") from None
        operations[operation.triplet()] = operation
    group = gemmi.GroupOps(list(operations.values()))
    try:
        group.add_missing_elements()
    except RuntimeError:  # they generate no finite group
        return 0, tuple(operations), False
    triplets = [operation.wrap().triplet() for operation in group]
    missing = [triplet for triplet in triplets if triplet not in operations]
    return _number_of(group), (*operations, *missing), not missing and len(triplets) == len(operations)


def _number_of(group: gemmi.GroupOps) -> int:
    """Number of a space group in any setting; 0 if it is none."""
    if known := gemmi.find_spacegroup_by_ops(group):
        return int(known.number)
    rotations, translations = _arrays(tuple(operation.triplet() for operation in group))
    try:
        kind = spglib.get_spacegroup_type_from_symmetry(rotations.astype(np.intc), translations)
    except spglib.SpglibError:
        return 0
    return int(kind.number) if kind else 0


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 4 else 0
