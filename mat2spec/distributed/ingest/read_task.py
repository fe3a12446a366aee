"""What a process of an ingestion does: read a shard, and write what came of it.

By itself in a module, because a process that imports no network starts two seconds earlier.
"""

import time
from pathlib import Path
from typing import Any

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.ingest.batches import Batch, read_batch
from mat2spec.storage.run_directory import MATERIALS, RunDirectory


class Read:
    """Read a shard and write what came of it.

    Args:
        staged: Directory of the staged shards.
        config: How structures are read.
    """

    def __init__(self, staged: Path, config: ReadingConfig) -> None:
        self._staged, self._config = str(staged), config.model_dump(mode="json")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        batch = Batch.from_json(row["batch"])
        outcome = read_batch(batch, ReadingConfig.model_validate(self._config))
        result = {"rows": len(outcome.materials), "rejects": len(outcome.rejects), "failed": "", "began": began}
        try:
            RunDirectory(Path(self._staged), MATERIALS).commit(batch.name, outcome.materials, outcome.rejects)
        except OSError as error:
            result["failed"] = f"cannot be written ({error.strerror or error})"
        return result
