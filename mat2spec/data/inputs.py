"""What a screening reads: files found, rows counted and cut into shards, each shard a table of materials."""

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.data.files import is_structure_file, read_structure_files
from mat2spec.data.formats import stem
from mat2spec.data.materials import MATERIALS
from mat2spec.data.parquet_rows import read_parquet_rows
from mat2spec.data.schema import check_schema
from mat2spec.errors import ConfigError, Mat2SpecError, TableError
from mat2spec.run_directory import RECORD

PARQUET = ".parquet"


@dataclass(frozen=True)
class Shard:
    """The unit of work, of resumption and of output: some rows of one table, or some structure files.

    Args:
        name: Stem of its output files.
        files: One Parquet file, or structure files.
        rows: For a Parquet file, the positions of its rows; for structure files, None.
        repeated: Positions within the shard whose material_id came before.
    """

    name: str
    files: tuple[str, ...]
    rows: tuple[int, ...] | None
    repeated: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files if self.rows is None else self.rows)

    def to_json(self) -> dict[str, Any]:
        """Give the shard as plain values, to be sent."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Shard":
        """Read what `to_json` gave, also where lists have become arrays on the way."""
        rows = None if record["rows"] is None else tuple(map(int, record["rows"]))
        return cls(record["name"], tuple(record["files"]), rows, tuple(map(int, record["repeated"])))


@dataclass(frozen=True)
class Rows:
    """The rows of a shard.

    Args:
        table: Materials; a row that could not be read has NULLs.
        sources: Where each row comes from, for messages.
        refused: Why rows cannot be used, by position.
    """

    table: pa.Table
    sources: list[str]
    refused: dict[int, Mat2SpecError]


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
    def open(cls, pattern: Path, where: str | None = None) -> "MaterialsInput":
        """Find the files of a path: one file, a folder, or a glob.

        Raises:
            TableError: If there is nothing to read, or a table cannot be read or lacks a column.
            ConfigError: If a condition is given for structure files.
        """
        files = _find_files(pattern)
        tables = all(file.endswith(PARQUET) for file in files)
        if not tables and where is not None:
            raise ConfigError(f"where: {pattern} holds structure files, which have no columns; leave it out")
        digest = hashlib.sha256(f"{where}\n".encode())
        for file in files:
            digest.update(f"{os.path.relpath(file, os.path.commonpath([*files, str(pattern)]))}\n".encode())
            digest.update(_check_table(file) if tables else Path(file).read_bytes())
        return cls(tuple(files), where, tables, digest.hexdigest())

    def shards(self, rows_per_shard: int) -> list[Shard]:
        """Cut the input into shards; always the same ones for the same input. There is at least one, possibly empty.

        Raises:
            ConfigError: If the condition is no SQL or names no column.
        """
        if not self.tables:
            return list(self._shards_of_files(rows_per_shard))
        selected = self._selected_rows()
        shards: list[Shard] = []
        for index, file in enumerate(self.files):
            of_file = selected.filter(pa.array(selected["file"].to_numpy() == index))
            rows, repeated = of_file["row"].to_numpy(), of_file["repeated"].to_numpy()
            for start in range(0, len(rows), rows_per_shard):
                part = slice(start, start + rows_per_shard)
                again = tuple(np.flatnonzero(repeated[part]).tolist())
                shards.append(Shard(_shard_name(len(shards)), (file,), tuple(rows[part].tolist()), again))
        return shards or [Shard(_shard_name(0), self.files[:1], (), ())]

    def _selected_rows(self) -> pa.Table:
        """Position of every input row, and whether its material_id came before."""
        condition = f"WHERE ({self.where})" if self.where else ""
        sql = f"""
            SELECT file, row, material_id IS NOT NULL AND row_number() OVER (PARTITION BY material_id ORDER BY file, row) > 1 AS repeated
            FROM (SELECT list_position($files, filename) - 1 AS file, file_row_number AS row, material_id
                  FROM read_parquet($files, filename = true, file_row_number = true, union_by_name = true) {condition})
            ORDER BY file, row"""
        try:
            with duckdb.connect() as connection:
                return connection.sql(sql, params={"files": list(self.files)}).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"where: {self.where}: {' '.join(str(error).split())}") from None

    def _shards_of_files(self, files_per_shard: int) -> Iterator[Shard]:
        seen: set[str] = set()
        for start in range(0, len(self.files), files_per_shard):
            files = self.files[start : start + files_per_shard]
            stems = [stem(file) for file in files]
            repeated = tuple(i for i, stem in enumerate(stems) if stem in seen or stem in stems[:i])
            seen.update(stems)
            yield Shard(_shard_name(start // files_per_shard), files, None, repeated)


def read_shard(shard: Shard) -> Rows:
    """Read the materials of a shard; what cannot be read is refused with the reason, row by row."""
    if shard.rows is None:
        table, refused = read_structure_files(shard.files)
        sources = list(shard.files)
    else:
        table, refused = read_parquet_rows(shard.files[0], shard.rows), {}
        sources = [f"{shard.files[0]}, row {row}" for row in shard.rows]
    ids = table["material_id"].to_pylist()
    for i in shard.repeated:
        refused.setdefault(i, TableError(f"{ids[i]}: this material_id came before; only its first row is predicted"))
    for i, material_id in enumerate(ids):
        if material_id is None:
            refused.setdefault(i, TableError(f"{sources[i]}: material_id is NULL; give every row a name of its own"))
    return Rows(table, sources, refused)


def _find_files(pattern: Path) -> list[str]:
    """Files of a path in order of their names: Parquet where there is any, else structure files; of an ingestion, its materials."""
    if pattern.is_file():
        return [str(pattern)]
    if (pattern / RECORD).is_file() and (pattern / MATERIALS).is_dir():
        pattern = pattern / MATERIALS
    found = pattern.rglob("*") if pattern.is_dir() else map(Path, glob.iglob(str(pattern), recursive=True))
    files = sorted(str(path) for path in found if path.is_file() and not path.name.startswith("."))
    if kept := [file for file in files if file.endswith(PARQUET)] or [file for file in files if is_structure_file(Path(file))]:
        return kept
    what = "does not exist" if not files else f"holds {len(files)} files, none of them Parquet, CIF, POSCAR or JSON"
    raise TableError(f"{pattern}: {what}; give a materials table or structure files (a relative path starts at MAT2SPEC_HOME, if set)")


def _check_table(file: str) -> bytes:
    """Make sure that a Parquet file is a materials table; its size and footer stand for its contents."""
    try:
        check_schema(pq.read_schema(file), file)
        with open(file, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(size - 8)
            footer = int.from_bytes(stream.read(4), "little") + 8
            stream.seek(size - footer)
            return size.to_bytes(8, "little") + stream.read()
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _shard_name(index: int) -> str:
    return f"part-{index:06d}"
