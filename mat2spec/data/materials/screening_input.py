"""Input of a screening: its files, and their rows divided into shards."""

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
from mat2spec.data.shards.shard import Shard, as_range
from mat2spec.data.materials.structure_files import is_structure_file
from mat2spec.errors import ConfigError, TableError, counted
from mat2spec.storage.location import (
    Location,
    connect_duckdb,
    is_url,
    list_remote_files,
    open_file,
    store_errors_as_oserror,
)
from mat2spec.storage.run_directory import MATERIALS, RECORD
from mat2spec.structure.readers.archives import is_archive, without_compression
from mat2spec.structure.readers.formats import is_table, stem

PARQUET = ".parquet"

_READERS = 16
"""Files read at the same time: an object store answers each after some 30 ms."""

_NO_ROWS = pa.table({"material_id": pa.array([], pa.string()), "rows": pa.array([], pa.int64())})


@dataclass(frozen=True)
class MaterialsInput:
    """All rows of the input of a screening, in (file, row) order.

    Args:
        files: Parquet tables, or structure files, in order.
        where: SQL condition on the rows of tables.
        tables: Whether the files are Parquet tables.
        fingerprint: SHA-256 that changes when a file or the condition does.
    """

    files: tuple[str, ...]
    where: str | None
    tables: bool
    fingerprint: str

    @classmethod
    def open(cls, pattern: Location, where: str | None = None) -> "MaterialsInput":
        """Open the files at a path or URL: one file, a folder, or a glob.

        Raises:
            TableError: If there is nothing to read, or a table cannot be read or lacks a column.
            ConfigError: If a condition is given for structure files.
        """
        files = _find_files(pattern)
        tables = all(file.endswith(PARQUET) for file in files)
        if not tables and where is not None:
            raise ConfigError(f"where: {pattern} holds structure files, which have no columns; remove the condition")
        digest = hashlib.sha256(f"{where}\n".encode())
        parent = os.path.commonpath([*files, str(pattern)])
        with ThreadPoolExecutor(_READERS) as readers:
            for file, content in zip(files, readers.map(_check_table if tables else _read_file, files), strict=True):
                digest.update(f"{os.path.relpath(file, parent)}\n".encode())
                digest.update(content)
        return cls(tuple(files), where, tables, digest.hexdigest())

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
        selected = self._rows_to_do(done)
        shards: list[Shard] = []
        for files, rows, repeated in self._group_by_table(selected):
            for start in range(0, len(repeated), rows_per_shard):
                part = slice(start, start + rows_per_shard)
                repeated_rows = tuple(np.flatnonzero(repeated[part]).tolist())
                name = _shard_name(prefix, len(shards))
                if rows is None:
                    shards.append(Shard(name, files[part], None, repeated_rows))
                else:
                    shards.append(Shard(name, files, as_range(rows[part]), repeated_rows))
        if shards or not self.tables:
            return shards or [Shard(_shard_name(prefix, 0), (), None, ())]
        return [Shard(_shard_name(prefix, 0), self.files[:1], (), ())]

    def _group_by_table(self, selected: pa.Table) -> Iterator[tuple[tuple[str, ...], np.ndarray | None, np.ndarray]]:
        """Groups that may share a shard (rows of one table, structure files): files, rows, column `repeated`."""
        index, rows, repeated = (selected[name].to_numpy() for name in ("file", "row", "repeated"))
        if not self.tables:
            yield tuple(self.files[i] for i in index), None, repeated
            return
        starts = np.searchsorted(index, np.arange(len(self.files) + 1))
        for i, file in enumerate(self.files):
            part = slice(starts[i], starts[i + 1])
            yield (file,), rows[part], repeated[part]

    def _rows_to_do(self, done: pa.Table | None) -> pa.Table:
        """Positions of input rows that are not done, and whether an earlier row has the same material_id."""
        condition = f"WHERE ({self.where})" if self.where else ""
        rows = """SELECT list_position($files, filename) - 1 AS file, file_row_number AS row, material_id
                  FROM read_parquet($files, filename = true, file_row_number = true, union_by_name = true)"""
        if not self.tables:
            rows = "SELECT unnest(range(len($files))) AS file, 0 AS row, unnest($stems) AS material_id"
        numbered = f"""
            SELECT *, row_number() OVER (PARTITION BY material_id ORDER BY file, row) AS nth
            FROM ({rows} {condition})"""
        to_do = f"""
            SELECT file, row, numbered.material_id IS NOT NULL AND nth > 1 AS repeated
            FROM ({numbered}) AS numbered LEFT JOIN done ON numbered.material_id IS NOT DISTINCT FROM done.material_id
            WHERE nth > coalesce(done.rows, 0) ORDER BY file, row"""
        missing = f"""
            SELECT done.material_id FROM done LEFT JOIN
                (SELECT material_id, max(nth) AS rows FROM ({numbered}) GROUP BY ALL) AS input
            ON input.material_id IS NOT DISTINCT FROM done.material_id WHERE done.rows > coalesce(input.rows, 0)"""
        params: dict[str, Any] = {"files": list(self.files)}
        if not self.tables:
            params["stems"] = [stem(file) for file in self.files]
        try:
            with connect_duckdb(self.files) as connection:
                connection.register("done", _NO_ROWS if done is None else done)
                if done is not None and (ids := [row[0] for row in connection.execute(missing, params).fetchall()]):
                    rule = f"the input lacks {counted(len(ids), 'material')} of the run, such as {ids[0]}"
                    raise TableError(f"{rule}; choose another --output")
                return connection.sql(to_do, params=params).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"where: {self.where}: {' '.join(str(error).split())}") from None


