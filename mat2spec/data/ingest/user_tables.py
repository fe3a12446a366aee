"""Tables that a user gives: materials tables, and tables with a column of CIF texts or pymatgen structures."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.materials.schema import COLUMNS, INGESTED_SCHEMA, check_schema, read_crystals
from mat2spec.data.shards.shard import Shard
from mat2spec.errors import StructureError, TableError
from mat2spec.storage.location import ListedFile, error_reason
from mat2spec.storage.tables import read_csv, read_parquet_rows, read_schema
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import check_distances
from mat2spec.structure.readers.disorder import ParsedStructure
from mat2spec.structure.readers.formats import read_document, read_structures
from mat2spec.structure.readers.names import is_parquet, is_table, stem

STRUCTURE_COLUMNS = ("structure", "cif")
"""Columns in which structures are looked for, if the table lacks the columns of a materials table."""

OUR_COLUMNS = {*INGESTED_SCHEMA.names, *STRUCTURE_COLUMNS}
"""Columns that an ingestion writes itself; all other columns of a table are copied."""


def read_user_table(shard: Shard, config: ReadingConfig) -> tuple[list[tuple[str, ParsedStructure]], pa.Table]:
    """Read the structures of a table, or of a piece of it.

    Args:
        shard: The table, Parquet or CSV, and the rows of a Parquet table.
        config: Treatment of disorder, and the largest cell.

    Returns:
        Source and structure of each row, and the extra columns. A table that cannot be read is one row with an error.
    """
    (url,) = shard.files
    name = shard.labels[0] if shard.labels else url
    try:
        table = _open(url, shard.rows)
        rows = range(len(table)) if shard.rows is None else shard.rows
        structures = list(_structures(table, url, name, rows, config))
    except (TableError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = f"the table cannot be read ({error_reason(error)})"
        unreadable = ParsedStructure("", StructureError(stem(name), reason))
        return [(url, unreadable)], pa.table({"": pa.nulls(1)}).select([])
    sources = [f"{url}, row {row}" for row in rows]
    extra_columns = table.drop_columns([column for column in table.column_names if column in OUR_COLUMNS])
    return list(zip(sources, structures, strict=True)), extra_columns


def ingested_schema(sources: Sequence[ListedFile]) -> pa.Schema:
    """Columns of the materials table that an ingestion makes of files, with those of the user's tables among them."""
    schema = INGESTED_SCHEMA
    for source in sources:
        if is_table(source.url):
            names = {*OUR_COLUMNS, *schema.names}
            schema = pa.schema([*schema, *(field for field in _columns(source.url) if field.name not in names)])
    return schema


def _columns(url: str) -> pa.Schema:
    """Columns of a table; none of one that cannot be read, which becomes a reject."""
    try:
        return read_schema(url) if is_parquet(url) else _read_csv(url).schema
    except (TableError, OSError, pa.ArrowException):
        return pa.schema([])


def _open(url: str, rows: Sequence[int] | None) -> pa.Table:
    if rows is not None:
        return read_parquet_rows(url, rows)
    if is_parquet(url):
        raise TableError("not a readable Parquet file")
    return _read_csv(url)


def _read_csv(url: str) -> pa.Table:
    return read_csv(url, text=("material_id", *STRUCTURE_COLUMNS))


def _structures(
    table: pa.Table, url: str, name: str, rows: Sequence[int], config: ReadingConfig
) -> Iterator[ParsedStructure]:
    names = table.column_names
    if set(COLUMNS) <= set(names):
        check_schema(
            read_schema(url) if is_parquet(url) else table.schema, url
        )  # as stored: DuckDB widens half precision
        for material_id, crystal in zip(table["material_id"].to_pylist(), read_crystals(table), strict=True):
            yield ParsedStructure("", _checked(crystal, material_id, config))
        return
    column = next((candidate for candidate in STRUCTURE_COLUMNS if candidate in names), None)
    if column is None:
        columns = ", ".join(names)[:200]
        raise TableError(f"no column structure or cif, and not a materials table: its columns are {columns}")
    ids = _texts(table["material_id"]) if "material_id" in names else [f"{stem(name)}-{row}" for row in rows]
    for material_id, value in zip(ids, table[column].to_pylist(), strict=True):
        yield _read_value(value, material_id, column, config)


def _texts(ids: pa.ChunkedArray) -> list[str | None]:
    """Ids as text, integers and dates too; of bytes their UTF-8."""
    if pa.types.is_nested(ids.type):
        raise TableError(f"column material_id is {ids.type}, must be text")
    if pa.types.is_binary(ids.type) or pa.types.is_large_binary(ids.type):
        ids = ids.cast(pa.string())
    return [None if value is None else str(value) for value in ids.to_pylist()]


def _checked(
    crystal: Crystal | StructureError, material_id: str | None, config: ReadingConfig
) -> Crystal | StructureError:
    if not material_id:
        return _missing_id()
    if isinstance(crystal, Crystal) and len(crystal) > config.largest_cell:
        rule = f"{len(crystal)} sites, more than {config.largest_cell}; raise --reading.largest-cell"
        return StructureError(material_id, rule)
    if isinstance(crystal, Crystal):
        try:
            check_distances(crystal)
        except StructureError as error:
            return error
    return crystal


def _missing_id() -> StructureError:
    return StructureError("NULL", "material_id is NULL or empty; give every row a unique id")


def _read_value(value: Any, material_id: str | None, column: str, config: ReadingConfig) -> ParsedStructure:
    if not material_id:
        return ParsedStructure("", _missing_id())
    if value is None or value in ("", b""):
        return ParsedStructure("", StructureError(material_id, f"column {column} is NULL"))
    if not isinstance(value, str | bytes):
        return read_document(value, material_id, config)
    content = value.encode() if isinstance(value, str) else value
    extension = ".json" if content.lstrip().startswith(b"{") else ".cif"
    structures = read_structures(f"{column}{extension}", content, config, material_id)
    if len(structures) > 1:
        rule = f"column {column} holds {len(structures)} structures; give one per row"
        return ParsedStructure("", StructureError(material_id, rule))
    return structures[0]
