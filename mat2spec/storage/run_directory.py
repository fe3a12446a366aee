"""The directory of a screening or an ingestion: its record, and the results and rejects committed so far."""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.errors import RunError
from mat2spec.storage.atomic import PARTIAL, write_json, write_parquet
from mat2spec.storage.location import Location, error_reason, store_errors_as_oserror

RECORD, CATALOG = "run.json", "catalog.duckdb"
PREDICTIONS, REJECTS = "predictions", "rejects"

MATERIALS = "materials"
"""Folder of the rows that an ingestion writes, beside its rejects."""

VERIFIED, VERIFIED_REJECTS, VERIFICATION = "verified", "verified_rejects", "verification"
"""Folders of a run for computed spectra, their rejects and campaigns; also the names of their views."""

_READERS = 16
"""Files whose footers are read at once: an object store answers each after some 30 ms."""


@dataclass
class RunDirectory:
    """A run on a disk or in an object store.

    A shard is done once its results have their name. They are written last, and whole or not at all, so that a kill at
    any moment leaves a shard either done or to be done again.

    run.json is held in memory, because on an object store each access is a request: it is read once and then written
    whenever it changes. One thread may read `record` while another writes, but only one may write at a time.

    Args:
        path: The directory, absolute.
        results: Name of the folder of its results.
    """

    path: Location
    results: str = PREDICTIONS
    _record: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out the record: where a worker needs it, the worker reads it itself."""
        return RunDirectory, (self.path, self.results)

    def check(
        self, identity: dict[str, Any], details: Mapping[str, Any] = MappingProxyType({}), *, new_rows: bool = False
    ) -> bool:
        """Check that the directory is free or holds this run; write nothing.

        Args:
            identity: What must be the same when the run is resumed.
            details: Further entries of run.json, for the names of what differs.
            new_rows: Whether its input may differ.

        Returns:
            Whether the directory holds the run already.

        Raises:
            RunError: If it holds another run, or something else.
        """
        if self._record is None:
            with self._refuse_on_oserror("read"):
                exists = (self.path / RECORD).exists()
                holds_other_files = not exists and self._holds_files()
            if holds_other_files:
                raise RunError(f"{self.path}: not empty and holds no {RECORD}; choose another --output")
            if not exists:
                return False
        if changes := _differences(self.record["identity"], identity, self.record, details):
            only_rows_differ = list(changes) == ["input"]
            if not (only_rows_differ and new_rows):
                allow = "pass --allow-new-rows to screen the rows that were added, or " if only_rows_differ else ""
                difference = "; ".join(changes.values())
                raise RunError(f"{self.path}: holds another run ({difference}); {allow}choose another --output")
        return True

    def _holds_files(self) -> bool:
        if not self.path.exists():
            return False
        if self.path.is_file():
            return True
        return any(
            entry.is_file() or any(entry.iterdir()) for entry in self.path.iterdir() if not entry.name.startswith(".")
        )

    def claim(self, identity: dict[str, Any], details: dict[str, Any], *, new_rows: bool = False) -> None:
        """Start a run in the directory, or check that it holds this one.

        Args:
            identity: What must be the same when the run is resumed.
            details: Further entries of run.json.
            new_rows: Whether its input may differ; the run is then reopened for the rows that were added.

        Raises:
            RunError: If it holds another run, or something else, or cannot be written.
        """
        self._record = None  # since it was read, another job may have worked here
        if self.check(identity, details, new_rows=new_rows):
            old = self.record["identity"]
            if old != identity:
                additions = [*self.record.get("additions", []), {"replaced_input": old["input"]}]
                self.note(**{"status": "running", "identity": identity, "additions": additions} | details)
            return
        self.make_folders()
        with self._refuse_on_oserror("written"):
            self._write_record({"status": "running", "identity": identity, **details})

    def is_finished(self, identity: dict[str, Any]) -> bool:
        """Whether the directory holds this run, finished."""
        return self.record["status"] == "finished" and self.record["identity"] == identity

    def make_folders(self) -> None:
        """Create the folders on a disk; an object store has none.

        Raises:
            RunError: If they cannot be created.
        """
        if isinstance(self.path, Path):
            with self._refuse_on_oserror("written"):
                for folder in (self.results, REJECTS):
                    (self.path / folder).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _refuse_on_oserror(self, action: str) -> Iterator[None]:
        """Report a storage that fails before the job has begun as a mistake in the command."""
        try:
            with store_errors_as_oserror():
                yield
        except OSError as error:
            reason = error_reason(error)
            raise RunError(f"{self.path}: cannot be {action} ({reason}); choose another --output") from None

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json; not to be changed in place.

        Raises:
            RunError: If it is missing or damaged.
        """
        if self._record is None:
            self._record = self._read_record()
        return self._record

    def _read_record(self) -> dict[str, Any]:
        try:
            with store_errors_as_oserror():
                content = (self.path / RECORD).read_bytes()
            return json.loads(content)
        except FileNotFoundError:
            raise RunError(f"{self.path}: no run here: {RECORD} is missing") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / RECORD}: cannot be read ({error})") from None

    def committed(self) -> set[str]:
        """Return the names of the shards that are done."""
        return {file.stem for file in _parquet_files(self.path / self.results)}

    def commit(self, shard: str, results: pa.Table, rejects: pa.Table) -> None:
        """Write the tables of a shard: rejects first, then the results, which make it done.

        Raises:
            OSError: If the storage refuses one; the shard is then not done.
        """
        write_parquet(self.path / REJECTS / f"{shard}.parquet", rejects)
        write_parquet(self.path / self.results / f"{shard}.parquet", results)

    def rows_by_id(self, shards: Iterable[str]) -> pa.Table:
        """Count the rows of each material_id in these shards; return a table with columns material_id and rows."""
        files = [self.path / folder / f"{shard}.parquet" for shard in shards for folder in (self.results, REJECTS)]
        with ThreadPoolExecutor(_READERS) as readers:
            tables = [pa.table({"material_id": pa.array([], pa.string())}), *readers.map(_read_ids, files)]
        counts = pa.concat_tables(tables).group_by("material_id").aggregate([([], "count_all")])
        return counts.rename_columns(["material_id", "rows"])

    def read_rejects(self) -> pa.Table:
        """Read all rejects."""
        with ThreadPoolExecutor(_READERS) as readers:
            return pa.concat_tables(readers.map(read_parquet, sorted(_parquet_files(self.path / REJECTS))))

    def counts(self) -> dict[str, int]:
        """Count the rows of results and of rejects in the files themselves."""
        return {folder: _count_rows(_parquet_files(self.path / folder)) for folder in (self.results, REJECTS)}

    def finish(self, input_rows: int, details: dict[str, Any]) -> dict[str, int]:
        """Mark the run as finished once every input row is a result or a reject; return the numbers of both.

        Args:
            input_rows: Rows of the input.
            details: Further entries of run.json; they replace "counts" if they have it.

        Raises:
            RuntimeError: If they do not add up: a bug here, not a fault of the input.
        """
        self._remove_rejects_without_results()
        counts = self.counts()
        if sum(counts.values()) != input_rows:
            raise RuntimeError(f"{self.path}: {counts} do not add up to {input_rows} input rows")
        if isinstance(self.path, Path):
            for partial in (*self.path.glob(PARTIAL), *self.path.glob(f"*/{PARTIAL}")):
                partial.unlink()
        self.note(**{"status": "finished", "counts": {"input": input_rows, **counts}} | details)
        return counts

    def note(self, **details: Any) -> None:
        """Add entries to run.json."""
        self._write_record(self.record | details)

    def _remove_rejects_without_results(self) -> None:
        """Remove rejects of shards without results: a kill came between the two files, and then rows were added."""
        committed = self.committed()
        for file in _parquet_files(self.path / REJECTS):
            if file.stem not in committed:
                file.unlink()

    def _write_record(self, record: dict[str, Any]) -> None:
        write_json(self.path / RECORD, record)
        self._record = record


