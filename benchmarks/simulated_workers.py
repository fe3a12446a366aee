"""A screening with simulated workers: the real engine, and workers that only sleep for as long as a shard takes."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from ray.data import Dataset

from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits, ShardReport, ShardStep, ShardTables, StageTimer
from mat2spec.distributed.shards.runner import CALLS_PER_WORKER, Pool, ShardRunner, Workers
from mat2spec.distributed.shards.worker import ShardWorker
from mat2spec.storage.run_directory import RunDirectory

WORKERS_PER_PROCESS = 128
"""Simulated workers in one process: one process each would take 100 MB, and load Ray with looking after it."""


@dataclass(frozen=True)
class Sleep(ShardStep):
    """A step that takes time and does nothing.

    Args:
        seconds: Time that a worker needs for a shard [s].
    """

    seconds: float

    def processor(self) -> "Sleep":
        """Return itself: nothing is loaded."""
        return self

    def compute(self, shard: Shard, timer: StageTimer) -> ShardTables:
        """Never called: simulated workers override what calls it."""
        raise NotImplementedError


class SimulatedWorkers(ShardWorker):
    """Several workers in one process: each holds several shards and computes one of them at a time."""

    def _processing(self, shard: Shard) -> Callable[[], ShardReport]:
        return lambda: self._sleep(shard)

    def _sleep(self, shard: Shard) -> ShardReport:
        time.sleep(CALLS_PER_WORKER * self.step.seconds)
        return ShardReport(shard.name, len(shard))


class SimulatedRunner(ShardRunner):
    """Runs shards on simulated workers.

    Args:
        seconds: Time that a worker needs for a shard [s].
        workers: Number of workers.
    """

    def __init__(self, seconds: float, workers: int) -> None:
        nowhere = RunDirectory(Path("/nowhere"))
        super().__init__(Sleep(nowhere, ShardLimits(3600.0, None, 1), seconds), Workers(workers, workers, 0.0))

    def process(self, shards: Dataset, pool: Pool) -> Dataset:
        """Return the dataset of the reports of a dataset of shards."""
        processes = math.ceil(self.workers.min_size / WORKERS_PER_PROCESS)
        calls = CALLS_PER_WORKER * math.ceil(self.workers.min_size / processes)
        return self.on_workers(shards, SimulatedWorkers, Pool(processes, processes, calls))


class Measurement(NamedTuple):
    """Throughput of a simulated screening.

    Args:
        first_seconds: Until the first shard was reported [s].
        shards_per_second: Rate after the first round, in which each worker takes its first shards at once.
        driver_seconds: CPU time of the driver's process per shard in the same period [s].
        driver_bytes: Memory of the driver's process at the end.
    """

    first_seconds: float
    shards_per_second: float
    driver_seconds: float
    driver_bytes: int


def simulate(shards: Sequence[Shard], seconds: float, workers: int) -> Measurement:
    """Run a screening with simulated workers, within a `ray_session`.

    Args:
        shards: Shards for whole rounds, at least two.
        seconds: Time that a worker needs for a shard [s].
        workers: Number of workers.
    """
    driver = psutil.Process()
    began = time.perf_counter()
    first_round = min(CALLS_PER_WORKER * workers, len(shards) // 2)
    marks = []
    with closing(SimulatedRunner(seconds, workers).run(shards)) as reports:
        for done, _ in enumerate(reports, start=1):
            if done in (1, first_round, len(shards)):
                marks.append((done, time.perf_counter(), sum(driver.cpu_times()[:2])))
    (_, first_report, _), (first, start, start_cpu), (last, end, end_cpu) = marks
    return Measurement(
        first_report - began,
        (last - first) / (end - start),
        (end_cpu - start_cpu) / (last - first),
        driver.memory_info().rss,
    )
