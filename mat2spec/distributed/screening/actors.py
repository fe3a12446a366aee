"""Ray actors and tasks of a screening: the worker that holds the model, graph building, and the isolation of faults."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mat2spec.data.shards.shard import Shard, read_shard
from mat2spec.data.shards.isolation import isolate, limit_memory
from mat2spec.predict.pipeline import (
    READ,
    UNREADABLE,
    FeaturizedShard,
    ScreeningSpec,
    ShardPipeline,
    ShardReport,
    StageTimer,
    featurize,
)
from mat2spec.storage.location import storage_error_message

SHARDS_PER_WORKER = 2
"""Shards that a worker holds at once: while it computes one, the other is read or written."""

GraphsOrFailure = tuple[FeaturizedShard, StageTimer] | ShardReport


class Watchdog:
    """Kills this process if it has work and finishes none of it for too long, whatever it hangs in.

    The kernel does it, by SIGALRM.

    Args:
        seconds: Time limit [s].
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._active = 0
        self._lock = threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch over the block; from any thread."""
        with self._lock:
            self._active += 1
            if self._active == 1:
                signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                signal.setitimer(signal.ITIMER_REAL, self._seconds if self._active else 0)


class Worker:
    """Holds the model and processes shards."""

    _pipeline: ShardPipeline
    _watchdog: Watchdog

    def initialize(self, spec: ScreeningSpec) -> None:
        """Load the model.

        A method rather than `__init__`: Ray warns that constructor arguments may be lost when an actor restarts.
        """
        limit_memory(spec.memory)
        self._watchdog = Watchdog(spec.inference.seconds_per_shard)
        self._pipeline = ShardPipeline(spec)

    def screen(self, shard: Shard) -> ShardReport:
        """Run a shard through all stages."""
        with self._watchdog.watching():
            return self._pipeline.screen(shard)

    def predict(self, shard: Shard, built: GraphsOrFailure) -> ShardReport:
        """Predict and commit a shard whose graphs were built elsewhere."""
        if isinstance(built, ShardReport):
            return built
        with self._watchdog.watching():
            return self._pipeline.predict(shard, *built)


WorkerActor = ray.remote(max_restarts=-1, max_task_retries=0)(Worker)
"""The worker as an actor; when it dies Ray restarts it, on another node if need be."""


@ray.remote(num_cpus=1, max_retries=0)
def build_graphs(spec: ScreeningSpec, shard: Shard) -> GraphsOrFailure:
    """Read a shard and build its graphs on a CPU, so that the GPU actor only predicts."""
    timer = StageTimer()
    with Watchdog(spec.inference.seconds_per_shard).watching():
        timer.start(READ)
        try:
            rows = read_shard(shard)
        except UNREADABLE as error:
            return ShardReport(0, 0, timer.seconds, storage_error_message(shard.files[0], error, "read"))
        return featurize(rows, spec.checkpoint.card.config.graph, timer), timer


@ray.remote(max_retries=0)
def isolate_faults(spec: ScreeningSpec, shard: Shard, limit: int) -> tuple[ShardReport, int]:
    """Reprocess, in isolation, a shard whose worker crashed; return its report and the number of rows that failed."""
    return isolate(spec, shard, limit)
