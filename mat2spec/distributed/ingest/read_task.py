"""What a worker of an ingestion does: read a shard and write its rows and rejects.

A module of its own, because a process that does not import torch starts two seconds earlier.
"""

import time
from pathlib import Path
from typing import Any

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.ingest.batches import Batch, read_batch
from mat2spec.storage.run_directory import MATERIALS, RunDirectory


class ReadShard:
    """Reads shards, and writes their rows and rejects.

    Args:
        staged: Directory of the staged shards.
        config: How structures are read.
    """

    def __init__(self, staged: Path, config: ReadingConfig) -> None:
        self._staged = str(staged)
        self._config = config.model_dump(mode="json")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        started = time.time()
        batch = Batch.from_json(row["batch"])
        result = read_batch(batch, ReadingConfig.model_validate(self._config))
        failed = ""
        try:
            RunDirectory(Path(self._staged), MATERIALS).commit(batch.name, result.materials, result.rejects)
        except OSError as error:
            failed = f"cannot be written ({error.strerror or error})"
        return {
            "rows": len(result.materials),
            "rejects": len(result.rejects),
            "failed": failed,
            "started": started,
        }
