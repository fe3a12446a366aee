"""A download from the Materials Project into a materials table, shard by shard, by a few threads of this process: no Ray."""

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
from mat2spec.data.ingest.finalize import clear, place
from mat2spec.data.materials_project.client import MaterialsProject, read_key
from mat2spec.data.materials_project.fetch import Fetching, list_materials, read_ids
from mat2spec.errors import RunError
from mat2spec.provenance import environment
from mat2spec.storage.location import storage
from mat2spec.storage.progress import Progress
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory

_LISTING = "listing.parquet"

_UNKNOWN = "unknown"

LICENSE = "CC BY 4.0; of GNoME's materials CC BY-NC 4.0 (column license)"


@dataclass(frozen=True)
class Download:
    """A download and the directory that holds it.

    The ids are listed first and kept, so that the shards of a later start are the same; then each shard is fetched and staged; with all
    known, they move to their place. A kill at any moment leaves each shard of each step done or to be done.

    Args:
        config: The settings.
        output: The directory, absolute.
        ids: List of ids, absolute, if there is one.
    """

    config: MaterialsProjectConfig
    output: Path
    ids: Path | None

    def run(self) -> str:
        """Fetch what is not yet there; give a line that says what the directory holds.

        Raises:
            ConfigError: If there is no key, it or the query is refused, or nothing meets the conditions.
            RunError: If the directory holds something else, or another release of the database.
            ServiceError: If the Materials Project does not answer.
            StorageError: If the directory can no longer be written.
        """
        listed = read_ids(self.ids) if self.ids else None
        final, staged = (RunDirectory(path, MATERIALS) for path in (self.output, self.output / "staged"))
        begun = self.output.exists() and any(self.output.iterdir())
        if begun:
            final.claim(self._identity(listed), {})
            if final.read_record()["status"] == "finished":
                clear(staged)
                return _told(final.read_record(), self.output)
        project = MaterialsProject(read_key(), self.config.download)
        release = project.database_version
        if begun:
            _check_release(final, release)
        start = time.perf_counter()
        if not (staged.path / _LISTING).exists():
            listed = self._list(project, listed)
            self._begin(final, staged, project, listed)
        timing = {"list_seconds": time.perf_counter() - start}
        start = time.perf_counter()
        self._fetch(project, staged, f"Materials Project {final.read_record()['database_version']}")
        place(staged, final, (), timing | {"fetch_seconds": time.perf_counter() - start}, {"missing": _missing(staged)})
        return _told(final.read_record(), self.output)

    def _identity(self, listed: list[str] | None) -> dict[str, Any]:
        """What makes another download of it."""
        conditions = dict(sorted(self.config.conditions.items())) | {"include_gnome": self.config.query.include_gnome}
        ids = {"ids": hashlib.sha256("\n".join(listed).encode()).hexdigest()} if listed else {}
        method = {"phonon_method": self.config.phonon_method} if self.config.what == "phdos" else {}
        query = {name: list(value) if isinstance(value, tuple) else value for name, value in conditions.items()}
        return {
            "what": self.config.what,
            "query": query,
            **ids,
            **method,
            "rows_per_shard": self.config.download.rows_per_shard,
        }

    def _list(self, project: MaterialsProject, listed: list[str] | None) -> list[str]:
        if listed is None:
            return list_materials(project, self.config)
        project.summaries(listed[:1], ["material_id"])  # before anything is written: is the key good?
        return listed

    def _begin(self, final: RunDirectory, staged: RunDirectory, project: MaterialsProject, listed: list[str]) -> None:
        details = {
            "config": self.config.model_dump(mode="json"),
            "database_version": project.database_version,
            "endpoint": project.endpoint,
            "license": LICENSE,
            "versions": environment() | {name: version(name) for name in ("mp-api", "emmet-core")},
        }
        final.claim(self._identity(listed if self.ids else None), details)
        staged.claim({}, {})
        with storage(self.output):
            partial = staged.path / f".{_LISTING}.partial"
            pq.write_table(pa.table({"material_id": listed}), partial)
            partial.replace(staged.path / _LISTING)

    def _fetch(self, project: MaterialsProject, staged: RunDirectory, source: str) -> None:
        listed = pq.read_table(staged.path / _LISTING)["material_id"].to_pylist()
        size = self.config.download.rows_per_shard
        shards = {
            f"part-{index:06d}": listed[start : start + size] for index, start in enumerate(range(0, len(listed), size))
        }
        todo = {name: ids for name, ids in shards.items() if name not in staged.committed()}
        progress = Progress(len(todo), "shards")
        fetching = Fetching(project, self.config, source)

        def fetch(name: str, material_ids: list[str]) -> tuple[int, int]:
            outcome = fetching.fetch(material_ids)
            with storage(self.output):
                staged.commit(name, outcome.materials, outcome.rejects)
            return len(outcome.materials), len(outcome.rejects)

        with ThreadPoolExecutor(self.config.download.threads) as pool:
            futures = [pool.submit(fetch, name, ids) for name, ids in todo.items()]
            try:
                for future in as_completed(futures):
                    rows, rejects = future.result()
                    progress.step(rows=rows, rejects=rejects)
            except BaseException:
                project.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _check_release(final: RunDirectory, release: str) -> None:
    """Refuse to go on with another release of the database than the one begun with."""
    begun_with = final.read_record()["database_version"]
    if _UNKNOWN not in (release, begun_with) and release != begun_with:
        rule = f"was begun with release {begun_with} of the Materials Project, which is now at {release}"
        raise RunError(f"{final.path}: {rule}; two releases are not mixed, choose another --output")


def _missing(staged: RunDirectory) -> dict[str, int]:
    """How many materials were refused at which stage."""
    files = sorted((staged.path / REJECTS).glob("*.parquet"))
    return dict(sorted(Counter(stage for file in files for stage in pq.read_table(file)["stage"].to_pylist()).items()))


def _told(record: dict[str, Any], output: Path) -> str:
    counts = record["counts"]
    missing = ", ".join(f"{count} {stage}" for stage, count in record["missing"].items())
    release = f"release {record['database_version']} of the Materials Project"
    rejects = f"{counts[REJECTS]} rejects" + (f" ({missing})" if missing else "")
    return f"{counts['input']} materials of {release}: {counts[MATERIALS]} rows, {rejects} in {output}"
