"""What a screening reads: files found, rows counted and cut into shards."""

import glob
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.data.materials.schema import check_schema
from mat2spec.data.materials.shards import Shard, as_range
from mat2spec.data.materials.structure_files import is_structure_file
from mat2spec.errors import ConfigError, TableError
from mat2spec.storage.location import Location, connect, errors_of_stores, find_remote, is_url, open_file
from mat2spec.storage.run_directory import MATERIALS, RECORD
from mat2spec.structure.readers.formats import stem

PARQUET = ".parquet"

_READERS = 16
"""Files that are read at once: an object store answers each after some 30 ms."""

_NONE_DONE = pa.table({"material_id": pa.array([], pa.string()), "rows": pa.array([], pa.int64())})


@dataclass(frozen=True)
class MaterialsInput:
    """All input of a screening, in the order of (file, row).

    Args:
        files: Parquet tables, or structure files, in order.
        where: SQL condition that rows of tables must meet.
        tables: Whether the files are Parquet tables.
        fingerprint: SHA-256 that changes when a file or the condition does.
    """

    files: tuple[str, ...]
    where: str | None
    tables: bool
    fingerprint: str

    @classmethod
    def open(cls, pattern: Location, where: str | None = None) -> "MaterialsInput":
        """Find the files of a path or URL: one file, a folder, or a glob.

        Raises:
            TableError: If there is nothing to read, or a table cannot be read or lacks a column.
            ConfigError: If a condition is given for structure files.
        """
        files = _find_files(pattern)
        tables = all(file.endswith(PARQUET) for file in files)
        if not tables and where is not None:
            raise ConfigError(f"where: {pattern} holds structure files, which have no columns; leave it out")
        digest = hashlib.sha256(f"{where}\n".encode())
        above = os.path.commonpath([*files, str(pattern)])
        with ThreadPoolExecutor(_READERS) as readers:
            for file, content in zip(files, readers.map(_check_table if tables else _read_file, files), strict=True):
                digest.update(f"{os.path.relpath(file, above)}\n".encode())
                digest.update(content)
        return cls(tuple(files), where, tables, digest.hexdigest())

    def shards(self, rows_per_shard: int, prefix: str = "part", done: pa.Table | None = None) -> list[Shard]:
        """Cut the input into shards; always the same ones for the same input. There is at least one, possibly empty.

        Args:
            rows_per_shard: Their size.
            prefix: What their names begin with.
            done: How many rows of each `material_id` are no longer input, the first ones; None: none are.

        Raises:
            ConfigError: If the condition is no SQL or names no column.
            TableError: If more rows are done than there are.
        """
        selected = self._selected_rows(done)
        shards: list[Shard] = []
        for files, rows, repeated in self._runs(selected):
            for start in range(0, len(repeated), rows_per_shard):
                stop = min(start + rows_per_shard, len(repeated))
                again = tuple(np.flatnonzero(repeated[start:stop]).tolist())
                name = _shard_name(prefix, len(shards))
                if rows is None:
                    shards.append(Shard(name, files[start:stop], None, again))
                else:
                    shards.append(Shard(name, files, as_range(rows[start:stop]), again))
        if shards or not self.tables:
            return shards or [Shard(_shard_name(prefix, 0), (), None, ())]
        return [Shard(_shard_name(prefix, 0), self.files[:1], (), ())]

    def _runs(self, selected: pa.Table) -> Iterator[tuple[tuple[str, ...], np.ndarray | None, np.ndarray]]:
        """Give what may share a shard: rows of one table, or structure files; files, rows and whether the material_id came before."""
        index, rows, repeated = (selected[name].to_numpy() for name in ("file", "row", "repeated"))
        if not self.tables:
            yield tuple(self.files[i] for i in index), None, repeated
            return
        borders = np.searchsorted(index, np.arange(len(self.files) + 1))
        for i, file in enumerate(self.files):
            part = slice(borders[i], borders[i + 1])
            yield (file,), rows[part], repeated[part]

    def _selected_rows(self, done: pa.Table | None) -> pa.Table:
        """Position of every input row that is not done, and whether its material_id came before."""
        condition = f"WHERE ({self.where})" if self.where else ""
        rows = """SELECT list_position($files, filename) - 1 AS file, file_row_number AS row, material_id
                  FROM read_parquet($files, filename = true, file_row_number = true, union_by_name = true)"""
        if not self.tables:
            rows = "SELECT unnest(range(len($files))) AS file, 0 AS row, unnest($stems) AS material_id"
        counted = f"SELECT *, row_number() OVER (PARTITION BY material_id ORDER BY file, row) AS nth FROM ({rows} {condition})"
        sql = f"""
            SELECT file, row, counted.material_id IS NOT NULL AND nth > 1 AS repeated
            FROM ({counted}) AS counted LEFT JOIN done ON counted.material_id IS NOT DISTINCT FROM done.material_id
            WHERE nth > coalesce(done.rows, 0) ORDER BY file, row"""
        gone = f"""
            SELECT done.material_id FROM done LEFT JOIN (SELECT material_id, max(nth) AS rows FROM ({counted}) GROUP BY ALL) AS there
            ON there.material_id IS NOT DISTINCT FROM done.material_id WHERE done.rows > coalesce(there.rows, 0)"""
        params: dict[str, Any] = {"files": list(self.files)} | (
            {} if self.tables else {"stems": [stem(file) for file in self.files]}
        )
        try:
            with connect(self.files) as connection:
                connection.register("done", _NONE_DONE if done is None else done)
                if done is not None and (lost := [row[0] for row in connection.execute(gone, params).fetchall()]):
                    raise TableError(
                        f"{len(lost)} materials of the run are no longer in the input, such as {lost[0]}; choose another --output"
                    )
                return connection.sql(sql, params=params).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"where: {self.where}: {' '.join(str(error).split())}") from None


