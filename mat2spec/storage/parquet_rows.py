"""Selected rows of a Parquet file, on a disk or in an object store."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.storage.location import connect_duckdb, open_file


def read_parquet_rows(file: str, rows: Sequence[int], columns: tuple[str, ...] | None = None) -> pa.Table:
    """Read rows of a Parquet file or URL, reading only the row groups that hold them.

    Args:
        file: Path or URL.
        rows: Numbers of the rows, ascending.
        columns: Names of the columns; all if None.
    """
    with open_file(file) as stream:
        metadata = pq.read_metadata(stream)
    sizes = np.array([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    positions = np.array(rows, dtype=np.int64)
    parts = []
    for group, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        inside = positions[(positions >= start) & (positions < start + size)] - start
        if len(inside):
            parts.append(_row_group(file, group, columns).take(inside))
    return pa.concat_tables(parts) if parts else metadata.schema.to_arrow_schema().empty_table()


@lru_cache(maxsize=1)  # consecutive shards are in the same row group
def _row_group(file: str, group: int, columns: tuple[str, ...] | None) -> pa.Table:
    with open_file(file) as stream:
        parquet = pq.ParquetFile(stream)
        try:
            return parquet.read_row_group(group, columns and list(columns))
        except pa.ArrowInvalid:  # Arrow 25 cannot read back a NULL that it wrote into a fixed-size list; DuckDB can
            return _row_group_by_duckdb(file, parquet, group)


def _row_group_by_duckdb(file: str, parquet: pq.ParquetFile, group: int) -> pa.Table:
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(group + 1)]
    sql = """SELECT * EXCLUDE (file_row_number) FROM read_parquet($file, file_row_number = true)
             WHERE file_row_number BETWEEN $first AND $last ORDER BY file_row_number"""
    with connect_duckdb([file]) as connection:
        return connection.sql(
            sql, params={"file": file, "first": sum(sizes[:-1]), "last": sum(sizes) - 1}
        ).to_arrow_table()
