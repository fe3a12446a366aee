"""What a job does with each shard: compute its tables, commit them, and report."""

import json
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from mat2spec.config.ingestion import ProcessLimitsConfig
from mat2spec.data.shards.shard import Shard
from mat2spec.errors import StorageError
from mat2spec.storage.location import storage_error_message
from mat2spec.storage.run_directory import RunDirectory

READ, WRITE = "read", "write"
"""Stages of every job; a screening has two more between them."""


class StageTimer:
    """Measures the seconds spent in each stage.

    Args:
        on_start: Called with the name of each stage when it starts.
    """

    def __init__(self, on_start: Callable[[str], None] | None = None) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stage = ""
        self._since = 0.0
        self._on_start = on_start

    def start(self, stage: str) -> None:
        """Stop the current stage and start this one."""
        self.stop()
        self._stage = stage
        if self._on_start:
            self._on_start(stage)

    def stop(self) -> None:
        """Stop the current stage, if there is one."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] += now - self._since
        self._stage, self._since = "", now


class ShardTables(NamedTuple):
    """What comes of a shard.

    Args:
        results: One row per row of the shard that could be used.
        rejects: The other rows, with the reason.
    """

    results: pa.Table
    rejects: pa.Table


class ShardReport(NamedTuple):
    """Summary of a processed shard.

    Args:
        name: Name of the shard.
        results: Number of results.
        rejects: Number of rejects.
        seconds: Time spent in each stage [s].
        failed: Why the input could not be read or the results not be written; empty on success.
        faults: Number of rows that killed their process or exceeded its limits; None unless processed in isolation.
        lost: Whether it was not processed, because its process died each time.
        worker: Which worker did it, if one did.
    """

    name: str
    results: int = 0
    rejects: int = 0
    seconds: dict[str, float] = {}  # noqa: RUF012  never changed
    failed: str = ""
    faults: int | None = None
    lost: bool = False
    worker: str = ""

    def to_json(self) -> str:
        """Return the report as text, to be sent to another process."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> "ShardReport":
        """Read what `to_json` returned."""
        return cls(**json.loads(text))


class ShardLimits(NamedTuple):
    """Limits of the processes that work on shards.

    Args:
        seconds: Longest time without a finished shard [s].
        memory: Data that a process may allocate [bytes]; None: unlimited.
        faults: Number of rows that may kill their process or exceed these limits before the job stops.
        setting: Prefix of the names of these settings in the configuration, for errors.
    """

    seconds: float
    memory: int | None
    faults: int
    setting: str = "inference"

    @classmethod
    def from_config(cls, config: ProcessLimitsConfig, setting: str) -> "ShardLimits":
        """Return the limits that a section of the configuration sets."""
        memory = None if config.memory_per_process is None else int(config.memory_per_process * 1e9)
        return cls(config.seconds_per_shard, memory, config.fault_limit, setting)


@runtime_checkable
class Processor(Protocol):
    """Computes shards; made once in each process, because it may hold a model."""

    def compute(self, shard: Shard, timer: StageTimer) -> ShardTables:
        """Compute the tables of a shard, without writing anything.

        Several threads may call it at once: while one computes, another reads or writes.

        Raises:
            StorageError: If the input cannot be read.
        """
        ...


@dataclass(frozen=True)
class ShardStep(ABC):
    """Everything that a process needs to work on shards; picklable.

    Args:
        run: Where shards are committed.
        limits: Limits of the processes.
    """

    run: RunDirectory
    limits: ShardLimits

    MODULES: ClassVar[tuple[str, ...]] = ()
    """Modules, besides the step's own, that are imported once for all isolated processes."""

    @abstractmethod
    def processor(self) -> Processor:
        """Make what computes shards."""


def process_shard(processor: Processor, run: RunDirectory, shard: Shard) -> ShardReport:
    """Compute a shard and commit it."""
    timer = StageTimer()
    try:
        tables = processor.compute(shard, timer)
    except StorageError as error:
        return ShardReport(shard.name, failed=str(error))
    return commit(run, shard.name, tables, timer)


def commit(run: RunDirectory, name: str, tables: ShardTables, timer: StageTimer) -> ShardReport:
    """Write the tables of a shard; only then is the shard done."""
    timer.start(WRITE)
    failed = ""
    try:
        run.commit(name, tables.results, tables.rejects)
    except OSError as error:
        failed = storage_error_message(run.path, error)
    timer.stop()
    return ShardReport(name, len(tables.results), len(tables.rejects), dict(timer.seconds), failed)