def _find_files(pattern: Location) -> list[str]:
    """Files at a path, sorted by name: Parquet files if any, else structure files; of an ingestion, its table."""
    try:
        with store_errors_as_oserror():
            if pattern.is_file():
                _refuse_unread_kind(pattern)
                return [str(pattern)]
            if (pattern / RECORD).is_file() and (pattern / MATERIALS).is_dir():
                pattern = pattern / MATERIALS
    except OSError as error:
        raise TableError(f"{pattern}: cannot be read ({error})") from None
    files = (
        [url for url, _, _ in list_remote_files(str(pattern))]
        if is_url(str(pattern))
        else _find_local(Path(str(pattern)))
    )
    if tables := [file for file in files if file.endswith(PARQUET)]:
        return tables
    if structures := [file for file in files if is_structure_file(Path(file))]:
        return structures
    rule = (
        f"holds {counted(len(files), 'file')}, none of them Parquet, CIF, POSCAR or JSON" if files else "does not exist"
    )
    way_out = "give a materials table or structure files (a relative path starts at MAT2SPEC_HOME, if set)"
    raise TableError(f"{pattern}: {rule}; {way_out}")


def _refuse_unread_kind(file: Location) -> None:
    """Refuse a file of many structures that only an ingestion reads.

    Raises:
        TableError: If it is an archive, or a table other than Parquet.
    """
    is_other_table = is_table(without_compression(file.name)) and not file.name.endswith(PARQUET)
    if is_archive(file.name) or is_other_table:
        kind = "a table that is not Parquet" if is_other_table else "an archive"
        way_out = f"first write a materials table: mat2spec ingest files {file} --output TABLE"
        raise TableError(f"{file}: is {kind}, which a screening does not read; {way_out}")


def _find_local(pattern: Path) -> list[str]:
    paths = pattern.rglob("*") if pattern.is_dir() else map(Path, glob.iglob(str(pattern), recursive=True))
    return sorted(str(path) for path in paths if path.is_file() and not path.name.startswith("."))


def _check_table(file: str) -> bytes:
    """Check that a Parquet file is a materials table; return its size and footer, which stand for its content."""
    try:
        with store_errors_as_oserror(), open_file(file) as stream:
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
        with store_errors_as_oserror(), open_file(file) as stream:
            return stream.read()
    except OSError as error:
        raise TableError(f"{file}: cannot be read ({error.strerror or error})") from None


def _shard_name(prefix: str, index: int) -> str:
    return f"{prefix}-{index:06d}"
