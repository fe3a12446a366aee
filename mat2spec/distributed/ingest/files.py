"""Ingestion: every structure in a user's files becomes one row of a materials table or one reject."""

import time
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mat2spec.config import ReadingConfig
from mat2spec.data.ingest.finalize import STAGED, finalize, remove_staged
from mat2spec.data.ingest.listing import FileListing
from mat2spec.data.ingest.planning import plan_shards
from mat2spec.data.ingest.reading import ReadStep
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits
from mat2spec.distributed.ingest.processing import process_shards
from mat2spec.errors import TableError, counted
from mat2spec.provenance import environment
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import Location, remove_tree, storage_errors, store_errors_as_oserror
from mat2spec.storage.progress import Progress
from mat2spec.storage.run_directory import MATERIALS, RECORD, REJECTS, RunDirectory

SHARDS_WITHOUT_RAY = 3
"""Up to this many are read without Ray."""


@dataclass(frozen=True)
class Ingestion:
    """An ingestion and its output directory.

    Rows are first staged, shard by shard. When all are known, duplicate ids and contents are found, and the shards are
    moved to their final place. A kill at any moment leaves each shard of each step either done or to be done.

    Args:
        listing: The files.
        output: The output directory, absolute.
        reading: How structures are read.
        rows_per_shard: Files, or table rows, that are read and written together.
        limits: Limits of the processes that read them.
    """

    listing: FileListing
    output: Location
    reading: ReadingConfig
    rows_per_shard: int
    limits: ShardLimits

    @property
    def directory(self) -> RunDirectory:
        """The output directory."""
        return RunDirectory(self.output, MATERIALS)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that must stay the same when the ingestion is resumed."""
        return {
            "input": self.listing.fingerprint,
            "reading": self.reading.model_dump(mode="json"),
            "rows_per_shard": self.rows_per_shard,
        }

    @property
    def needs_ray(self) -> bool:
        """Whether there are too many shards for one process."""
        return len(self._shards) > SHARDS_WITHOUT_RAY

    @cached_property
    def _shards(self) -> list[Shard]:
        return plan_shards(self.listing.sources, self.rows_per_shard)

    def discard_other(self) -> None:
        """Empty the output directory unless it holds this ingestion, for a caller to whom the directory belongs.

        The record gets another identity before anything is removed, so that after a kill the rest is removed, too.
        """
        with storage_errors(self.output), store_errors_as_oserror():
            if (self.output / RECORD).exists():
                directory = self.directory
                if directory.record["identity"] == self.identity:
                    return
                directory.note(identity={}, status="running")
            remove_tree(self.output)

    def run(self, config: dict[str, Any]) -> str:
        """Ingest the shards that are not done yet; return a line with the counts.

        Args:
            config: Settings of the command, for the record.

        Raises:
            RunError: If the directory holds something else.
            TableError: If the files hold no structure, as tables without rows; nothing is left behind.
            StorageError: If the directory can no longer be written.
            UnfinishedError: If more files kill their process than the limits allow.
        """
        details = {
            "config": config,
            **({"input": {"path": ", ".join(config["paths"])}} if "paths" in config else {}),
            "files": len(self.listing.sources),
            "ignored_files": sum(self.listing.ignored.values()),
            "found": self.listing.summary(),
            "versions": environment(),
        }
        final = self.directory
        staged = RunDirectory(self.output / STAGED, MATERIALS)
        final.claim(self.identity, details)
        if final.record["status"] != "finished":
            staged.claim(self.identity, {})
            start = time.perf_counter()
            shards = self._shards
            timing = {"plan_seconds": time.perf_counter() - start, **self._stage(staged, shards)}
            if not sum(staged.counts().values()) and not self.listing.rejects:
                remove_tree(self.output)
                raise TableError(f"{self.listing.sources[0].url}: holds no structure; nothing to do")
            finalize(staged, final, self.listing.rejects, timing)
        remove_staged(staged)
        create_catalog(self.output, None, MATERIALS)
        return _summary(final.record, self.output)

    def _stage(self, staged: RunDirectory, shards: list[Shard]) -> dict[str, float]:
        """Read the shards that are not staged yet; return seconds and rows."""
        committed = staged.committed()
        missing = [shard for shard in shards if shard.name not in committed]
        start = time.perf_counter()
        first_seconds = 0.0
        rows = 0
        step = ReadStep(staged, self.limits, self.reading)
        with (
            Progress(len(shards), "shard", initial=len(shards) - len(missing)) as progress,
            closing(process_shards(step, missing, SHARDS_WITHOUT_RAY)) as reports,
        ):
            for report in reports:
                first_seconds = first_seconds or time.perf_counter() - start
                rows += report.results
                progress.step(row=report.results, reject=report.rejects)
        return {"first_shard_seconds": first_seconds, "read_seconds": time.perf_counter() - start, "rows": rows}


def _summary(record: dict[str, Any], output: Location) -> str:
    counts = record["counts"]
    return (
        f"{counted(counts['input'], 'structure')} in {record['found']}: {counted(counts[MATERIALS], 'row')} "
        f"({record['duplicates']} with the content of another), {counted(counts[REJECTS], 'reject')} in {output}"
    )
