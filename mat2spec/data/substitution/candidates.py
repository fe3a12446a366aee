"""Tables of candidates: where each comes from, and which of them are one and the same structure."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from mat2spec.data.materials.schema import crystals, materials_table
from mat2spec.data.materials.shards import Rows
from mat2spec.data.substitution.rules import Candidate, Substituter
from mat2spec.elements import symbols
from mat2spec.errors import StructureError
from mat2spec.storage.rejects import Reject, reject
from mat2spec.structure.crystal import Crystal

LINEAGE = pa.schema(
    {"parent_id": pa.string(), "substitution": pa.string(), "probability": pa.float64(), "volume_ratio": pa.float64()}
)
"""Columns that say where a candidate comes from; all NULL for a known crystal."""


def substitute_rows(rows: Rows, substituter: Substituter) -> tuple[pa.Table, list[Reject]]:
    """Make the candidates of some rows of a table.

    Args:
        rows: Parents.
        substituter: What replaces what.

    Returns:
        Candidates with their lineage; and without one, those rows that hold an element that is put in: a candidate may be one of them.
        Rows that are no crystal, or have no ions, are rejects.
    """
    candidates: list[Candidate] = []
    known: list[Crystal] = []
    rejects = []
    for position, crystal in enumerate(crystals(rows.table)):
        stage = "read"
        try:
            if refused := rows.refused.get(position):
                raise refused
            if isinstance(crystal, StructureError):
                raise crystal
            if not set(substituter.elements).isdisjoint(crystal.elements):
                known.append(crystal)
            stage = "substitute"
            candidates += substituter.candidates(crystal)
        except Exception as error:  # whatever a structure does is that row's matter alone
            rejects.append(reject(rows.table["material_id"][position].as_py(), rows.sources[position], stage, error))
    return candidate_table(candidates, known), rejects


def candidate_table(candidates: Sequence[Candidate], known: Sequence[Crystal]) -> pa.Table:
    """Rows of candidates with their lineage; known crystals, to compare them with, follow without one."""
    rows: list[tuple[object, ...]] = [
        (one.parent_id, str(one.substitution), one.substitution.probability, one.substitution.volume_ratio)
        for one in candidates
    ]
    rows += [(None,) * len(LINEAGE)] * len(known)
    lineage = pa.Table.from_pylist([dict(zip(LINEAGE.names, row, strict=True)) for row in rows], LINEAGE)
    return materials_table(
        [*(candidate.crystal for candidate in candidates), *known],
        {name: lineage[name].combine_chunks() for name in LINEAGE.names},
    )


@dataclass(frozen=True)
class _Kept:
    """A candidate that stays: its row, the known crystal that it matches, and how many candidates matched it and went."""

    row: int
    known_as: str | None
    duplicates: int


def distinct(table: pa.Table) -> pa.Table:
    """Leave one candidate of each structure, as pymatgen's `StructureMatcher` with its defaults tells them apart.

    Its defaults: primitive cells of the same volume, lengths within 20 %, angles within 5°, sites within 0.3 of the free length per atom.
    That is no equivalence (a may match b, and b match c, but not a c), hence the rule: the more probable comes first, of equals the first
    material_id, and a candidate goes if it matches one that stayed.

    Args:
        table: Rows of `candidate_table`: all those of each formula that it holds, in any order.

    Returns:
        The candidates that stay, with known_as (id of the first known crystal that it matches, or NULL) and duplicates (how many
        candidates matched it and went).
    """
    found = [row for row in crystals(table) if isinstance(row, Crystal)]
    lineages = table.select(LINEAGE.names).to_pylist()
    order = sorted(range(len(found)), key=lambda i: (-(lineages[i]["probability"] or 0.0), found[i].material_id))
    formulas: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for i in order:
        formulas.setdefault(found[i].composition, []).append(i)
    kept: list[_Kept] = []
    for rows in formulas.values():
        candidates = {i: found[i] for i in rows if lineages[i]["parent_id"] is not None}
        kept += _of_one_formula(candidates, [found[i] for i in rows if i not in candidates])
    further = {field.name: pa.array([lineages[one.row][field.name] for one in kept], field.type) for field in LINEAGE}
    further["known_as"] = pa.array([one.known_as for one in kept], pa.string())
    further["duplicates"] = pa.array([one.duplicates for one in kept], pa.int32())
    return materials_table([found[one.row] for one in kept], further)


def _of_one_formula(candidates: dict[int, Crystal], known: Sequence[Crystal]) -> list[_Kept]:
    if len(candidates) + len(known) == 1:  # nothing to compare with: most formulas
        return [_Kept(row, None, 0) for row in candidates]
    matcher = StructureMatcher()
    existing = {crystal.material_id: _reduced(crystal) for crystal in known}
    kept: dict[int, Structure] = {}
    duplicates: dict[int, int] = {}
    for row, crystal in candidates.items():
        structure = _reduced(crystal)
        same = next((other for other, stayed in kept.items() if _match(matcher, stayed, structure)), None)
        if same is None:
            kept[row], duplicates[row] = structure, 0
        else:
            duplicates[same] += 1
    return [
        _Kept(
            row,
            next((name for name, one in existing.items() if _match(matcher, one, structure)), None),
            duplicates[row],
        )
        for row, structure in kept.items()
    ]


def _match(matcher: StructureMatcher, one: Structure, other: Structure) -> bool:
    """Do what `fit` does, without the reduction that comes first: each structure needs it once, not in every comparison (3.8 → 1.4 ms)."""
    return len(one) == len(other) and bool(matcher.fit(one, other, skip_structure_reduction=True))


def _reduced(crystal: Crystal) -> Structure:
    """The primitive cell that `StructureMatcher` compares; where no Niggli cell is found, the cell as it is."""
    structure = Structure(crystal.lattice, [symbols()[z] for z in crystal.atomic_numbers], crystal.frac_coords)
    try:
        return structure.get_reduced_structure("niggli").get_primitive_structure()
    except ValueError:
        return structure
