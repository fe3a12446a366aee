"""A worker of a screening as Ray runs it: an actor that holds the network, and tasks for what is done beside it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mat2spec.data.materials.shards import Shard, read_shard
from mat2spec.predict.isolation import isolate, limit_memory
from mat2spec.predict.pipeline import READ, UNREADABLE, Clock, Done, Featurized, Recipe, Screener, featurize
from mat2spec.storage.location import storage_failure

SHARDS_AT_ONCE = 2
"""Of a worker: while one is computed the other is read or written."""


class Watchdog:
    """Ends this process when it has work and finishes none of it for too long; whatever it hangs in, the kernel ends it.

    Args:
        seconds: How long that is.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._at_work, self._lock = seconds, 0, threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch over the block, from any thread."""
        with self._lock:
            self._at_work += 1
            if self._at_work == 1:
                signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1
                signal.setitimer(signal.ITIMER_REAL, self._seconds if self._at_work else 0)


@ray.remote(max_restarts=-1, max_task_retries=0, max_concurrency=SHARDS_AT_ONCE)
class Worker:
    """Holds the network; Ray begins it anew when it dies, on another node if need be."""

    _screener: Screener
    _watchdog: Watchdog

    def begin(self, recipe: Recipe) -> None:
        """Take up the work; by a call and not when it is made, for Ray would warn that what it is made with may be gone the next time."""
        limit_memory(recipe.memory)
        self._watchdog = Watchdog(recipe.inference.seconds_per_shard)
        self._screener = Screener(recipe)

    def screen(self, shard: Shard) -> Done:
        """Do a shard."""
        with self._watchdog.watching():
            return self._screener.screen(shard)

    def predict(self, shard: Shard, built: tuple[Featurized, Clock] | Done) -> Done:
        """Do the rest of a shard whose graphs were built elsewhere."""
        if isinstance(built, Done):
            return built
        with self._watchdog.watching():
            return self._screener.predict(shard, *built)


@ray.remote(num_cpus=1, max_retries=0)
def build_graphs(recipe: Recipe, shard: Shard) -> tuple[Featurized, Clock] | Done:
    """Do the first half of a shard, for a worker that has better to do."""
    clock = Clock()
    with Watchdog(recipe.inference.seconds_per_shard).watching():
        try:
            clock.begin(READ)
            rows = read_shard(shard)
        except UNREADABLE as error:
            return Done(0, 0, clock.seconds, storage_failure(shard.files[0], error, "read"))
        return featurize(rows, recipe.checkpoint.card.config.graph, clock), clock


@ray.remote(max_retries=0)
def isolate_faults(recipe: Recipe, shard: Shard, limit: int) -> tuple[Done, int]:
    """Do a shard that a worker died of, or with."""
    return isolate(recipe, shard, limit)
