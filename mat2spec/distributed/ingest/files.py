"""Ingestion on Ray: every structure in a user's files becomes one row of a materials table or one reject."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mat2spec.data.ingest.finalize import finalize, remove_staged
from mat2spec.distributed.ingest.read_task import ReadShard
from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts
from mat2spec.storage.progress import Progress

# isort: split
import ray.data

from mat2spec.config.ingestion import IngestConfig, ReadingConfig
from mat2spec.data.ingest.batches import Batch, make_batches
from mat2spec.data.ingest.listing import FileListing, list_sources
from mat2spec.errors import StorageError, counted
from mat2spec.provenance import environment
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory

SHARDS_WITHOUT_RAY = 3
"""Up to this many are read in this process, in less time than Ray takes to start (12 s)."""


@dataclass(frozen=True)
class Ingestion:
    """An ingestion and its output directory.

    Rows are first staged, shard by shard. When all are known, duplicate ids and contents are found, and the shards are
    moved to their final place. A kill at any moment leaves each shard of each step either done or to be done.

    Args:
        config: The settings.
        paths: Files, folders, globs or URLs; absolute.
        output: The output directory, absolute.
    """

    config: IngestConfig
    paths: tuple[str, ...]
    output: Path

    @property
    def _staged(self) -> Path:
        return self.output / "staged"

    def run(self) -> str:
        """Ingest the shards that are not done yet; return a line with the counts.

        Raises:
            TableError: If there is nothing to read.
            RunError: If the directory holds something else.
            StorageError: If the directory can no longer be written.
        """
        start = time.perf_counter()
        listing = list_sources(self.paths)
        identity = {
            "input": _fingerprint(listing),
            "reading": self.config.reading.model_dump(mode="json"),
            "rows_per_shard": self.config.rows_per_shard,
        }
        details = {
            "config": self.config.model_dump(mode="json"),
            "files": len(listing.sources),
            "ignored_files": sum(listing.ignored.values()),
            "found": listing.summary(),
            "versions": environment(),
        }
        final = RunDirectory(self.output, MATERIALS)
        staged = RunDirectory(self._staged, MATERIALS)
        final.claim(identity, details)
        if final.record["status"] != "finished":
            staged.claim(identity, {})
            batches = make_batches(listing.sources, self.config.rows_per_shard)
            list_seconds = time.perf_counter() - start
            timing = {"list_seconds": list_seconds, **self._stage(staged, batches)}
            finalize(staged, final, listing.rejects, timing)
        remove_staged(staged)
        return _summary(final.record, self.output)

    def _stage(self, staged: RunDirectory, batches: list[Batch]) -> dict[str, float]:
        """Read the shards that are not staged yet; return seconds and rows."""
        committed = staged.committed()
        missing = [batch for batch in batches if batch.name not in committed]
        start = time.time()
        started: list[float] = []
        rows = 0
        read = _read_in_process if len(missing) <= SHARDS_WITHOUT_RAY else _read_on_ray
        with Progress(len(batches), "shard", initial=len(batches) - len(missing)) as progress:
            for report in read(self._staged, missing, self.config.reading):
                if report["failed"]:
                    raise StorageError(
                        f"{self.output}: {report['failed']}; finished work is kept, run the same command to resume"
                    )
                started.append(report["started"])
                rows += report["rows"]
                progress.step(row=report["rows"], reject=report["rejects"])
        first_started = max(start, min(started, default=start))  # the clock of another machine may be behind
        return {"start_seconds": first_started - start, "read_seconds": time.time() - first_started, "rows": rows}


def _read_in_process(staged: Path, batches: Iterable[Batch], config: ReadingConfig) -> Iterator[dict[str, Any]]:
    read = ReadShard(staged, config)
    return (read({"batch": batch.to_json()}) for batch in batches)


def _read_on_ray(staged: Path, batches: Sequence[Batch], config: ReadingConfig) -> Iterator[dict[str, Any]]:
    with ray_session():
        rows = [{"batch": batch.to_json()} for batch in batches]
        shards = ray.data.from_items(rows, override_num_blocks=len(rows))
        yield from shards.map(ReadShard(staged, config)).iter_rows()


def _summary(record: dict[str, Any], output: Path) -> str:
    counts = record["counts"]
    return (
        f"{counted(counts['input'], 'structure')} in {record['found']}: {counted(counts[MATERIALS], 'row')} "
        f"({record['duplicates']} with the content of another), {counted(counts[REJECTS], 'reject')} in {output}"
    )


def _fingerprint(listing: FileListing) -> str:
    """SHA-256 that changes when a file is added, removed or changes its size."""
    digest = hashlib.sha256()
    for source in listing.sources:
        digest.update(f"{source.url}\t{source.size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
