"""Input of a screening: Parquet files of a materials table, and their rows divided into shards."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.data.ingest.listing import FileListing, list_input
from mat2spec.data.materials.schema import check_schema
from mat2spec.data.shards.shard import Shard, as_range, shard_name
from mat2spec.errors import ConfigError, TableError, counted
from mat2spec.storage.location import Location, connect_duckdb, error_reason, open_file, store_errors_as_oserror
from mat2spec.storage.plain_types import plain_schema
from mat2spec.storage.tables import FILE, ROW, scan_parquet

_READERS = 16
"""Files read at the same time: an object store answers each after some 30 ms."""


@dataclass(frozen=True)
class MaterialsInput:
    """All rows of a materials table that meet a condition, in (file, row) order.

    Args:
        files: Parquet files, in order.
        columns: Names of the columns of each.
        num_rows: Number of their rows, whether they meet the condition or not.
        where: SQL condition on the rows.
        fingerprint: SHA-256 that changes when a file or the condition does.
    """

    files: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    num_rows: int
    where: str | None
    fingerprint: str

    @classmethod
    def open(cls, pattern: Location, where: str | None = None) -> "MaterialsInput":
        """Open the table at a path or URL: one file, a folder, a glob, or the directory of an ingestion.

        Raises:
            TableError: If there is nothing to read, something else than Parquet, or a file that cannot be read or lacks
                a column.
        """
        listing, pattern = list_input(pattern)
        if not listing.holds_only_parquet:
            way_out = f"make a table with `mat2spec ingest files {pattern} --output TABLE` first"
            raise TableError(f"{pattern}: holds structure files, not a materials table; {way_out}")
        return cls.from_listing(listing, pattern, where)

    @classmethod
    def from_listing(cls, listing: FileListing, pattern: Location, where: str | None) -> "MaterialsInput":
        """Open listed Parquet files.

        Raises:
            TableError: If a file cannot be read or lacks a column.
        """
        files = [source.url for source in listing.sources]
        digest = hashlib.sha256(f"{where}\n".encode())
        parent = os.path.commonpath([*files, str(pattern)])
        columns = []
        num_rows = 0
        with ThreadPoolExecutor(_READERS) as readers:
            for file, footer in zip(files, readers.map(_check_table, files), strict=True):
                digest.update(f"{os.path.relpath(file, parent)}\n".encode())
                digest.update(footer.content)
                columns.append(footer.columns)
                num_rows += footer.num_rows
        return cls(tuple(files), tuple(columns), num_rows, where, digest.hexdigest())

    def require_rows(self, path: Location) -> None:
        """Refuse a table without rows: a job on it would look as if it had worked.

        Raises:
            TableError: Naming the path.
        """
        if not self.num_rows:
            raise TableError(f"{path}: {counted(len(self.files), 'table')} without any row; nothing to do")

    def shards(self, rows_per_shard: int, prefix: str = "part", done: pa.Table | None = None) -> list[Shard]:
        """Divide the input into shards: at least one, possibly empty, and always the same for the same input.

        Args:
            rows_per_shard: Their size.
            prefix: First part of their names.
            done: Number of rows of each `material_id` that are done already, the first ones; None: no rows.

        Raises:
            ConfigError: If the condition is not valid SQL or names an unknown column.
            TableError: If more rows are done than the input has.
        """
        selected = self._select_rows(done)
        shards: list[Shard] = []
        for file, rows, repeated in self._group_by_file(selected):
            for start in range(0, len(rows), rows_per_shard):
                part = slice(start, start + rows_per_shard)
                repeated_rows = tuple(np.flatnonzero(repeated[part]).tolist())
                shards.append(Shard(shard_name(prefix, len(shards)), (file,), as_range(rows[part]), repeated_rows))
        return shards or [Shard(shard_name(prefix, 0), self.files[:1], (), ())]

    def _group_by_file(self, selected: pa.Table) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """File, positions of its rows, and column `repeated`."""
        index, rows, repeated = (selected[name].to_numpy() for name in ("file", "row", "repeated"))
        starts = np.searchsorted(index, np.arange(len(self.files) + 1))
        for i, file in enumerate(self.files):
            part = slice(starts[i], starts[i + 1])
            yield file, rows[part], repeated[part]

    def _select_rows(self, done: pa.Table | None) -> pa.Table:
        """Positions of rows that are not done, and whether an earlier row has the same material_id; reads ids once."""
        rows, parameters = self._rows()
        numbered = f"SELECT *, row_number() OVER (PARTITION BY material_id ORDER BY file, row) AS nth FROM ({rows})"
        repeated = "material_id IS NOT NULL AND nth > 1 AS repeated"
        try:
            with connect_duckdb(self.files) as connection:
                if done is None:
                    sql = f"SELECT file, row, {repeated} FROM ({numbered}) ORDER BY file, row"
                    return connection.sql(sql, params=parameters).to_arrow_table()
                connection.execute(f"CREATE TEMP TABLE numbered AS {numbered}", parameters)
                connection.register("done", done)
                if ids := [row[0] for row in connection.execute(_MISSING).fetchall()]:
                    rule = f"the input lacks {counted(len(ids), 'material')} of the run, such as {ids[0]}"
                    raise TableError(f"{rule}; choose another --output")
                return connection.sql(_TO_DO).to_arrow_table()
        except duckdb.Error as error:
            if self.where:
                raise _wrong_condition(self.where, error) from None
            raise TableError(f"{self.files[0]}: the ids cannot be read ({error_reason(error)})") from None

    def find(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """Files and positions of the rows with some ids, in order."""
        rows, parameters = self._rows()
        sql = f"SELECT file, row FROM ({rows}) WHERE list_contains($ids, material_id) ORDER BY file, row"
        positions: dict[str, list[int]] = {}
        with connect_duckdb(self.files) as connection:
            for file, row in connection.execute(sql, parameters | {"ids": list(ids)}).fetchall():
                positions.setdefault(self.files[file], []).append(row)
        return positions

    def _rows(self) -> tuple[str, dict[str, Any]]:
        """Return the SQL of file, position and id of each row that meets the condition, and its parameters."""
        scan, parameters = scan_parquet(self.files, self.columns)
        return f"SELECT {FILE} AS file, {ROW} AS row, material_id FROM ({scan}) {_where(self.where)}", parameters


_MISSING = """
    SELECT done.material_id
    FROM done LEFT JOIN (SELECT material_id, max(nth) AS rows FROM numbered GROUP BY material_id) AS input
    ON input.material_id IS NOT DISTINCT FROM done.material_id
    WHERE done.rows > coalesce(input.rows, 0)"""
"""Ids of which more rows are done than the input has."""

_TO_DO = """
    SELECT file, row, numbered.material_id IS NOT NULL AND nth > 1 AS repeated
    FROM numbered LEFT JOIN done ON numbered.material_id IS NOT DISTINCT FROM done.material_id
    WHERE nth > coalesce(done.rows, 0) ORDER BY file, row"""


def check_condition(where: str | None, schema: pa.Schema) -> None:
    """Refuse a condition that is not valid SQL for a table of this schema.

    Raises:
        ConfigError: With DuckDB's reason.
    """
    try:
        with duckdb.connect() as connection:
            one_row = pa.table([pa.nulls(1, field.type) for field in schema], schema=schema)
            connection.register("input", one_row)  # with a row, because DuckDB converts constants only for a row
            connection.execute(f"SELECT 1 FROM input {_where(where)}").fetchall()
    except duckdb.Error as error:
        raise _wrong_condition(where, error) from None


def _where(condition: str | None) -> str:
    return f"WHERE ({condition})" if condition else ""


def _wrong_condition(where: str | None, error: duckdb.Error) -> ConfigError:
    return ConfigError(f"where: {where}: {' '.join(str(error).split())}")


class _Footer(NamedTuple):
    """What the end of a file says: its columns and rows; its size and footer stand for its content."""

    columns: tuple[str, ...]
    num_rows: int
    content: bytes


def _check_table(file: str) -> _Footer:
    """Check that a Parquet file is a materials table."""
    try:
        with store_errors_as_oserror(), open_file(file) as stream:
            metadata = pq.read_metadata(stream)
            schema = plain_schema(metadata.schema.to_arrow_schema(), file)
            check_schema(schema, file)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(size - 8)
            footer = int.from_bytes(stream.read(4), "little") + 8
            stream.seek(size - footer)
            content = size.to_bytes(8, "little") + stream.read()
            return _Footer(tuple(map(sys.intern, schema.names)), metadata.num_rows, content)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{file}: not a readable Parquet file ({error_reason(error)})") from None
