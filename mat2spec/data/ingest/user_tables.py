"""Tables that a user gives: materials tables, and tables with a column of CIF texts or pymatgen structures."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.materials.schema import COLUMNS, MATERIALS_SCHEMA, check_schema, read_crystals
from mat2spec.errors import StructureError, TableError
from mat2spec.storage.location import open_file
from mat2spec.storage.parquet_rows import read_parquet_rows
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.disorder import ParsedStructure
from mat2spec.structure.readers.formats import read_document, read_structures, stem

STRUCTURE_COLUMNS = ("structure", "cif")
"""Columns in which structures are looked for, if the table lacks the columns of a materials table."""

OUR_COLUMNS = {*MATERIALS_SCHEMA.names, *STRUCTURE_COLUMNS, "source", "ordered_from", "duplicate_of"}
"""Columns that an ingestion writes itself; all other columns of a table are copied."""


def read_user_table(
    url: str, name: str, rows: tuple[int, int] | None, config: ReadingConfig
) -> tuple[list[tuple[str, ParsedStructure]], pa.Table]:
    """Read the structures of a table.

    Args:
        url: The table: Parquet or CSV.
        name: Its name, for the ids of rows that have none.
        rows: The first row and the one after the last; None: all.
        config: Treatment of disorder, and the largest cell.

    Returns:
        Source and structure of each row, and the extra columns. A table that cannot be read is one row with an error.
    """
    first = rows[0] if rows else 0
    try:
        table = _open(url, rows)
        structures = list(_structures(table, url, name, first, config))
    except (TableError, OSError, pa.ArrowInvalid) as error:
        reason = f"the table cannot be read ({str(error).strip().splitlines()[0]})"
        unreadable = ParsedStructure("", StructureError(stem(name), reason))
        return [(url, unreadable)], pa.table({"": pa.nulls(1)}).select([])
    sources = [f"{url}, row {first + i}" for i in range(len(table))]
    extra_columns = table.drop_columns([column for column in table.column_names if column in OUR_COLUMNS])
    return list(zip(sources, structures, strict=True)), extra_columns


def _open(url: str, rows: tuple[int, int] | None) -> pa.Table:
    if rows is not None:
        return read_parquet_rows(url, range(*rows))
    with open_file(url) as stream:
        if url.lower().endswith(".csv"):
            return pa.csv.read_csv(stream, parse_options=pa.csv.ParseOptions(newlines_in_values=True))
        raise TableError("not a readable Parquet file")


def _structures(table: pa.Table, url: str, name: str, first: int, config: ReadingConfig) -> Iterator[ParsedStructure]:
    names = table.column_names
    if set(COLUMNS) <= set(names):
        check_schema(table.schema, url)
        for material_id, crystal in zip(table["material_id"].to_pylist(), read_crystals(table), strict=True):
            yield ParsedStructure("", _checked(crystal, material_id, config))
        return
    column = next((candidate for candidate in STRUCTURE_COLUMNS if candidate in names), None)
    if column is None:
        columns = ", ".join(names)[:200]
        raise TableError(f"no column structure or cif, and not a materials table: its columns are {columns}")
    ids = [f"{stem(name)}-{first + i}" for i in range(len(table))]
    if "material_id" in names:
        ids = table["material_id"].to_pylist()
    for material_id, value in zip(ids, table[column].to_pylist(), strict=True):
        yield _read_value(value, None if material_id is None else str(material_id), column, config)


def _checked(
    crystal: Crystal | StructureError, material_id: str | None, config: ReadingConfig
) -> Crystal | StructureError:
    if material_id is None:
        return _missing_id()
    if isinstance(crystal, Crystal) and len(crystal) > config.largest_cell:
        rule = f"{len(crystal)} sites, more than {config.largest_cell}; raise --reading.largest-cell"
        return StructureError(material_id, rule)
    return crystal


def _missing_id() -> StructureError:
    return StructureError("NULL", "material_id is NULL; give every row a unique id")


def _read_value(value: Any, material_id: str | None, column: str, config: ReadingConfig) -> ParsedStructure:
    if material_id is None:
        return ParsedStructure("", _missing_id())
    if value is None or value == "":
        return ParsedStructure("", StructureError(material_id, f"column {column} is NULL"))
    if not isinstance(value, str):
        return read_document(value, material_id, config)
    extension = ".json" if value.lstrip().startswith("{") else ".cif"
    structures = read_structures(f"{column}{extension}", value.encode(), config, material_id)
    if len(structures) > 1:
        rule = f"column {column} holds {len(structures)} structures; give one per row"
        return ParsedStructure("", StructureError(material_id, rule))
    return structures[0]
