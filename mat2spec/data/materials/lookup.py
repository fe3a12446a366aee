"""Some materials of the input of a run, found again by their ids."""

from collections.abc import Sequence

import pyarrow as pa

from mat2spec.data.materials.schema import crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.materials.structure_files import read_structure_files
from mat2spec.errors import Mat2SpecError, StructureError
from mat2spec.storage.location import connect
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.formats import stem


def read_selected(materials: MaterialsInput, ids: Sequence[str]) -> dict[str, Crystal | Mat2SpecError]:
    """Read the crystals of some ids, of rows with one id the first in (file, row) order, which is the one that was predicted.

    Args:
        materials: The input.
        ids: Which; one that is not there is missing in what is given back.
    """
    if not materials.tables:
        files = {stem(file): file for file in reversed(materials.files)}
        wanted = [files[name] for name in ids if name in files]
        table, refused = read_structure_files(wanted)
        named = zip((stem(file) for file in wanted), crystals(table), strict=True)
        return {name: refused.get(position, crystal) for position, (name, crystal) in enumerate(named)}
    found: dict[str, Crystal | Mat2SpecError] = {}
    table = _rows(materials, ids)
    for name, crystal in zip(table["material_id"].to_pylist(), crystals(table), strict=True):
        found.setdefault(name, crystal if isinstance(crystal, Crystal) else StructureError(name, crystal.rule))
    return found


def _rows(materials: MaterialsInput, ids: Sequence[str]) -> pa.Table:
    condition = f"AND ({materials.where})" if materials.where else ""
    sql = f"""
        SELECT material_id, formula_pretty, nsites, atomic_numbers, lattice, frac_coords
        FROM read_parquet($files, filename = true, file_row_number = true, union_by_name = true)
        WHERE list_contains($ids, material_id) {condition}
        ORDER BY list_position($files, filename), file_row_number"""
    with connect(materials.files) as connection:
        return connection.sql(sql, params={"files": list(materials.files), "ids": list(ids)}).to_arrow_table()
