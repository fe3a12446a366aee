"""The same twice, in tables of many files: ids that came before, and crystals of the same content."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mat2spec.errors import TableError
from mat2spec.storage.rejects import Reject, reject

_SQL = """
    CREATE TEMP TABLE rows AS
    SELECT list_position($files, filename) - 1 AS file, file_row_number AS row, material_id, content_hash,
           row_number() OVER (PARTITION BY material_id ORDER BY filename, file_row_number) > 1 AS repeated
    FROM read_parquet($files, filename = true, file_row_number = true, union_by_name = true);
    SELECT file, row, repeated, first AS duplicate_of
    FROM (SELECT *, first_value(material_id) OVER (PARTITION BY content_hash, repeated ORDER BY file, row) AS first FROM rows)
    WHERE repeated OR first <> material_id ORDER BY file, row"""


@dataclass(frozen=True)
class Duplicates:
    """Rows of some files that are not the first of their kind.

    Args:
        found: Columns file and row (positions), repeated (the id came before), duplicate_of (id of the first row with the content).
    """

    found: pa.Table

    @classmethod
    def find(cls, files: Sequence[Path]) -> "Duplicates":
        """Look through files, in the order of their names; DuckDB holds an id and a hash for each row, and spills what is too much."""
        names = [str(file) for file in sorted(files)]
        create, select = _SQL.split(";", 1)
        with duckdb.connect() as connection:
            connection.execute(create, {"files": names})
            return cls(connection.sql(select).to_arrow_table())

    def mark(self, file: int, table: pa.Table) -> tuple[pa.Table, list[Reject]]:
        """Give a file's table a column `duplicate_of`, and take the rows out whose material_id came before.

        Args:
            file: Its position.
            table: Its rows, all of them.
        """
        here = self.found.filter(pc.equal(self.found["file"], file))
        repeated = set(here.filter(here["repeated"])["row"].to_pylist())
        first = {
            row: of
            for row, of in zip(here["row"].to_pylist(), here["duplicate_of"].to_pylist(), strict=True)
            if row not in repeated
        }
        rejects = [_reject(table, row) for row in sorted(repeated)]
        marked = table.append_column(
            "duplicate_of", pa.array([first.get(row) for row in range(len(table))], pa.string())
        )
        return marked.filter(pa.array([row not in repeated for row in range(len(table))], pa.bool_())), rejects

    def counts(self) -> dict[str, int]:
        """How many rows are of either kind."""
        repeated = pc.sum(self.found["repeated"]).as_py() or 0
        return {"repeated_ids": repeated, "duplicates": len(self.found) - repeated}


def _reject(table: pa.Table, row: int) -> Reject:
    material_id, source = table["material_id"][row].as_py(), table["source"][row].as_py()
    error = TableError(
        f"{material_id}: {source}: this material_id came before; rename it, or take --ids path for files"
    )
    return reject(material_id, source, "read", error)
