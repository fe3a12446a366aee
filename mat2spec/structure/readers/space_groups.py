"""Space groups by the names that files give: Hermann–Mauguin (short, full, old), Hall, Schoenflies, number."""

from functools import cache, lru_cache
from typing import NamedTuple

import gemmi
import spglib

_SETTINGS = 530
"""Number of Hall symbols in the tables of spglib."""

_CHOICES = {"S": "1", "Z": "2", "H": "H", "R": "R"}
"""Suffixes for the choice of origin or axes: the ICSD's, and gemmi's."""


@lru_cache(maxsize=1024)
def settings_of_name(name: str, alpha: float, gamma: float) -> tuple[gemmi.SpaceGroup, ...]:
    """Space groups of a Hermann–Mauguin name: several where it leaves the origin open, none if it is unknown.

    Args:
        name: F m -3 m, Fm3m, F_m_-3_m, F d -3 m Z or F 4/m -3 2/m.
        alpha: Angle of the cell [°]; with gamma it distinguishes rhombohedral from hexagonal axes.
        gamma: Angle of the cell [°].
    """
    words = name.replace("_", " ").split()
    choice = _CHOICES.get(words[-1]) if len(words) > 1 else None
    spelled = f"{' '.join(words[:-1])}:{choice}" if choice else " ".join(words)
    known = gemmi.find_spacegroup_by_name(spelled, alpha, gamma)
    if known is None:
        full = [setting_of_hall(entry.hall) for entry in _entries() if entry.full_name == "".join(words).lower()]
        groups = [group for group in full if group and (group.ext not in "HR" or (group.ext == "H") == (gamma > 110))]
        return tuple({group.xhm(): group for group in groups}.values())
    if known.ext in ("1", "2") and ":" not in spelled:
        return tuple(group for group in gemmi.spacegroup_table() if group.hm == known.hm)
    return (known,)


@lru_cache(maxsize=1024)
def setting_of_hall(symbol: str) -> gemmi.SpaceGroup | None:
    """Space group of a Hall symbol, with spaces or underscores."""
    try:
        return gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(" ".join(symbol.replace("_", " ").split())))
    except (ValueError, RuntimeError):
        return None


@cache
def settings_of_number(number: int) -> tuple[gemmi.SpaceGroup, ...]:
    """All settings of a group in the International Tables; the first is the standard one."""
    return tuple(group for group in gemmi.spacegroup_table_itb() if group.number == number)


@cache
def numbers_by_schoenflies() -> dict[str, int]:
    """Numbers of the space groups by Schoenflies symbols such as oh^5, in lower case."""
    return {entry.schoenflies: entry.number for entry in _entries()}


@lru_cache(maxsize=1024)
def operations_of(group: gemmi.SpaceGroup) -> tuple[str, ...]:
    """Operations of a space group as triplets, with translations from 0 to 1."""
    return tuple(operation.wrap().triplet() for operation in group.operations())


class _Entry(NamedTuple):
    """One setting in spglib's tables; names in lower case and without spaces."""

    number: int
    full_name: str
    schoenflies: str
    hall: str


@cache
def _entries() -> tuple[_Entry, ...]:
    types = (spglib.get_spacegroup_type(hall_number) for hall_number in range(1, _SETTINGS + 1))
    return tuple(
        _Entry(
            kind.number,
            kind.international_full.replace("_", "").replace(" ", "").lower(),
            kind.schoenflies.lower(),
            kind.hall_symbol,
        )
        for kind in types
        if kind
    )
