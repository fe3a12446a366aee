"""Duplicates in a table of several files: repeated ids, and crystals of equal content."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mat2spec.errors import TableError
from mat2spec.storage.location import connect_duckdb
from mat2spec.storage.rejects import Reject, reject
from mat2spec.storage.tables import FILE, ROW, read_schema, scan_parquet

_READERS = 16
"""Files whose columns are read at the same time: an object store answers each after some 30 ms."""

_NUMBER_ROWS = f"""
    CREATE TEMP TABLE rows AS
    SELECT *, row_number() OVER (PARTITION BY material_id ORDER BY file, row) > 1 AS repeated
    FROM (SELECT {FILE} AS file, {ROW} AS row, material_id, content_hash FROM ({{scan}}))"""

_SELECT_DUPLICATES = """
    SELECT file, row, repeated, first AS duplicate_of
    FROM (SELECT *,
              first_value(material_id) OVER (PARTITION BY content_hash, repeated ORDER BY file, row) AS first
          FROM rows)
    WHERE repeated OR first <> material_id ORDER BY file, row"""


@dataclass(frozen=True)
class Duplicates:
    """Rows of several files whose id or content occurs in an earlier row.

    Args:
        rows: Columns file and row (positions), repeated (whether the id occurs earlier), duplicate_of (id of the first
            row with the same content).
    """

    rows: pa.Table

    def split(self, file: int, table: pa.Table) -> tuple[pa.Table, list[Reject]]:
        """Add column `duplicate_of` to the table of a file, and make rejects of rows whose material_id is repeated.

        Args:
            file: Position of the file.
            table: All its rows.
        """
        duplicates = self.rows.filter(pc.equal(self.rows["file"], file)).to_pylist()
        repeated = {duplicate["row"] for duplicate in duplicates if duplicate["repeated"]}
        originals = {duplicate["row"]: duplicate["duplicate_of"] for duplicate in duplicates}
        column = pa.array([None if row in repeated else originals.get(row) for row in range(len(table))], pa.string())
        is_first = pa.array([row not in repeated for row in range(len(table))], pa.bool_())
        rejects = [_reject(table, row) for row in sorted(repeated)]
        return table.append_column("duplicate_of", column).filter(is_first), rejects

    def counts(self) -> dict[str, int]:
        """Number of rows with a repeated id, and with the content of an earlier row."""
        repeated = pc.sum(self.rows["repeated"]).as_py() or 0
        return {"repeated_ids": repeated, "duplicates": len(self.rows) - repeated}


def find_duplicates(files: Sequence[str]) -> Duplicates:
    """Find duplicates in the rows of Parquet files.

    DuckDB holds an id and a hash for each row, and writes to disk what does not fit in memory.

    Args:
        files: Paths or URLs, in the order that determines which row is the first.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        columns = [schema.names for schema in readers.map(read_schema, files)]
    scan, parameters = scan_parquet(files, columns)
    with connect_duckdb(files) as connection:
        connection.execute(_NUMBER_ROWS.format(scan=scan), parameters)
        return Duplicates(connection.sql(_SELECT_DUPLICATES).to_arrow_table())


def _reject(table: pa.Table, row: int) -> Reject:
    material_id = table["material_id"][row].as_py()
    source = table["source"][row].as_py()
    rule = "an earlier row has this material_id; rename it, or pass --reading.ids path for files"
    return reject(material_id, source, "read", TableError(f"{material_id}: {source}: {rule}"))
