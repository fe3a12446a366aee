"""The shards of a screening's input: some rows of a table, or some structure files, read together."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mat2spec.data.materials.structure_files import read_structure_files
from mat2spec.errors import Mat2SpecError, TableError
from mat2spec.storage.parquet_rows import read_parquet_rows
from mat2spec.structure.readers.formats import stem


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
    rows: Sequence[int] | None
    repeated: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files if self.rows is None else self.rows)

    def part(self, start: int, stop: int) -> "Shard":
        """Give the rows from one position to before another."""
        repeated = tuple(i - start for i in self.repeated if start <= i < stop)
        if self.rows is None:
            return replace(self, files=self.files[start:stop], repeated=repeated)
        return replace(self, rows=self.rows[start:stop], repeated=repeated)

    def to_json(self) -> dict[str, Any]:
        """Give the shard as plain values, to be sent."""
        return asdict(self) | {"rows": self.rows if self.rows is None else tuple(self.rows)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Shard":
        """Read what `to_json` gave, also where lists have become arrays on the way."""
        rows = None if record["rows"] is None else as_range(np.array(record["rows"], np.int64))
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


def as_range(rows: np.ndarray) -> Sequence[int]:
    """Give ascending positions of rows; of those that follow each other only the ends are kept, for a screening has many."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return range(int(rows[0]), int(rows[-1]) + 1)
    return tuple(rows.tolist())


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


def material_id_of(shard: Shard, position: int) -> str | None:
    """Give the name of one row, read by itself."""
    if shard.rows is None:
        return stem(shard.files[position])
    return read_parquet_rows(shard.files[0], [shard.rows[position]], ("material_id",))["material_id"][0].as_py()


def source_of(shard: Shard, position: int) -> str:
    """Say where one row lies."""
    return shard.files[position] if shard.rows is None else f"{shard.files[0]}, row {shard.rows[position]}"
