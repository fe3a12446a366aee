"""The directory of a screening or an ingestion: what made it, the results and rejects committed so far, and its catalog."""

import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.errors import RunError
from mat2spec.storage.location import PARTIAL, Location, errors_of_stores, put

RECORD, CATALOG = "run.json", "catalog.duckdb"
PREDICTIONS, REJECTS = "predictions", "rejects"

MATERIALS = "materials"
"""Folder of the rows, in the directory that an ingestion writes; rejects lie beside it."""

VERIFIED, VERIFIED_REJECTS, VERIFICATION = "verified", "verified_rejects", "verification"
"""Folders of a run, for results, rejects and campaigns; also the names of their views."""


_READERS = 16
"""Files whose footers are read at once: an object store answers each after some 30 ms."""


@dataclass(frozen=True)
class RunDirectory:
    """A run on a disk or in an object store.

    A shard is done when its results lie under their name. They are written last, and whole or not at all, so that a kill at
    any moment leaves a shard either done or to be done again.

    Args:
        path: The directory, absolute.
        results: Folder of what the run makes.
    """

    path: Location
    results: str = PREDICTIONS

    def check(self, identity: dict[str, Any], *, new_rows: bool = False) -> bool:
        """Make sure that the directory is free or holds this run; change nothing.

        Args:
            identity: What must be the same when the run is continued.
            new_rows: Whether its input may differ.

        Returns:
            Whether the run is there.

        Raises:
            RunError: If it holds another run, or something else.
        """
        with self._refusing("read"):
            there, others = (self.path / RECORD).exists(), self._holds_files()
        if there:
            if changed := _differences(self.read_record()["identity"], identity):
                if list(changed) != ["input"]:
                    raise RunError(
                        f"{self.path}: holds another run ({'; '.join(changed.values())}); choose another --output"
                    )
                if not new_rows:
                    raise RunError(
                        f"{self.path}: holds another run ({changed['input']}); --allow-new-rows adds the rows that came since, "
                        "or choose another --output"
                    )
            return True
        if others:
            raise RunError(f"{self.path}: not empty and holds no {RECORD}; choose another --output")
        return False

    def _holds_files(self) -> bool:
        if not self.path.exists():
            return False
        if self.path.is_file():
            return True
        return any(
            entry.is_file() or any(entry.iterdir()) for entry in self.path.iterdir() if not entry.name.startswith(".")
        )

    def claim(self, identity: dict[str, Any], details: dict[str, Any], *, new_rows: bool = False) -> None:
        """Take the directory for a run, or make sure that it holds this one.

        Args:
            identity: What must be the same when the run is continued.
            details: What is worth knowing besides.
            new_rows: Whether its input may differ; the run is then open again for the rows that were added.

        Raises:
            RunError: If it holds another run, or something else, or cannot be written.
        """
        if self.check(identity, new_rows=new_rows):
            record = self.read_record()
            if record["identity"] != identity:
                additions = [*record.get("additions", []), {"replaced_input": record["identity"]["input"]}]
                self._write_record(
                    record | {"status": "running", "identity": identity, "additions": additions, **details}
                )
            return
        self.make_folders()
        with self._refusing("written"):
            self._write_record({"status": "running", "identity": identity, **details})

    def is_finished(self, identity: dict[str, Any]) -> bool:
        """Whether the run is whole, and this one."""
        record = self.read_record()
        return record["status"] == "finished" and record["identity"] == identity

    def make_folders(self) -> None:
        """Make what a disk needs before it can be written; an object store has no folders.

        Raises:
            RunError: If they cannot be made.
        """
        if isinstance(self.path, Path):
            with self._refusing("written"):
                for folder in (self.results, REJECTS):
                    (self.path / folder).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _refusing(self, done: str) -> Iterator[None]:
        """Make a storage that fails at the beginning a mistake of the command."""
        try:
            with errors_of_stores():
                yield
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise RunError(f"{self.path}: cannot be {done} ({reason}); choose another --output") from None

    def read_record(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            RunError: If there is none, or it is damaged.
        """
        try:
            with errors_of_stores():
                content = (self.path / RECORD).read_bytes()
            return json.loads(content)
        except FileNotFoundError:
            raise RunError(f"{self.path}: no run here: {RECORD} is missing") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / RECORD}: cannot be read ({error})") from None

    def committed(self) -> set[str]:
        """Names of the shards that are done."""
        return {file.stem for file in _files(self.path / self.results)}

    def commit(self, shard: str, results: pa.Table, rejects: pa.Table) -> None:
        """Write the outcome of a shard: rejects first, then results, which make it done.

        Raises:
            OSError: If the storage does not take it; the shard is then not done.
        """
        for folder, table in ((REJECTS, rejects), (self.results, results)):
            content = io.BytesIO()
            pq.write_table(table, content, compression="zstd")
            put(self.path / folder / f"{shard}.parquet", content.getvalue())

    def rows_by_id(self, shards: Iterable[str]) -> pa.Table:
        """Count the rows of each material_id in some shards: columns material_id and rows."""
        files = [self.path / folder / f"{shard}.parquet" for shard in shards for folder in (self.results, REJECTS)]
        with ThreadPoolExecutor(_READERS) as readers:
            tables = [pa.table({"material_id": pa.array([], pa.string())}), *readers.map(_ids_of, files)]
        return (
            pa.concat_tables(tables)
            .group_by("material_id")
            .aggregate([([], "count_all")])
            .rename_columns(["material_id", "rows"])
        )

    def counts(self) -> dict[str, int]:
        """Rows of results and rejects, from the files themselves."""
        return {folder: _rows(_files(self.path / folder)) for folder in (self.results, REJECTS)}

    def finish(self, input_rows: int, details: dict[str, Any]) -> dict[str, int]:
        """Close the run once every input row is a result or a reject.

        Raises:
            RuntimeError: If they do not add up: a defect of ours, not of the input.
        """
        self._remove_rejects_without_results()
        counts = self.counts()
        if sum(counts.values()) != input_rows:
            raise RuntimeError(f"{self.path}: {counts} do not add up to {input_rows} input rows")
        if isinstance(self.path, Path):
            for left in (*self.path.glob(PARTIAL), *self.path.glob(f"*/{PARTIAL}")):
                left.unlink()
        self._write_record(
            self.read_record() | {"status": "finished", "counts": {"input": input_rows, **counts}, **details}
        )
        return counts

    def note(self, **details: Any) -> None:
        """Add something to run.json."""
        self._write_record(self.read_record() | details)

    def _remove_rejects_without_results(self) -> None:
        """Remove what a kill between the two files of a shard left, where the shard itself was never done: rows came or went since."""
        done = self.committed()
        for file in _files(self.path / REJECTS):
            if file.stem not in done:
                file.unlink()

    def _write_record(self, record: dict[str, Any]) -> None:
        put(self.path / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _files(folder: Location) -> list[Location]:
    with errors_of_stores():
        return [file for file in folder.glob("*.parquet") if not file.name.startswith(".")]


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Say what changed, value against value; of a section only those keys that did."""
    told = {}
    for key in sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
        there, here = old.get(key), new.get(key)
        inner = _differences(there, here) if isinstance(there, dict) and isinstance(here, dict) else {}
        told[key] = "; ".join(inner.values()) or f"{key}: {str(there)[:80]} there, {str(here)[:80]} here"
    return told


def _rows(files: Iterable[Location]) -> int:
    with ThreadPoolExecutor(_READERS) as readers:
        return sum(readers.map(_rows_of, files))


def _rows_of(file: Location) -> int:
    with errors_of_stores(), file.open("rb") as stream:
        return pq.read_metadata(stream).num_rows


def _ids_of(file: Location) -> pa.Table:
    with errors_of_stores(), file.open("rb") as stream:
        return pq.read_table(stream, columns=["material_id"])
