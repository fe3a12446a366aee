"""An ingestion on the cluster: every structure of a user's files becomes one row of a materials table or one reject."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mat2spec.data.ingest.finalize import clear, place
from mat2spec.distributed.ingest.read_task import Read
from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts
from mat2spec.storage.progress import Progress

# isort: split
import ray.data

from mat2spec.config.ingestion import IngestConfig, ReadingConfig
from mat2spec.data.ingest.batches import Batch, cut
from mat2spec.data.ingest.listing import Listing, list_sources
from mat2spec.errors import StorageError
from mat2spec.provenance import environment
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory

SHARDS_WITHOUT_RAY = 3
"""So few are read in this process in less time than a Ray takes to start (12 s)."""


@dataclass(frozen=True)
class Ingestion:
    """An ingestion and the directory that holds it.

    Rows are staged first, shard by shard; then, with all known, the ids and contents that came before are found and the rows moved to
    their place. A kill at any moment leaves each shard of each step done or to be done.

    Args:
        config: The settings.
        paths: Where structures are: absolute paths, or URLs.
        output: The directory, absolute.
    """

    config: IngestConfig
    paths: tuple[str, ...]
    output: Path

    def run(self) -> str:
        """Ingest what is not yet done; give a line that says what the directory holds.

        Raises:
            TableError: If there is nothing to read.
            RunError: If the directory holds something else.
            StorageError: If it can no longer be written.
        """
        start = time.perf_counter()
        listing = list_sources(self.paths)
        identity = {
            "input": _fingerprint(listing),
            "reading": self.config.reading.model_dump(mode="json"),
            "rows_per_shard": self.config.rows_per_shard,
        }
        config = self.config.model_dump(mode="json")
        details = {
            "config": config,
            "files": len(listing.sources),
            "ignored_files": sum(listing.ignored.values()),
            "found": listing.told(),
        }
        final, staged = (RunDirectory(path, MATERIALS) for path in (self.output, self.output / "staged"))
        final.claim(identity, details | {"versions": environment()})
        if final.read_record()["status"] != "finished":
            staged.claim(identity, {})
            batches = cut(listing.sources, self.config.rows_per_shard)
            timing = {"list_seconds": time.perf_counter() - start, **self._stage(staged, batches)}
            place(staged, final, listing.rejects, timing)
        clear(staged)
        return _told(final.read_record(), self.output)

    def _stage(self, staged: RunDirectory, batches: list[Batch]) -> dict[str, float]:
        done = staged.committed()
        todo = [batch for batch in batches if batch.name not in done]
        start = began = time.time()
        progress = Progress(len(todo), "shards")
        rows = 0
        for row in (
            _read_here(staged.path, todo, self.config.reading)
            if len(todo) <= SHARDS_WITHOUT_RAY
            else self._read(staged.path, todo)
        ):
            if row["failed"]:
                raise StorageError(
                    f"{self.output}: {row['failed']}; what is finished is kept, and the same command goes on from here"
                )
            began = max(
                start, row["began"] if not rows else min(began, row["began"])
            )  # another machine's clock may differ
            rows += row["rows"]
            progress.step(rows=row["rows"], rejects=row["rejects"])
        return {"start_seconds": began - start, "read_seconds": time.time() - began, "rows": rows}

    def _read(self, staged: Path, todo: list[Batch]) -> Iterator[dict[str, Any]]:
        with ray_session():
            shards = ray.data.from_items([{"batch": batch.to_json()} for batch in todo], override_num_blocks=len(todo))
            yield from shards.map(Read(staged, self.config.reading)).iter_rows()


def _read_here(staged: Path, todo: Iterable[Batch], config: ReadingConfig) -> Iterator[dict[str, Any]]:
    read = Read(staged, config)
    return (read({"batch": batch.to_json()}) for batch in todo)


def _told(record: dict[str, Any], output: Path) -> str:
    counts = record["counts"]
    rows = f"{counts[MATERIALS]} rows, {record['duplicates']} of them with the content of another"
    return f"{counts['input']} structures in {record['found']}: {rows}, {counts[REJECTS]} rejects in {output}"


def _fingerprint(listing: Listing) -> str:
    """SHA-256 that changes when a file comes, goes or changes its size."""
    digest = hashlib.sha256()
    for source in listing.sources:
        digest.update(f"{source.url}\t{source.size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