def _parquet_files(folder: Location) -> list[Location]:
    """Parquet files of a folder; none of one that does not exist. Not by `glob`: a URL's own [ would be a pattern."""
    with store_errors_as_oserror(), suppress(FileNotFoundError, NotADirectoryError):
        return [file for file in folder.iterdir() if file.suffix == ".parquet" and not file.name.startswith(".")]
    return []


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], record: Mapping[str, Any], details: Mapping[str, Any]
) -> dict[str, str]:
    """Describe each key whose value differs, with both values; of a section, only the keys that differ.

    Args:
        old: Identity of the run.
        new: Identity of the command.
        record: run.json of the run, with the names of what its identity has hashes of.
        details: What the command would write there.
    """
    differences = {}
    for key in sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            differences[key] = "; ".join(_differences(before, now, {}, {}).values())
        else:
            names = list(zip(_names(record, key), _names(details, key), strict=False))
            before, now = next((pair for pair in names if pair[0] != pair[1]), names[0] if names else (before, now))
            values = f"{str(before)[:80]} in the run, {str(now)[:80]} in this command"
            differences[key] = f"{key}: {values if before != now else f'{now}, which has changed since'}"
    return differences


def _names(record: Mapping[str, Any], key: str) -> list[str]:
    """Name and path of what an entry of the identity is the hash of; none if the record has neither."""
    entry = record.get(key)
    return [entry[part] for part in ("name", "path") if entry.get(part)] if isinstance(entry, Mapping) else []


def _count_rows(files: Iterable[Location]) -> int:
    with ThreadPoolExecutor(_READERS) as readers:
        return sum(readers.map(_read_row_count, files))


def _read_row_count(file: Location) -> int:
    with store_errors_as_oserror(), file.open("rb") as stream:
        return pq.read_metadata(stream).num_rows


def read_parquet(file: Location, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file.

    Raises:
        OSError: If the storage refuses it.
    """
    with store_errors_as_oserror(), file.open("rb") as stream:
        return pq.read_table(stream, columns=columns)


def _read_ids(file: Location) -> pa.Table:
    return read_parquet(file, ["material_id"])
