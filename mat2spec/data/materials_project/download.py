"""Download from the Materials Project into a materials table, shard by shard, in threads of this process (no Ray)."""

import hashlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.config.materials_project import MaterialsProjectConfig
from mat2spec.data.ingest.finalize import finalize, remove_staged
from mat2spec.data.materials_project.client import MaterialsProject, read_key
from mat2spec.data.materials_project.fetch import ShardFetcher, list_materials, read_ids
from mat2spec.errors import RunError, counted
from mat2spec.provenance import environment
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.location import storage_errors
from mat2spec.storage.progress import Progress
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory

_LISTING = "listing.parquet"

_UNKNOWN = "unknown"

LICENSE = "CC BY 4.0; materials of GNoME: CC BY-NC 4.0 (column license)"


@dataclass(frozen=True)
class Download:
    """A download and its output directory.

    The ids are listed first and saved, so that a resumed download has the same shards. Then each shard is fetched and
    staged. When all are staged, duplicates are marked and the shards move to their final place. A kill at any moment
    leaves each shard of each step either done or to be done.

    Args:
        config: The settings.
        output: The output directory, absolute.
        ids: File with a list of ids, absolute, if there is one.
    """

    config: MaterialsProjectConfig
    output: Path
    ids: Path | None

    def run(self) -> str:
        """Fetch the shards that are missing; return a line with the counts.

        Raises:
            ConfigError: If there is no key, the key or the query is refused, or no material meets the conditions.
            RunError: If the directory holds something else, or another release of the database.
            ServiceError: If the Materials Project does not answer.
            StorageError: If the directory can no longer be written.
        """
        ids = read_ids(self.ids) if self.ids else None
        final = RunDirectory(self.output, MATERIALS)
        staged = RunDirectory(self.output / "staged", MATERIALS)
        resumed = self.output.exists() and any(self.output.iterdir())
        if resumed:
            final.claim(self._identity(ids), {})
            if final.record["status"] == "finished":
                remove_staged(staged)
                return _summary(final.record, self.output)
        project = MaterialsProject(read_key(), self.config.download)
        release = project.database_version
        if resumed:
            _check_release(final, release)
        start = time.perf_counter()
        if not (staged.path / _LISTING).exists():
            self._start(final, staged, project, self._list(project, ids))
        timing = {"list_seconds": time.perf_counter() - start}
        start = time.perf_counter()
        self._fetch(project, staged, f"Materials Project {final.record['database_version']}")
        timing |= {"fetch_seconds": time.perf_counter() - start}
        finalize(staged, final, (), timing, {"missing": _count_rejects_by_stage(staged)})
        return _summary(final.record, self.output)

    def _identity(self, ids: list[str] | None) -> dict[str, Any]:
        """Settings that must be the same when a download is resumed."""
        conditions = dict(sorted(self.config.conditions.items())) | {"include_gnome": self.config.query.include_gnome}
        query = {name: list(value) if isinstance(value, tuple) else value for name, value in conditions.items()}
        identity: dict[str, Any] = {"what": self.config.what, "query": query}
        if ids:
            identity["ids"] = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        if self.config.what == "phdos":
            identity["phonon_method"] = self.config.phonon_method
        return identity | {"rows_per_shard": self.config.download.rows_per_shard}

    def _list(self, project: MaterialsProject, ids: list[str] | None) -> list[str]:
        if ids is None:
            return list_materials(project, self.config)
        project.summaries(ids[:1], ["material_id"])  # checks the key before anything is written
        return ids

    def _start(self, final: RunDirectory, staged: RunDirectory, project: MaterialsProject, ids: list[str]) -> None:
        details = {
            "config": self.config.model_dump(mode="json"),
            "database_version": project.database_version,
            "endpoint": project.endpoint,
            "license": LICENSE,
            "versions": environment() | {name: version(name) for name in ("mp-api", "emmet-core")},
        }
        final.claim(self._identity(ids if self.ids else None), details)
        staged.claim({}, {})
        with storage_errors(self.output):
            write_parquet(staged.path / _LISTING, pa.table({"material_id": ids}))

    def _fetch(self, project: MaterialsProject, staged: RunDirectory, source: str) -> None:
        ids = pq.read_table(staged.path / _LISTING)["material_id"].to_pylist()
        size = self.config.download.rows_per_shard
        shards = {
            f"part-{index:06d}": ids[start : start + size] for index, start in enumerate(range(0, len(ids), size))
        }
        committed = staged.committed()
        missing = {name: shard_ids for name, shard_ids in shards.items() if name not in committed}
        fetcher = ShardFetcher(project, self.config, source)

        def fetch(name: str, material_ids: list[str]) -> tuple[int, int]:
            tables = fetcher.fetch(material_ids)
            with storage_errors(self.output):
                staged.commit(name, tables.results, tables.rejects)
            return len(tables.results), len(tables.rejects)

        done = len(shards) - len(missing)
        with (
            Progress(len(shards), "shard", initial=done) as progress,
            ThreadPoolExecutor(self.config.download.threads) as pool,
        ):
            futures = [pool.submit(fetch, name, shard_ids) for name, shard_ids in missing.items()]
            try:
                for future in as_completed(futures):
                    rows, rejects = future.result()
                    progress.step(row=rows, reject=rejects)
            except BaseException:
                project.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _check_release(final: RunDirectory, release: str) -> None:
    """Refuse to resume a download with another release of the database."""
    first_release = final.record["database_version"]
    if _UNKNOWN not in (release, first_release) and release != first_release:
        rule = f"was started with release {first_release} of the Materials Project, which is now at {release}"
        raise RunError(f"{final.path}: {rule}; releases cannot be mixed, choose another --output")


def _count_rejects_by_stage(staged: RunDirectory) -> dict[str, int]:
    files = sorted((staged.path / REJECTS).glob("*.parquet"))
    stages = Counter(stage for file in files for stage in pq.read_table(file)["stage"].to_pylist())
    return dict(sorted(stages.items()))


def _summary(record: dict[str, Any], output: Path) -> str:
    counts = record["counts"]
    missing = ", ".join(f"{count} {stage}" for stage, count in record["missing"].items())
    release = f"release {record['database_version']} of the Materials Project"
    rejects = counted(counts[REJECTS], "reject") + (f" ({missing})" if missing else "")
    materials = counted(counts["input"], "material")
    return f"{materials} of {release}: {counted(counts[MATERIALS], 'row')}, {rejects} in {output}"
