"""Last step of every ingestion: mark duplicates and move staged shards to their final place."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.data.ingest.duplicates import find_duplicates
from mat2spec.storage.location import storage_errors
from mat2spec.storage.rejects import Reject, reject_table
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory


def finalize(
    staged: RunDirectory,
    final: RunDirectory,
    unlisted: Sequence[Reject],
    timing: Mapping[str, float],
    details: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Move staged shards to their final place and finish the run; after a kill, shards already moved are skipped.

    Args:
        staged: Directory of all shards, as they were read.
        final: Output directory; column `duplicate_of` is added, and rows with a repeated material_id become rejects.
        unlisted: Rejects that belong to no shard; they are written with the first.
        timing: Seconds of the previous steps, for the record.
        details: Further entries of the record.

    Raises:
        StorageError: If the output cannot be written.
    """
    assert isinstance(staged.path, Path)  # shards are staged on a local disk
    start = time.perf_counter()
    files = sorted((staged.path / MATERIALS).glob("*.parquet"))
    duplicates = find_duplicates(files)
    committed = final.committed()
    with storage_errors(final.path):
        for position, file in enumerate(files):
            if file.stem in committed:
                continue
            table, repeated = duplicates.split(position, pq.read_table(file))
            others = reject_table([*repeated, *(unlisted if position == 0 else ())])
            rejects = pa.concat_tables([pq.read_table(staged.path / REJECTS / file.name), others])
            final.commit(file.stem, table, rejects)
        rows = sum(staged.counts().values()) + len(unlisted)
        seconds = {**timing, "finalize_seconds": time.perf_counter() - start}
        stages = {name: round(value, 3) for name, value in seconds.items()}
        final.finish(rows, {"stages": stages, **duplicates.counts(), **details})
    remove_staged(staged)


def remove_staged(staged: RunDirectory) -> None:
    """Remove staged shards. A kill just before this step leaves them beside a finished run, so callers repeat it."""
    shutil.rmtree(str(staged.path), ignore_errors=True)
