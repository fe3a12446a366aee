"""Grouping of candidates by formula, so that possible duplicates meet, and selection of those to write."""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mat2spec.config.substitution import SubstituteConfig
from mat2spec.data.shards.shard import Shard, shard_name
from mat2spec.storage.atomic import atomic_path
from mat2spec.storage.run_directory import MATERIALS

_TABLES = "read_parquet($files, hive_partitioning = false)"
"""Our own tables, in a folder whose name may look like that of a partition: formula_pretty=NaCl."""


def group_by_formula(folder: Path, grouped: Path, rows_per_group: int) -> None:
    """Write candidates, and known structures of the same formulas, sorted by formula.

    Memory stays small: DuckDB writes to disk what does not fit.

    Args:
        folder: Tables of candidates and known structures.
        grouped: File to write.
        rows_per_group: Size of its row groups.
    """
    rows = f"""
        SELECT * FROM {_TABLES} SEMI JOIN
            (SELECT formula_pretty FROM {_TABLES} WHERE parent_id IS NOT NULL) USING (formula_pretty)
        ORDER BY formula_pretty, material_id"""
    with atomic_path(grouped) as partial, duckdb.connect() as connection:
        sql = f"COPY ({rows}) TO {_quoted(partial)} (FORMAT parquet, ROW_GROUP_SIZE {rows_per_group})"
        connection.execute(sql, {"files": _files(folder)})


def formula_shards(grouped: Path, rows_per_shard: int) -> list[Shard]:
    """Divide the sorted candidates into shards of whole formulas: at least one, possibly empty."""
    sql = f"SELECT count(*) FROM {_TABLES} GROUP BY formula_pretty ORDER BY formula_pretty"
    shards: list[Shard] = []

    def add(start: int, stop: int) -> None:
        shards.append(Shard(shard_name("part", len(shards)), (str(grouped),), range(start, stop)))

    start = stop = 0
    for (size,) in _query(sql, files=glob.escape(str(grouped))):
        if stop > start and stop + size - start > rows_per_shard:
            add(start, stop)
            start = stop
        stop += size
    add(start, stop)
    return shards


def count_parents(folder: Path) -> int:
    """Number of parents with a candidate."""
    return int(_query(f"SELECT count(DISTINCT parent_id) FROM {_TABLES}", files=_files(folder))[0][0])


@dataclass(frozen=True)
class CandidateSelection:
    """Rule that selects distinct candidates: new ones, most probable ones.

    Args:
        only_new: Whether known structures are left out.
        last: Probability and material_id of the last candidate within the limit, in that order; None: no limit.
        counts: Number of candidates by kind.
    """

    only_new: bool
    last: tuple[float, str] | None
    counts: dict[str, int]

    @classmethod
    def from_folder(cls, folder: Path, config: SubstituteConfig) -> "CandidateSelection":
        """Count and rank the distinct candidates in the tables of a folder."""
        only_new = config.known == "drop"
        limit = config.limit
        condition = "known_as IS NULL" if only_new else "true"
        totals = f"""
            SELECT count(*), count(known_as), sum(duplicates), count(*) FILTER ({condition})
            FROM {_TABLES}"""
        distinct, known, duplicates, matching = (int(total or 0) for total in _query(totals, files=_files(folder))[0])
        ranking = f"""
            SELECT probability, material_id FROM {_TABLES} WHERE {condition}
            ORDER BY probability DESC, material_id"""
        last = _query(f"{ranking} LIMIT 1 OFFSET {limit - 1}", files=_files(folder)) if limit else []
        selected = min(matching, limit or matching)
        counts = {
            "made": distinct + duplicates,
            "duplicates": duplicates,
            "known": known,
            "beyond_limit": matching - selected,
            MATERIALS: selected,
        }
        return cls(only_new, last[0] if last else None, counts)

    def read(self, file: Path) -> pa.Table:
        """Read the selected rows of a table."""
        table = pq.read_table(file)
        if self.only_new:
            table = table.filter(pc.field("known_as").is_null())
        if self.last:
            probability, material_id = self.last
            more_probable = pc.field("probability") > probability
            equal = pc.field("probability") == probability
            table = table.filter(more_probable | (equal & (pc.field("material_id") <= material_id)))
        return table


def _query(sql: str, **values: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(sql, values).fetchall()


def _files(folder: Path) -> str:
    return f"{glob.escape(str(folder))}/*.parquet"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
