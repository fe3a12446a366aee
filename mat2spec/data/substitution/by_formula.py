"""Candidates of all shards formula by formula, so that each is compared with all that may be the same; then those that are wanted."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mat2spec.config.substitution import SubstituteConfig
from mat2spec.storage.run_directory import MATERIALS


def group(folder: Path, grouped: Path, rows_per_group: int) -> None:
    """Sort candidates by formula, and the known structures of the same formulas with them.

    Memory stays small: DuckDB puts on disk what it cannot hold.

    Args:
        folder: Tables of candidates and known structures.
        grouped: File that is written, at once.
        rows_per_group: Rows that are read together later.
    """
    partial = grouped.with_suffix(".partial")
    sql = f"""
        COPY (SELECT * FROM read_parquet($files) SEMI JOIN
                  (SELECT formula_pretty FROM read_parquet($files) WHERE parent_id IS NOT NULL) USING (formula_pretty)
              ORDER BY formula_pretty, material_id)
        TO {_quoted(partial)} (FORMAT parquet, ROW_GROUP_SIZE {rows_per_group})"""
    with duckdb.connect() as connection:
        connection.execute(sql, {"files": _files(folder)})
    partial.replace(grouped)


def cut(grouped: Path, rows_per_shard: int) -> Iterator[dict[str, Any]]:
    """Give the name, the first row and the one after the last of shards of whole formulas; there is at least one, possibly empty."""
    sql = "SELECT count(*) FROM read_parquet($file) GROUP BY formula_pretty ORDER BY formula_pretty"
    start = stop = index = 0
    for (size,) in _query(sql, file=str(grouped)):
        if stop > start and stop + size - start > rows_per_shard:
            yield {"name": f"part-{index:06d}", "start": start, "stop": stop}
            start, index = stop, index + 1
        stop += size
    yield {"name": f"part-{index:06d}", "start": start, "stop": stop}


def count_parents(folder: Path) -> int:
    """How many parents have a candidate."""
    return int(_query("SELECT count(DISTINCT parent_id) FROM read_parquet($files)", files=_files(folder))[0][0])


@dataclass(frozen=True)
class Selection:
    """Which distinct candidates are wanted: the new ones, the most probable ones.

    Args:
        only_new: Whether known structures are left out.
        last: Probability and material_id of the last one within the limit, in the order of both; None: all are.
        counts: What there is, by kind.
    """

    only_new: bool
    last: tuple[float, str] | None
    counts: dict[str, int]

    @classmethod
    def of(cls, folder: Path, config: SubstituteConfig) -> "Selection":
        """Look through the tables of a folder."""
        only_new, limit = config.known == "drop", config.limit
        wanted = "known_as IS NULL" if only_new else "true"
        totals = (
            f"SELECT count(*), count(known_as), sum(duplicates), count(*) FILTER ({wanted}) FROM read_parquet($files)"
        )
        stayed, known, duplicates, new = (int(total or 0) for total in _query(totals, files=_files(folder))[0])
        ranks = f"SELECT probability, material_id FROM read_parquet($files) WHERE {wanted} ORDER BY probability DESC, material_id"
        last = _query(f"{ranks} LIMIT 1 OFFSET {limit - 1}", files=_files(folder)) if limit else []
        placed = min(new, limit or new)
        counts = {
            "made": stayed + duplicates,
            "duplicates": duplicates,
            "known": known,
            "beyond_limit": new - placed,
            MATERIALS: placed,
        }
        return cls(only_new, last[0] if last else None, counts)

    def take(self, file: Path) -> pa.Table:
        """Read what is wanted of a table."""
        table = pq.read_table(file)
        if self.only_new:
            table = table.filter(pc.field("known_as").is_null())
        if self.last:
            probability, material_id = self.last
            likely, name = pc.field("probability"), pc.field("material_id")
            table = table.filter((likely > probability) | ((likely == probability) & (name <= material_id)))
        return table


def _query(sql: str, **values: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(sql, values).fetchall()


def _files(folder: Path) -> str:
    return f"{folder}/*.parquet"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
