"""Last step of every ingestion: mark duplicates and move staged shards to their final place."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from mat2spec.data.ingest.duplicates import Duplicates, find_duplicates
from mat2spec.storage.location import remove_tree, storage_errors, store_errors_as_oserror
from mat2spec.storage.rejects import Reject, reject_table
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory, read_parquet

STAGED = "staged"
"""Folder, in the output of an ingestion, of the shards as they were read."""

_WRITERS = 4
"""Shards that are moved at once: an object store answers each request after some 30 ms, and each is in memory."""


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
    start = time.perf_counter()
    with storage_errors(final.path), store_errors_as_oserror():
        names = sorted(staged.committed())
        duplicates = find_duplicates([str(staged.path / MATERIALS / f"{name}.parquet") for name in names])
        committed = final.committed()

        def move(position: int) -> None:
            if names[position] not in committed:
                _move(staged, final, names[position], position, duplicates, unlisted if position == 0 else ())

        with ThreadPoolExecutor(_WRITERS) as writers:
            list(writers.map(move, range(len(names))))
        rows = sum(staged.counts().values()) + len(unlisted)
        seconds = {**timing, "finalize_seconds": time.perf_counter() - start}
        stages = {name: round(value, 3) for name, value in seconds.items()}
        final.finish(rows, {"stages": stages, **duplicates.counts(), **details})
    remove_staged(staged)


def _move(
    staged: RunDirectory,
    final: RunDirectory,
    name: str,
    position: int,
    duplicates: Duplicates,
    unlisted: Sequence[Reject],
) -> None:
    table, repeated = duplicates.split(position, read_parquet(staged.path / MATERIALS / f"{name}.parquet"))
    rejects = read_parquet(staged.path / REJECTS / f"{name}.parquet")
    final.commit(name, table, pa.concat_tables([rejects, reject_table([*repeated, *unlisted])]))


def remove_staged(staged: RunDirectory) -> None:
    """Remove staged shards. A kill just before this step leaves them beside a finished run, so callers repeat it.

    Raises:
        StorageError: If the storage refuses it.
    """
    with storage_errors(staged.path):
        remove_tree(staged.path)
