"""Atom sites of a CIF: element, coordinates and occupancy of each, without guessing."""

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
from mat2spec.structure.crystal import ISOTOPES, ROUNDED_OCCUPANCY, isotope_rule
from mat2spec.structure.readers.cif_blocks import dummy_rows, values
from mat2spec.structure.readers.cif_formula import formula
from mat2spec.structure.readers.disorder import check_size

_THIRDS = np.array([1 / 3, 2 / 3])
_THIRD_TOLERANCE = 1e-4
"""[relative] Deviation within which pymatgen takes a number as a rounded third."""

_TYPE = re.compile(r"([A-Za-z]{1,2})(?:\d*\.?\d*[+-]|[+-]\d*\.?\d*)?\d*")
_LABEL = re.compile(r"([A-Z][a-z]?)(?:[\d(+-].*)?")
_GROUPS_OF_ATOMS = re.compile(r"wat|oh|no3|h2o", re.IGNORECASE)


@dataclass(frozen=True)
class AtomSites:
    """Rows of a block's atom loop, without those of zero occupancy: dummies, which pymatgen drops too.

    Args:
        labels: Names of the sites.
        atomic_numbers: 0 where the symbol names no element without guessing.
        frac_coords: NaN where the text is not a plain number. Thirds given with four digits or more are exact.
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
        """Whether every row is one whole atom of a known element with known coordinates."""
        whole = bool((self.occupancies == 1).all()) and bool((self.atomic_numbers > 0).all())
        return whole and not self.grouped and bool(np.isfinite(self.frac_coords).all())


def atom_sites(block: cif.Block, largest_cell: int) -> AtomSites:
    """Read the atom sites of a block.

    Raises:
        StructureError: If there are none or too many; if a site has no coordinates, is an isotope or a molecule, has
            hydrogens without coordinates, a negative occupancy, or is a fully occupied alternative to another.
    """
    columns = [values(block, f"_atom_site_fract_{axis}") for axis in "xyz"]
    rows = len(columns[0])
    if not rows or any(len(column) != rows for column in columns):
        raise StructureError("", "no atom sites with fractional coordinates (_atom_site_fract_x, _y, _z)")
    check_size(rows, largest_cell)
    types, labels = values(block, "_atom_site_type_symbol"), values(block, "_atom_site_label")
    symbols = types or labels
    labels = labels or types
    if not len(symbols) == len(labels) == rows:
        rule = f"{rows} atom sites with coordinates have {len(symbols)} symbols and {len(labels)} labels"
        raise StructureError("", rule)
    occupancies = _numbers(values(block, "_atom_site_occupancy") or [""] * rows, if_missing=1.0)
    if len(occupancies) != rows or not (occupancies >= 0).all():
        wrong = labels[int(np.argmin(occupancies >= 0))] if len(occupancies) == rows else labels[0]
        raise StructureError("", f"site {wrong[:20]} has an occupancy that is not a number from 0 to 1")
    if not (occupancies <= 1 + ROUNDED_OCCUPANCY).all():
        row = int(np.argmax(occupancies))
        raise StructureError(
            "", f"site {labels[row][:20]} has an occupancy of {occupancies[row]:g}; one is the highest"
        )
    occupancies = np.where(np.abs(occupancies - 1) <= ROUNDED_OCCUPANCY, 1.0, occupancies)
    occupancies[dummy_rows(block)] = 0.0
    occupied = np.flatnonzero(occupancies > 0).tolist()
    if not occupied:
        raise StructureError("", f"all {rows} atom sites have zero occupancy")
    _refuse_alternatives(block, labels, occupancies)
    _refuse_bare_hydrogens(block, labels)
    for axis, column in zip("xyz", columns, strict=True):
        if not all(column) and (without := [labels[row] for row in occupied if not column[row]]):
            raise StructureError("", f"site {without[0][:20]} has no coordinate {axis}; add it or remove the site")
    coordinates = _with_exact_thirds(np.column_stack([_numbers(column) for column in columns]))
    element_of = _element_of_type if types else _element_of_label
    first_labels = {symbols[row]: labels[row] for row in reversed(occupied)}
    elements = {symbol: element_of(symbol, label) for symbol, label in first_labels.items()}
    numbers = np.array([elements[symbols[row]] for row in occupied], np.int64)
    if not (numbers > 0).all() and not formula(block):
        row = occupied[int(np.argmin(numbers > 0))]
        rule = f"site {labels[row][:20]} is {symbols[row][:20]!r}, which is not an element; add _atom_site_type_symbol"
        raise StructureError("", rule)
    grouped = any(values(block, "_atom_site_disorder_group")) or any(values(block, "_atom_site_disorder_assembly"))
    return AtomSites(
        tuple(labels[row] for row in occupied), numbers, coordinates[occupied], occupancies[occupied], grouped
    )


@cache
def _atomic_numbers() -> dict[str, int]:
    return {element.symbol: element.Z for element in Element if element.symbol not in ISOTOPES}


def _element_of_type(symbol: str, label: str) -> int:
    """Read Na, Fe3+ or CL; raise for symbols that pymatgen would misread."""
    match = _TYPE.fullmatch(symbol)
    return _element(match[1].title() if match else "", symbol, label)


def _element_of_label(symbol: str, label: str) -> int:
    """Read Na1 or O(2); CA1 may be C or Ca and would be a guess."""
    match = _LABEL.fullmatch(symbol)
    return _element(match[1] if match else "", symbol, label)


def _element(name: str, symbol: str, label: str) -> int:
    if name in ISOTOPES:
        raise StructureError("", isotope_rule(f"site {label[:20]}", name))
    if not symbol or _GROUPS_OF_ATOMS.match(symbol):
        rule = f"site {label[:20]} is {symbol[:20]!r}, not a single element"
        raise StructureError("", f"{rule}; list each atom with its _atom_site_type_symbol")
    return _atomic_numbers().get(name, 0)


def _numbers(texts: Sequence[str], if_missing: float = np.nan) -> Float64[np.ndarray, " rows"]:
    return np.array([cif.as_number(text) if text else if_missing for text in texts], float)


def _with_exact_thirds(coordinates: Float64[np.ndarray, "rows 3"]) -> Float64[np.ndarray, "rows 3"]:
    """Replace 0.3333 by a third, as pymatgen does: operations of trigonal groups would amplify the rounding error."""
    for third in _THIRDS:
        coordinates = np.where(np.abs(coordinates / third - 1) <= _THIRD_TOLERANCE, third, coordinates)
    return coordinates


def _refuse_alternatives(block: cif.Block, labels: Sequence[str], occupancies: Float64[np.ndarray, " rows"]) -> None:
    """Refuse two fully occupied alternatives, which exclude each other; pymatgen would keep both."""
    groups = values(block, "_atom_site_disorder_group")
    assemblies = values(block, "_atom_site_disorder_assembly") or [""] * len(groups)
    full: defaultdict[str, set[str]] = defaultdict(set)
    for row, (group, assembly) in enumerate(zip(groups, assemblies, strict=False)):
        if group and row < len(labels) and occupancies[row] == 1:
            full[assembly].add(group)
            if len(full[assembly]) > 1:
                site = f"site {labels[row][:20]} is in disorder group {group[:10]}, an alternative to another"
                raise StructureError("", f"{site}, yet its occupancy is 1; remove all groups but one")


def _refuse_bare_hydrogens(block: cif.Block, labels: Sequence[str]) -> None:
    for label, count in zip(labels, values(block, "_atom_site_attached_hydrogens"), strict=False):
        if cif.as_number(count) > 0:
            rule = f"site {label[:20]} has {count[:10]} attached hydrogens without coordinates; add them as sites"
            raise StructureError("", rule)
