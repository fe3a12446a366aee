"""Tables of a user: materials tables, and tables with a column of CIF texts or pymatgen structures, row by row."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.materials.schema import COLUMNS, SCHEMA, check_schema, crystals
from mat2spec.errors import StructureError, TableError
from mat2spec.storage.location import open_file
from mat2spec.storage.parquet_rows import read_parquet_rows
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.disorder import Parsed
from mat2spec.structure.readers.formats import read_document, read_structures, stem

STRUCTURE_COLUMNS = ("structure", "cif")
"""Where a structure is looked for, if the table has not the columns of a materials table."""

OUR_COLUMNS = {*SCHEMA.names, *STRUCTURE_COLUMNS, "source", "ordered_from", "duplicate_of"}
"""Columns that an ingestion makes anew; all others of a table stay."""


def read_rows(
    url: str, name: str, rows: tuple[int, int] | None, config: ReadingConfig
) -> tuple[list[tuple[str, Parsed]], pa.Table]:
    """Read the structures of a table.

    Args:
        url: The table: Parquet or CSV.
        name: Its name, for the ids of rows that have none.
        rows: The first row and the one after the last; None: all.
        config: What to do about disorder, and the largest cell.

    Returns:
        Source and structure of each row, and the further columns. A table that cannot be read is one row, with the reason.
    """
    try:
        table = _open(url, rows)
        parsed = list(_parsed(table, url, name, rows[0] if rows else 0, config))
    except (TableError, OSError, pa.ArrowInvalid) as error:
        reason = f"the table cannot be read ({str(error).strip().splitlines()[0]})"
        return [(url, Parsed("", StructureError(stem(name), reason)))], pa.table({"": pa.nulls(1)}).select([])
    first = rows[0] if rows else 0
    sources = [f"{url}, row {first + i}" for i in range(len(table))]
    return list(zip(sources, parsed, strict=True)), table.drop_columns(
        [c for c in table.column_names if c in OUR_COLUMNS]
    )


def _open(url: str, rows: tuple[int, int] | None) -> pa.Table:
    if rows is not None:
        return read_parquet_rows(url, range(*rows))
    with open_file(url) as stream:
        if url.lower().endswith(".csv"):
            return pa.csv.read_csv(stream, parse_options=pa.csv.ParseOptions(newlines_in_values=True))
        raise TableError("not a readable Parquet file")


def _parsed(table: pa.Table, url: str, name: str, first: int, config: ReadingConfig) -> Iterator[Parsed]:
    if set(COLUMNS) <= set(table.column_names):
        check_schema(table.schema, url)
        for material_id, crystal in zip(table["material_id"].to_pylist(), crystals(table), strict=True):
            yield Parsed("", _checked(crystal, material_id, config))
        return
    column = next((c for c in STRUCTURE_COLUMNS if c in table.column_names), None)
    if column is None:
        raise TableError(
            f"no column structure or cif, and no materials table: it has {', '.join(table.column_names)[:200]}"
        )
    ids = (
        table["material_id"].to_pylist()
        if "material_id" in table.column_names
        else [f"{stem(name)}-{first + i}" for i in range(len(table))]
    )
    for material_id, value in zip(ids, table[column].to_pylist(), strict=True):
        yield _of_value(value, None if material_id is None else str(material_id), column, config)


def _checked(
    crystal: Crystal | StructureError, material_id: str | None, config: ReadingConfig
) -> Crystal | StructureError:
    if material_id is None:
        return StructureError("NULL", "material_id is NULL; give every row a name of its own")
    if isinstance(crystal, Crystal) and len(crystal) > config.largest_cell:
        return StructureError(
            material_id, f"{len(crystal)} sites are more than {config.largest_cell}; raise --largest-cell"
        )
    return crystal


def _of_value(value: Any, material_id: str | None, column: str, config: ReadingConfig) -> Parsed:
    if material_id is None:
        return Parsed("", StructureError("NULL", "material_id is NULL; give every row a name of its own"))
    if value is None or value == "":
        return Parsed("", StructureError(material_id, f"column {column} is NULL"))
    if not isinstance(value, str):
        return read_document(value, material_id, config)
    ending = ".json" if value.lstrip().startswith("{") else ".cif"
    found = read_structures(f"{column}{ending}", value.encode(), config, material_id)
    if len(found) > 1:
        return Parsed(
            "", StructureError(material_id, f"column {column} holds {len(found)} structures; give one in each row")
        )
    return found[0]
