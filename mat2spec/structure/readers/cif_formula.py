"""Sum formula and Z of a CIF, against the atoms in its cell."""

import math
import re

from gemmi import cif

from mat2spec.errors import StructureError
from mat2spec.structure.readers.cif_blocks import values

_TOLERANCE = 0.02
"""[relative] Of formulas with fractions, which are given with two or three digits, and of partly occupied sites."""

_ROUNDING = 1e-6

_FORMULA = re.compile(r"(?:([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?\s*)")


def formula(block: cif.Block) -> dict[str, float]:
    """Declared sum formula as atoms per element; empty where it is missing or cannot be parsed."""
    text = "".join(values(block, "_chemical_formula_sum")[:1])
    if len(text) > 1000 or not text or _FORMULA.sub("", text):
        return {}
    counts: dict[str, float] = {}
    for symbol, count in _FORMULA.findall(text):
        counts[symbol] = counts.get(symbol, 0.0) + float(count or 1)
    return counts if all(counts.values()) else {}


def declared_z(block: cif.Block) -> float:
    """Declared number of formula units in the cell; 0 where it is missing or no positive number."""
    given = [cif.as_number(text) for text in values(block, "_cell_formula_units_Z") if text]
    return given[0] if given and given[0] > 0 else 0.0


def refuse_another_formula(block: cif.Block, counts: dict[str, float], *, whole: bool) -> None:
    """Refuse a cell whose atoms are not Z times the formula, or not in its ratios where Z is missing.

    Programs also write the formula of the whole cell, with the Z of the reduced one; then Z divides the formula.

    Args:
        block: A data block.
        counts: Atoms in the cell by element.
        whole: Whether all sites are whole atoms; the counts then agree to the last atom.
    """
    declared, z = formula(block), declared_z(block)
    if not declared:
        return
    exact = whole and all(count.is_integer() for count in declared.values())
    tolerance = _ROUNDING if exact else _TOLERANCE
    units = _formula_units(declared, counts, tolerance)
    listed, given = (" ".join(f"{symbol}{n:g}" for symbol, n in sorted(each.items())) for each in (counts, declared))
    if units is None:
        way_out = "add the missing sites or correct _chemical_formula_sum"
        raise StructureError("", f"its sites are {listed}, its formula {given}; {way_out}")
    if not z:
        return
    divisor = math.gcd(*map(int, declared.values())) if exact else 0
    of_cell = abs(units - 1) <= tolerance and divisor % z == 0
    if abs(units - z) > tolerance * z and not of_cell:
        way_out = "list all sites and symmetry operations, or correct _cell_formula_units_Z"
        raise StructureError("", f"its cell has {listed}, which is not Z = {z:g} times {given}; {way_out}")


def _formula_units(declared: dict[str, float], counts: dict[str, float], tolerance: float) -> float | None:
    """Number of declared formulas in the atoms of a cell; None if the cell has other elements or ratios."""
    if declared.keys() != counts.keys():
        return None
    ratios = [counts[symbol] / declared[symbol] for symbol in declared]
    if max(ratios) > min(ratios) * (1 + tolerance):
        return None
    return sum(counts.values()) / sum(declared.values())
