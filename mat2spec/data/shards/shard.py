"""Shards of the input of a screening: rows of a table, or structure files, that are read together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mat2spec.data.materials.structure_files import read_structure_files
from mat2spec.errors import Mat2SpecError, TableError
from mat2spec.storage.parquet_rows import read_parquet_rows
from mat2spec.structure.readers.formats import stem


@dataclass(frozen=True)
class Shard:
    """Rows of one table, or structure files: the unit of work, of resuming and of output.

    Args:
        name: Stem of its output files.
        files: One Parquet file, or structure files.
        rows: Positions of rows in a Parquet file; None for structure files.
        repeated: Positions within the shard whose material_id occurs in an earlier row.
    """

    name: str
    files: tuple[str, ...]
    rows: Sequence[int] | None
    repeated: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files if self.rows is None else self.rows)

    def part(self, start: int, stop: int) -> "Shard":
        """Return the part of the shard from position `start` to before `stop`."""
        repeated = tuple(i - start for i in self.repeated if start <= i < stop)
        if self.rows is None:
            return replace(self, files=self.files[start:stop], repeated=repeated)
        return replace(self, rows=self.rows[start:stop], repeated=repeated)

    def to_json(self) -> str:
        """Return the shard as text, to be sent to another process; a range of rows as its two ends."""
        is_range = isinstance(self.rows, range)
        rows = [self.rows.start, self.rows.stop] if isinstance(self.rows, range) else self.rows
        return json.dumps([self.name, self.files, rows, is_range, self.repeated])

    @classmethod
    def from_json(cls, text: str) -> "Shard":
        """Read what `to_json` returned."""
        name, files, rows, is_range, repeated = json.loads(text)
        if rows is not None:
            rows = range(*rows) if is_range else tuple(rows)
        return cls(name, tuple(files), rows, tuple(repeated))


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard.

    Args:
        table: Materials; a row that could not be read has NULLs.
        sources: Origin of each row, for errors.
        errors: Errors of rows that cannot be used, by position.
    """

    table: pa.Table
    sources: list[str]
    errors: dict[int, Mat2SpecError]


def as_range(rows: np.ndarray) -> Sequence[int]:
    """Return ascending row positions, as a range where they are consecutive: a screening has many of them."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return range(int(rows[0]), int(rows[-1]) + 1)
    return tuple(rows.tolist())


def read_shard(shard: Shard) -> ShardRows:
    """Read the materials of a shard, with an error for each row that cannot be read."""
    errors: dict[int, Mat2SpecError] = {}
    if shard.rows is None:
        table, errors = read_structure_files(shard.files)
    else:
        table = read_parquet_rows(shard.files[0], shard.rows)
    sources = [source_of(shard, position) for position in range(len(shard))]
    ids = table["material_id"].to_pylist()
    for i in shard.repeated:
        rule = "an earlier row has this material_id; only the first is predicted"
        errors.setdefault(i, TableError(f"{ids[i]}: {rule}"))
    for i, material_id in enumerate(ids):
        if material_id is None:
            errors.setdefault(i, TableError(f"{sources[i]}: material_id is NULL; give every row a unique id"))
    return ShardRows(table, sources, errors)


def material_id_of(shard: Shard, position: int) -> str | None:
    """Return the material_id of one row, read by itself."""
    if shard.rows is None:
        return stem(shard.files[position])
    return read_parquet_rows(shard.files[0], [shard.rows[position]], ("material_id",))["material_id"][0].as_py()


def source_of(shard: Shard, position: int) -> str:
    """Return the origin of one row: its file, or its table and row number."""
    return shard.files[position] if shard.rows is None else f"{shard.files[0]}, row {shard.rows[position]}"
