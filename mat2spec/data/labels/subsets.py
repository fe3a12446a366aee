"""Subsets of crystals on which a network can be specialized: those of Fig. S8 of the paper."""

from collections.abc import Callable

from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import space_group_number

RARE_EARTHS = frozenset(
    ["Sc", "Y", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu"]
)


def is_ternary_oxide(crystal: Crystal) -> bool:
    """Oxygen and two other elements, none of them a rare earth."""
    elements = set(crystal.elements)
    return len(elements) == 3 and "O" in elements and not elements & RARE_EARTHS


def is_space_group_225(crystal: Crystal) -> bool:
    """Fm-3m: rock salt, fluorite, face-centered metals, double perovskites."""
    return space_group_number(crystal) == 225


SUBSETS: dict[str, Callable[[Crystal], bool]] = {
    "ternary-oxides": is_ternary_oxide,
    "space-group-225": is_space_group_225,
}
"""Tests by the name of the subset in a config."""
