"""Lookup of materials in the input of a run, by id."""

from collections.abc import Sequence

import pyarrow as pa

from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.errors import Mat2SpecError
from mat2spec.storage.location import connect_duckdb
from mat2spec.structure.crystal import Crystal


def read_crystals_by_id(materials: MaterialsInput, ids: Sequence[str]) -> dict[str, Crystal | Mat2SpecError]:
    """Read the crystals with some ids.

    Of rows with the same id, the first in (file, row) order is read, which is the one that was predicted.

    Args:
        materials: The input.
        ids: Their ids; an id that does not exist is missing in the result.
    """
    crystals: dict[str, Crystal | Mat2SpecError] = {}
    table = _read_rows(materials, ids)
    for material_id, crystal in zip(table["material_id"].to_pylist(), read_crystals(table), strict=True):
        crystals.setdefault(material_id, crystal)
    return crystals


def _read_rows(materials: MaterialsInput, ids: Sequence[str]) -> pa.Table:
    condition = f"AND ({materials.where})" if materials.where else ""
    sql = f"""
        SELECT {", ".join(COLUMNS)}
        FROM read_parquet($files, filename = true, file_row_number = true, union_by_name = true)
        WHERE list_contains($ids, material_id) {condition}
        ORDER BY list_position($files, filename), file_row_number"""
    with connect_duckdb(materials.files) as connection:
        return connection.sql(sql, params={"files": list(materials.files), "ids": list(ids)}).to_arrow_table()
