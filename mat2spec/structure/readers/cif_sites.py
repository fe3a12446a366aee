"""The atom sites that a CIF lists: element, place and occupancy of each, without a guess."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from gemmi import cif
from jaxtyping import Float64
from pymatgen.core.periodic_table import Element

from mat2spec.errors import StructureError
from mat2spec.structure.readers.cif_blocks import values
from mat2spec.structure.readers.disorder import ISOTOPES, isotope

_THIRDS = np.array([1 / 3, 2 / 3])
_THIRD_TOLERANCE = 1e-4
"""Relative; what pymatgen takes as a rounded third."""

_FORMULA_TOLERANCE = 0.02
"""Relative; formulas are given with two or three digits."""

_TYPE = re.compile(r"([A-Za-z]{1,2})(?:\d*\.?\d*[+-]|[+-]\d*\.?\d*)?\d*")
_LABEL = re.compile(r"([A-Z][a-z]?)(?:[\d(+-].*)?")
_GROUPS_OF_ATOMS = re.compile(r"wat|oh|no3|h2o", re.IGNORECASE)
_FORMULA = re.compile(r"(?:([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?\s*)")


@dataclass(frozen=True)
class AtomSites:
    """The rows of a block's atom loop, without those of zero occupancy: dummies, which pymatgen drops too.

    Args:
        labels: Names of the sites.
        atomic_numbers: 0 where the symbol names no element without guessing.
        frac_coords: NaN where the text is no plain number. Thirds given with four digits or more are exact.
        occupancies: One where none is given.
        grouped: Whether any row belongs to a disorder group.
    """

    labels: tuple[str, ...]
    atomic_numbers: np.ndarray
    frac_coords: Float64[np.ndarray, "rows 3"]
    occupancies: Float64[np.ndarray, " rows"]
    grouped: bool

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ordinary(self) -> bool:
        """Whether every row is one atom of a known element at a known place, always there."""
        whole = bool((self.occupancies == 1).all()) and bool((self.atomic_numbers > 0).all())
        return whole and not self.grouped and bool(np.isfinite(self.frac_coords).all())


def atom_sites(block: cif.Block, largest_cell: int) -> AtomSites:
    """Read the atom sites of a block.

    Raises:
        StructureError: If there are none or too many; if a site has no coordinates, is an isotope or a molecule, has hydrogens without
            places, a negative occupancy, or is a full alternative to another.
    """
    columns = [values(block, f"_atom_site_fract_{axis}") for axis in "xyz"]
    rows = len(columns[0])
    if not rows or any(len(column) != rows for column in columns):
        raise StructureError("", "no atom sites with fractional coordinates (_atom_site_fract_x, _y, _z)")
    if rows > largest_cell:
        raise StructureError(
            "", f"{rows:,} atom sites are listed; the largest cell that is read has {largest_cell:,} (largest_cell)"
        )
    types, labels = values(block, "_atom_site_type_symbol"), values(block, "_atom_site_label")
    symbols = types or labels
    labels = labels or types
    if not len(symbols) == len(labels) == rows:
        raise StructureError(
            "", f"{rows} atom sites with coordinates have {len(symbols)} symbols and {len(labels)} labels"
        )
    occupancies = _numbers(values(block, "_atom_site_occupancy") or [""] * rows, if_missing=1.0)
    if len(occupancies) != rows or not (occupancies >= 0).all():
        wrong = labels[int(np.argmin(occupancies >= 0))] if len(occupancies) == rows else labels[0]
        raise StructureError("", f"site {wrong[:20]} has an occupancy that is no number from 0 to 1")
    kept = np.flatnonzero(occupancies > 0).tolist()
    if not kept:
        raise StructureError("", f"all {rows} atom sites have zero occupancy")
    _refuse_alternatives(block, labels, occupancies)
    _refuse_bare_hydrogens(block, labels)
    for axis, column in zip("xyz", columns, strict=True):
        if not all(column) and (without := [labels[row] for row in kept if not column[row]]):
            raise StructureError("", f"site {without[0][:20]} has no coordinate {axis}; place or remove it")
    coordinates = _with_exact_thirds(np.column_stack([_numbers(column) for column in columns]))
    read = _element_of_type if types else _element_of_label
    elements = {
        symbol: read(symbol, label) for symbol, label in {symbols[row]: labels[row] for row in reversed(kept)}.items()
    }
    numbers = np.array([elements[symbols[row]] for row in kept], np.int64)
    if not (numbers > 0).all() and not formula(block):
        row = kept[int(np.argmin(numbers > 0))]
        raise StructureError(
            "", f"site {labels[row][:20]} is {symbols[row][:20]!r}, which names no element; give _atom_site_type_symbol"
        )
    grouped = any(values(block, "_atom_site_disorder_group")) or any(values(block, "_atom_site_disorder_assembly"))
    return AtomSites(tuple(labels[row] for row in kept), numbers, coordinates[kept], occupancies[kept], grouped)


def formula(block: cif.Block) -> dict[str, float]:
    """The declared sum formula: atoms per element; empty where there is none that can be read."""
    text = "".join(values(block, "_chemical_formula_sum")[:1])
    if len(text) > 1000 or not text or _FORMULA.sub("", text):
        return {}
    counts: dict[str, float] = {}
    for symbol, count in _FORMULA.findall(text):
        counts[symbol] = counts.get(symbol, 0.0) + float(count or 1)
    return counts if all(counts.values()) else {}


def formula_units(declared: dict[str, float], found: dict[str, float]) -> float | None:
    """How often a declared formula is in a cell, or None if the cell has other elements or ratios."""
    if declared.keys() != found.keys():
        return None
    ratios = [found[symbol] / declared[symbol] for symbol in declared]
    return (
        sum(found.values()) / sum(declared.values()) if max(ratios) <= min(ratios) * (1 + _FORMULA_TOLERANCE) else None
    )


@cache
def _atomic_numbers() -> dict[str, int]:
    return {element.symbol: element.Z for element in Element if element.symbol not in ISOTOPES}


def _element_of_type(symbol: str, label: str) -> int:
    """Na, Fe3+, CL; raise for what pymatgen would read as something else."""
    match = _TYPE.fullmatch(symbol)
    return _element(match[1].title() if match else "", symbol, label)


def _element_of_label(symbol: str, label: str) -> int:
    """Na1, O(2); CA1 may be C or Ca, so that it is a guess."""
    match = _LABEL.fullmatch(symbol)
    return _element(match[1] if match else "", symbol, label)


def _element(name: str, symbol: str, label: str) -> int:
    if name in ISOTOPES:
        raise StructureError("", isotope(f"site {label[:20]}", name))
    if not symbol or _GROUPS_OF_ATOMS.match(symbol):
        raise StructureError(
            "",
            f"site {label[:20]} is {symbol[:20]!r}, no single element; list each atom with its _atom_site_type_symbol",
        )
    return _atomic_numbers().get(name, 0)


def _numbers(texts: Sequence[str], if_missing: float = np.nan) -> Float64[np.ndarray, " rows"]:
    return np.array([cif.as_number(text) if text else if_missing for text in texts], float)


def _with_exact_thirds(coordinates: Float64[np.ndarray, "rows 3"]) -> Float64[np.ndarray, "rows 3"]:
    """Make 0.3333 a third, as pymatgen does: the symmetry operations of trigonal groups would spread the error."""
    for third in _THIRDS:
        coordinates = np.where(np.abs(coordinates / third - 1) <= _THIRD_TOLERANCE, third, coordinates)
    return coordinates


def _refuse_alternatives(block: cif.Block, labels: Sequence[str], occupancies: Float64[np.ndarray, " rows"]) -> None:
    """Alternatives exclude each other, so that two of them cannot both be always there; pymatgen would take both."""
    groups = values(block, "_atom_site_disorder_group")
    assemblies = values(block, "_atom_site_disorder_assembly") or [""] * len(groups)
    full: defaultdict[str, set[str]] = defaultdict(set)
    for row, (group, assembly) in enumerate(zip(groups, assemblies, strict=False)):
        if group and row < len(labels) and occupancies[row] == 1:
            full[assembly].add(group)
            if len(full[assembly]) > 1:
                rule = f"site {labels[row][:20]} is in disorder group {group[:10]}, an alternative to another, yet its occupancy is 1"
                raise StructureError("", f"{rule}; remove all groups but one")


def _refuse_bare_hydrogens(block: cif.Block, labels: Sequence[str]) -> None:
    for label, count in zip(labels, values(block, "_atom_site_attached_hydrogens"), strict=False):
        if cif.as_number(count) > 0:
            raise StructureError(
                "", f"site {label[:20]} has {count[:10]} attached hydrogens without coordinates; add them as sites"
            )
