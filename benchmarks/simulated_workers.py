"""A screening with simulated workers: the real scheduler, and workers that only sleep for as long as a shard takes."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil
import ray

from mat2spec.data.shards.shard import Shard
from mat2spec.distributed.screening.actors import SHARDS_PER_WORKER
from mat2spec.distributed.screening.scheduler import Scheduler
from mat2spec.predict.pipeline import ScreeningSpec, ShardReport

WORKERS_PER_PROCESS = 128
"""Simulated workers in one process: one process each would take 100 MB, and load Ray with looking after it."""


class Measurement(NamedTuple):
    """Throughput of a simulated screening.

    Args:
        shards_per_second: Rate after the first round, in which each worker takes its first shards at once.
        driver_seconds: CPU time of the driver's process per shard in the same period [s].
    """

    shards_per_second: float
    driver_seconds: float


class SimulatedWorkers:
    """Several workers in one process.

    Args:
        seconds: Time that a worker needs for a shard [s]. A worker holds several shards and computes one of them at a
            time, so that each is held for a multiple of that.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = SHARDS_PER_WORKER * seconds

    def initialize(self, spec: ScreeningSpec) -> None:
        """Load nothing."""

    def screen(self, shard: Shard) -> ShardReport:
        """Sleep for the time of a shard and return a worker's report."""
        time.sleep(self._seconds)
        return ShardReport(len(shard), 0, {})


SimulatedWorkersActor = ray.remote(num_cpus=0)(SimulatedWorkers)


class SimulatedScheduler(Scheduler):
    """A scheduler that starts simulated workers.

    Args:
        spec: The screening, with as many predictors as there shall be workers.
        seconds: Time that a worker needs for a shard [s].
    """

    def __init__(self, spec: ScreeningSpec, seconds: float) -> None:
        super().__init__(spec, heartbeat=lambda: None)
        count = -(-self.layout.predictors // WORKERS_PER_PROCESS)
        actor = SimulatedWorkersActor.options(max_concurrency=SHARDS_PER_WORKER * WORKERS_PER_PROCESS)
        self._processes = [actor.remote(seconds) for _ in range(count)]

    def _start_worker(self) -> Any:
        return self._processes[len(self._workers) % len(self._processes)]


def simulate(spec: ScreeningSpec, shards: Sequence[Shard], seconds: float) -> Measurement:
    """Run a screening with simulated workers, within a `ray_session`.

    Args:
        spec: The screening, with as many predictors as there shall be workers.
        shards: Shards for whole rounds, at least two.
        seconds: Time that a worker needs for a shard [s].
    """
    driver = psutil.Process()
    scheduler = SimulatedScheduler(spec, seconds)
    first_round = SHARDS_PER_WORKER * scheduler.layout.predictors  # simulated workers start together, and stay so
    marks = []
    for done, _ in enumerate(scheduler.run(shards), start=1):
        if done in (first_round, len(shards)):
            marks.append((done, time.perf_counter(), sum(driver.cpu_times()[:2])))
    (first, start, start_cpu), (last, end, end_cpu) = marks
    return Measurement((last - first) / (end - start), (end_cpu - start_cpu) / (last - first))