def _find_files(pattern: Location) -> list[str]:
    """Files of a path in order of their names: Parquet where there is any, else structure files; of an ingestion, its materials."""
    try:
        with errors_of_stores():
            if pattern.is_file():
                return [str(pattern)]
            if (pattern / RECORD).is_file() and (pattern / MATERIALS).is_dir():
                pattern = pattern / MATERIALS
    except OSError as error:
        raise TableError(f"{pattern}: cannot be read ({error})") from None
    files = (
        [url for url, _, _ in find_remote(str(pattern))] if is_url(str(pattern)) else _find_local(Path(str(pattern)))
    )
    if kept := [file for file in files if file.endswith(PARQUET)] or [
        file for file in files if is_structure_file(Path(file))
    ]:
        return kept
    what = "does not exist" if not files else f"holds {len(files)} files, none of them Parquet, CIF, POSCAR or JSON"
    raise TableError(
        f"{pattern}: {what}; give a materials table or structure files (a relative path starts at MAT2SPEC_HOME, if set)"
    )


def _find_local(pattern: Path) -> list[str]:
    found = pattern.rglob("*") if pattern.is_dir() else map(Path, glob.iglob(str(pattern), recursive=True))
    return sorted(str(path) for path in found if path.is_file() and not path.name.startswith("."))


def _check_table(file: str) -> bytes:
    """Make sure that a Parquet file is a materials table; its size and footer stand for its contents."""
    try:
        with errors_of_stores(), open_file(file) as stream:
            check_schema(pq.read_schema(stream), file)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(size - 8)
            footer = int.from_bytes(stream.read(4), "little") + 8
            stream.seek(size - footer)
            return size.to_bytes(8, "little") + stream.read()
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _read_file(file: str) -> bytes:
    try:
        with errors_of_stores(), open_file(file) as stream:
            return stream.read()
    except OSError as error:
        raise TableError(f"{file}: cannot be read ({error.strerror or error})") from None


def _shard_name(prefix: str, index: int) -> str:
    return f"{prefix}-{index:06d}"
