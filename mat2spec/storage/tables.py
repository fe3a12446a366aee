"""Tables on a disk or in an object store, with the columns that the files have, in plain Arrow types.

All tables that users give are opened here, by pyarrow or DuckDB, so that every command sees the same columns: those of
the file. Neither a folder like `split=old`, nor a name that differs in case, nor one that DuckDB uses itself takes
their place, and the characters of a path are no pattern.
"""

import glob
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mat2spec.errors import TableError
from mat2spec.storage.location import connect_duckdb, error_reason, open_file
from mat2spec.storage.plain_types import plain_schema, plain_table

FILE, ROW = "mat2spec_file", "mat2spec_row"
"""Columns that `scan_parquet` adds: numbers of the file in the list and of the row in the file, from 0."""

_CSV = pa.csv.ParseOptions(newlines_in_values=True)


def read_schema(file: str) -> pa.Schema:
    """Read the columns of a Parquet file.

    Raises:
        OSError: If it cannot be read.
        pa.ArrowException: If it is no Parquet file.
        TableError: If two columns have the same name.
    """
    with open_file(file) as stream:
        return plain_schema(pq.read_schema(stream), file)


def read_parquet_rows(file: str, rows: Sequence[int], columns: tuple[str, ...] | None = None) -> pa.Table:
    """Read rows of a Parquet file or URL, reading only the row groups that hold them.

    Args:
        file: Path or URL.
        rows: Numbers of the rows, ascending.
        columns: Names of the columns; all if None.

    Raises:
        OSError: If it cannot be read.
        pa.ArrowException: If it is no Parquet file.
        TableError: If two columns have the same name.
    """
    with open_file(file) as stream:
        metadata = pq.read_metadata(stream)
    schema = plain_schema(metadata.schema.to_arrow_schema(), file)
    sizes = np.array([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    positions = np.array(rows, dtype=np.int64)
    parts = []
    for group, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        inside = positions[(positions >= start) & (positions < start + size)] - start
        if len(inside):
            parts.append(_last_row_group(file, group, columns).take(inside))
    return _concatenate(parts, schema)


def read_parquet_table(file: str) -> pa.Table:
    """Read all rows of a Parquet file or URL; raises what `read_parquet_rows` does."""
    with open_file(file) as stream:
        metadata = pq.read_metadata(stream)
    groups = [_row_group(file, group, None) for group in range(metadata.num_row_groups)]
    return _concatenate(groups, plain_schema(metadata.schema.to_arrow_schema(), file))


def _concatenate(parts: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """Join parts of a table; DuckDB reads as a list what is a fixed-size list in other parts."""
    return pa.concat_tables(parts, promote_options="permissive") if parts else pa.Table.from_batches([], schema)


def _row_group(file: str, group: int, columns: tuple[str, ...] | None) -> pa.Table:
    with open_file(file) as stream:
        parquet = pq.ParquetFile(stream)
        try:
            table = parquet.read_row_group(group, columns and list(columns))
        except pa.ArrowInvalid:  # Arrow 25 cannot read back a NULL that it wrote into a fixed-size list; DuckDB can
            table = _row_group_by_duckdb(file, parquet, group)
    return plain_table(table, file)


_last_row_group = lru_cache(maxsize=1)(_row_group)
"""Consecutive shards of a job are in the same row group."""


def _row_group_by_duckdb(file: str, parquet: pq.ParquetFile, group: int) -> pa.Table:
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(group + 1)]
    names = parquet.schema_arrow.names
    scan, parameters = scan_parquet([file], [names])
    sql = f"SELECT * EXCLUDE ({FILE}, {ROW}) FROM ({scan}) WHERE {ROW} BETWEEN $first AND $last ORDER BY {ROW}"
    with connect_duckdb([file]) as connection:
        bounds = {"first": sum(sizes[:-1]), "last": sum(sizes) - 1}
        return connection.sql(sql, params=parameters | bounds).to_arrow_table().rename_columns(names)


def scan_parquet(files: Sequence[str], columns: Sequence[Sequence[str]]) -> tuple[str, dict[str, Any]]:
    """Return the SQL of all rows of Parquet files, and its parameters.

    A column keeps its name, except where names differ only in case, which SQL ignores: see `sql_names`.

    Args:
        files: Paths or URLs.
        columns: Names of the columns of each file.

    Returns:
        A query with the columns of the files, `FILE` and `ROW`. A column that a file lacks is NULL.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, names in enumerate(columns):
        groups.setdefault(tuple(names), []).append(number)
    parts = []
    parameters: dict[str, Any] = {}
    for i, (names, numbers) in enumerate(groups.items()):
        parameters |= {f"files{i}": [glob.escape(files[number]) for number in numbers], f"numbers{i}": numbers}
        own = [f"c{j} AS {quoted_identifier(name)}" for j, name in enumerate(sql_names(names))]
        position = f"$numbers{i}[CAST(file_index AS BIGINT) + 1] AS {FILE}, file_row_number AS {ROW}"
        source = f"read_parquet($files{i}, hive_partitioning = false, union_by_name = true)"
        # with aliases for all columns, file_index and file_row_number are DuckDB's even if the file has such columns
        aliases = ", ".join(f"c{j}" for j in range(len(names)))
        parts.append(f"SELECT {', '.join([position, *own])} FROM {source} AS t({aliases})")
    return " UNION ALL BY NAME ".join(parts), parameters


def sql_names(names: Sequence[str]) -> list[str]:
    """Names that differ in more than case: the one in lower case is kept, the others get a number, as DuckDB does it.

    ["MATERIAL_ID", "material_id"] becomes ["MATERIAL_ID_1", "material_id"].
    """
    taken = {name for name in names if name == name.lower()}
    distinct = []
    for name in names:
        free = name
        suffix = 0
        while name != name.lower() and free.lower() in taken:
            suffix += 1
            free = f"{name}_{suffix}"
        taken.add(free.lower())
        distinct.append(free)
    return distinct


def quoted_identifier(name: str) -> str:
    """Return the name of a column as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def read_csv(file: str, text: Sequence[str]) -> pa.Table:
    """Read a CSV file.

    Args:
        file: Path or URL.
        text: Columns that are read as they are written: 007, 1e5, true, NA and 2020-01-01 are ids, not numbers. The
            types of other columns are found by Arrow. Text that is not UTF-8 is Latin-1, value by value.

    Raises:
        OSError: If it cannot be read.
        TableError: If it is no CSV file, or two columns have the same name.
    """
    options = pa.csv.ConvertOptions(column_types={name: pa.binary() for name in text})
    try:
        with open_file(file) as stream:
            table = pa.csv.read_csv(stream, parse_options=_CSV, convert_options=options)
        table = plain_table(table, file)
    except (UnicodeDecodeError, pa.ArrowException) as error:
        raise TableError(f"{file}: not a readable CSV file ({error_reason(error)})") from None
    for i, field in enumerate(table.schema):
        if pa.types.is_binary(field.type):
            table = table.set_column(i, field.name, _decoded(table[i]))
    return table


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    with suppress(pa.ArrowInvalid):
        return column.cast(pa.string())
    return pa.chunked_array([[decode(value) for value in column.to_pylist()]], pa.string())


def decode(value: bytes | None) -> str | None:
    """Text of bytes: UTF-8, else Latin-1, in which old files have the names of authors."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
