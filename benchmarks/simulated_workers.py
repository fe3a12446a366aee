"""A screening without its work: the real driver and the real hand-overs, with workers that only sleep for as long as shards take."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil
import ray

from mat2spec.data.materials.shards import Shard
from mat2spec.distributed.screening.actors import SHARDS_AT_ONCE
from mat2spec.distributed.screening.scheduler import Crew
from mat2spec.predict.pipeline import Done, Recipe

MEMBERS = 128
"""Workers that one process stands for: a process for each would take 100 MB, and Ray the time to look after it."""


class Rehearsal(NamedTuple):
    """What the driver did.

    Args:
        shards_per_second: After the first round, in which each worker does what it is given at once.
        driver_seconds: CPU time of the driver's process for each shard over the same span [s].
    """

    shards_per_second: float
    driver_seconds: float


@ray.remote(num_cpus=0, max_concurrency=SHARDS_AT_ONCE * MEMBERS)
class Sleepers:
    """Several workers in one process.

    Args:
        seconds: What a shard takes one of them. It holds two shards at once and computes one of them: each is held for twice as long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = SHARDS_AT_ONCE * seconds

    def begin(self, recipe: Recipe) -> None:
        """Take up the work."""

    def screen(self, shard: Shard) -> Done:
        """Take a shard's time and say what a worker would."""
        time.sleep(self._seconds)
        return Done(len(shard), 0, {})


class SleepingCrew(Crew):
    """A crew that enlists sleepers.

    Args:
        recipe: With as many predictors as there are to be workers.
        seconds: What a shard takes one of them.
    """

    def __init__(self, recipe: Recipe, seconds: float) -> None:
        super().__init__(recipe, lambda: None)
        processes = -(-self.layout.predictors // MEMBERS)
        self._processes = [Sleepers.remote(seconds) for _ in range(processes)]  # type: ignore[attr-defined]

    def _enlist(self) -> ray.actor.ActorHandle:
        return self._processes[len(self._members) % len(self._processes)]


def rehearse(recipe: Recipe, shards: Sequence[Shard], seconds: float) -> Rehearsal:
    """Give shards to sleepers; within a `ray_session`.

    Args:
        recipe: With as many predictors as there are to be workers.
        shards: What they are given: for whole rounds, at least two.
        seconds: What a shard takes one of them.
    """
    driver, marks, crew = psutil.Process(), [], SleepingCrew(recipe, seconds)
    first_round = SHARDS_AT_ONCE * crew.layout.predictors  # sleepers begin together, and stay so
    for done, _ in enumerate(crew.work(shards), start=1):
        if done in (first_round, len(shards)):
            marks.append((done, time.perf_counter(), sum(driver.cpu_times()[:2])))
    (first, begin, cpu_then), (last, end, cpu_now) = marks
    return Rehearsal((last - first) / (end - begin), (cpu_now - cpu_then) / (last - first))
