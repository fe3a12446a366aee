"""The last step of every ingestion: staged shards move to their place, with duplicates marked."""

import shutil
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.data.ingest.duplicates import Duplicates
from mat2spec.storage.location import storage
from mat2spec.storage.rejects import Reject, reject_table
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory


def place(
    staged: RunDirectory,
    final: RunDirectory,
    unlisted: Sequence[Reject],
    timing: Mapping[str, float],
    details: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Move staged shards to their place and close the run; what was moved before a kill is not moved again.

    Args:
        staged: Shards as they were read, all of them.
        final: Where they go; column `duplicate_of` is added, and rows whose material_id came before become rejects.
        unlisted: Rejects that belong to no shard; they go with the first.
        timing: Seconds of the steps before, for the record.
        details: What else the record should say.

    Raises:
        StorageError: If it cannot be written.
    """
    start = time.perf_counter()
    files = sorted((staged.path / MATERIALS).glob("*.parquet"))
    duplicates = Duplicates.find(files)
    done = final.committed()
    with storage(final.path):
        for position, file in enumerate(files):
            if file.stem not in done:
                table, repeated = duplicates.mark(position, pq.read_table(file))
                rejects = pq.read_table(staged.path / REJECTS / file.name)
                final.commit(
                    file.stem,
                    table,
                    pa.concat_tables([rejects, reject_table([*repeated, *(unlisted if position == 0 else ())])]),
                )
        rows = sum(staged.counts().values()) + len(unlisted)
        seconds = {**timing, "place_seconds": time.perf_counter() - start}
        final.finish(
            rows, {"stages": {key: round(value, 3) for key, value in seconds.items()}, **duplicates.counts(), **details}
        )
    clear(staged)


def clear(staged: RunDirectory) -> None:
    """Remove staged shards; of a finished run they are left where it was killed just before."""
    shutil.rmtree(staged.path, ignore_errors=True)
