"""Shards: rows of a Parquet table, or whole files, that are read, written and retried together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mat2spec.errors import Mat2SpecError, StorageError, TableError
from mat2spec.storage.location import storage_error_message
from mat2spec.storage.tables import read_parquet_rows
from mat2spec.structure.readers.names import stem


@dataclass(frozen=True)
class Shard:
    """Rows of one Parquet table, or whole files: the unit of work, of resuming and of output.

    Args:
        name: Stem of its output files.
        files: Paths or URLs: one Parquet table, or files that are read as a whole.
        rows: Positions of rows in the Parquet table; None: the files as a whole.
        repeated: Positions within the shard whose material_id occurs in an earlier row.
        labels: Names of whole files in messages and ids, such as their paths below the folder that the user gave; as
            many as files, or none, and then their paths are used.
    """

    name: str
    files: tuple[str, ...]
    rows: Sequence[int] | None = None
    repeated: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files if self.rows is None else self.rows)

    def part(self, start: int, stop: int) -> "Shard":
        """Return the part of the shard from position `start` to before `stop`."""
        repeated = tuple(i - start for i in self.repeated if start <= i < stop)
        if self.rows is None:
            return replace(self, files=self.files[start:stop], repeated=repeated, labels=self.labels[start:stop])
        return replace(self, rows=self.rows[start:stop], repeated=repeated)

    def to_json(self) -> str:
        """Return the shard as text, to be sent to another process; a range of rows as its two ends."""
        is_range = isinstance(self.rows, range)
        rows = [self.rows.start, self.rows.stop] if isinstance(self.rows, range) else self.rows
        return json.dumps([self.name, self.files, rows, is_range, self.repeated, self.labels])

    @classmethod
    def from_json(cls, text: str) -> "Shard":
        """Read what `to_json` returned."""
        name, files, rows, is_range, repeated, labels = json.loads(text)
        if rows is not None:
            rows = range(*rows) if is_range else tuple(rows)
        return cls(name, tuple(files), rows, tuple(repeated), tuple(labels))


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard of a materials table.

    Args:
        table: Materials.
        sources: Origin of each row, for errors.
        errors: Errors of rows that cannot be used, by position.
    """

    table: pa.Table
    sources: list[str]
    errors: dict[int, Mat2SpecError]


def shard_name(prefix: str, index: int) -> str:
    """Return the name of a shard, which sorts by its number."""
    return f"{prefix}-{index:06d}"


def as_range(rows: np.ndarray) -> Sequence[int]:
    """Return ascending row positions, as a range where they are consecutive: a screening has many of them."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return range(int(rows[0]), int(rows[-1]) + 1)
    return tuple(rows.tolist())


def read_shard(shard: Shard) -> ShardRows:
    """Read the rows of a shard of a materials table, with an error for each row that cannot be used.

    Raises:
        StorageError: If the table is missing or damaged; no row is responsible for that.
    """
    assert shard.rows is not None
    try:
        table = read_parquet_rows(shard.files[0], shard.rows)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(storage_error_message(shard.files[0], error, "read")) from None
    sources = [source_of(shard, position) for position in range(len(shard))]
    ids = table["material_id"].to_pylist()
    errors: dict[int, Mat2SpecError] = {}
    for i in shard.repeated:
        rule = "an earlier row has this material_id; only the first is predicted"
        errors[i] = TableError(f"{ids[i]}: {rule}")
    for i, material_id in enumerate(ids):
        if not material_id:
            rule = "material_id is NULL or empty; give every row a unique id"
            errors.setdefault(i, TableError(f"{sources[i]}: {rule}"))
    return ShardRows(table, sources, errors)


def material_id_of(shard: Shard, position: int) -> str | None:
    """Return the material_id of one row, read by itself; of a whole file its stem."""
    if shard.rows is None:
        return stem(shard.files[position])
    return read_parquet_rows(shard.files[0], [shard.rows[position]], ("material_id",))["material_id"][0].as_py()


def source_of(shard: Shard, position: int) -> str:
    """Return the origin of one row: its file, or its table and row number."""
    return shard.files[position] if shard.rows is None else f"{shard.files[0]}, row {shard.rows[position]}"
