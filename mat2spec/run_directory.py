"""The directory of a screening or an ingestion: what made it, the results and rejects committed so far, and its catalog."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.errors import RunError

RECORD, CATALOG = "run.json", "catalog.duckdb"
PREDICTIONS, REJECTS = "predictions", "rejects"


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk.

    A shard is done when its results lie under their name. They are written last and renamed into place, so that a kill at
    any moment leaves a shard either whole or to be done again.

    Args:
        path: The directory, absolute.
        results: Folder of what the run makes.
    """

    path: Path
    results: str = PREDICTIONS

    def claim(self, identity: dict[str, Any], details: dict[str, Any]) -> None:
        """Take the directory for a run, or make sure that it holds this one.

        Args:
            identity: What must be the same when the run is continued.
            details: What is worth knowing besides.

        Raises:
            RunError: If it holds another run, or something else, or cannot be written.
        """
        record = self.path / RECORD
        if record.exists():
            if changed := _differences(self.read_record()["identity"], identity):
                raise RunError(f"{self.path}: holds another run ({'; '.join(changed)}); choose another --output")
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path}: not empty and holds no {RECORD}; choose another --output")
        for folder in (self.results, REJECTS):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        self._write_record({"status": "running", "identity": identity, **details})

    def read_record(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            RunError: If there is none, or it is damaged.
        """
        try:
            return json.loads((self.path / RECORD).read_text())
        except FileNotFoundError:
            raise RunError(f"{self.path}: no run here: {RECORD} is missing") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / RECORD}: cannot be read ({error})") from None

    def committed(self) -> set[str]:
        """Names of the shards that are done."""
        return {file.stem for file in (self.path / self.results).glob("*.parquet")}

    def commit(self, shard: str, results: pa.Table, rejects: pa.Table) -> None:
        """Write the outcome of a shard: rejects first, then results, which make it done."""
        for folder, table in ((REJECTS, rejects), (self.results, results)):
            file = self.path / folder / f"{shard}.parquet"
            partial = file.with_name(f".{shard}.{os.getpid()}.partial")
            pq.write_table(table, partial, compression="zstd")
            partial.replace(file)

    def counts(self) -> dict[str, int]:
        """Rows of results and rejects, from the files themselves."""
        return {folder: _rows((self.path / folder).glob("*.parquet")) for folder in (self.results, REJECTS)}

    def finish(self, input_rows: int, details: dict[str, Any]) -> dict[str, int]:
        """Close the run once every input row is a result or a reject.

        Raises:
            RuntimeError: If they do not add up: a defect of ours, not of the input.
        """
        counts = self.counts()
        if sum(counts.values()) != input_rows:
            raise RuntimeError(f"{self.path}: {counts} do not add up to {input_rows} input rows")
        for left in self.path.glob("*/.*.partial"):
            left.unlink()
        self._write_record(self.read_record() | {"status": "finished", "counts": {"input": input_rows, **counts}, **details})
        return counts

    def _write_record(self, record: dict[str, Any]) -> None:
        partial = self.path / f".{RECORD}.{os.getpid()}.partial"
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        partial.replace(self.path / RECORD)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Say what changed, value against value."""
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{key}: {str(old.get(key))[:80]} there, {str(new.get(key))[:80]} here" for key in keys]


def _rows(files: Iterable[Path]) -> int:
    return sum(pq.read_metadata(file).num_rows for file in files)
