"""A screening without its work: the same driver and the same hand-overs, with stages that only sleep for as long as the real ones take."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cluster.runtime  # noqa: F401 - before ray itself: sets how Ray starts

# isort: split
import psutil
import ray.data

THREADS = 128
"""Sleepers in one process: each stands for a core, and a process for several nodes."""


@dataclass(frozen=True)
class Rehearsal:
    """What the driver did.

    Args:
        shards_per_second: Between the first and the third quarter of all shards, when all stages are busy.
        driver_seconds: CPU time of the driver's process for each shard over the same span [s].
    """

    shards_per_second: float
    driver_seconds: float


class Sleep:
    """A stage: it takes its time and hands over the shard.

    Args:
        seconds: How long a shard takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._seconds:
            time.sleep(self._seconds)
        return row


def rehearse(shards: int, seconds: Sequence[float], slots: Sequence[int]) -> Rehearsal:
    """Send shards through sleeping stages; within a `ray_session`.

    Args:
        shards: How many.
        seconds: What each stage takes for one.
        slots: How many shards each stage can hold at once: its cores.
    """
    stages = ray.data.from_items([{"shard": index} for index in range(shards)], override_num_blocks=shards)
    for took, held in zip(seconds, slots, strict=True):
        processes = -(-held // THREADS)
        threads = -(-held // processes)
        strategy = ray.data.ActorPoolStrategy(
            size=processes, max_concurrent_calls_per_actor=threads, max_tasks_in_flight_per_actor=2 * threads
        )
        stages = stages.map(Sleep, fn_constructor_args=(took,), compute=strategy, num_cpus=0.01)
    driver, marks = psutil.Process(), []
    for done, _ in enumerate(stages.iter_rows(), start=1):
        if done in (shards // 4, 3 * shards // 4):
            marks.append((done, time.perf_counter(), sum(driver.cpu_times()[:2])))
    (first, begin, cpu_then), (last, end, cpu_now) = marks
    return Rehearsal((last - first) / (end - begin), (cpu_now - cpu_then) / (last - first))


def peak_memory(stop: threading.Event) -> int:
    """Watch this process and its Ray until told to stop, and give the largest sum of resident memory [bytes]."""
    peak = 0
    while not stop.wait(0.5):
        total = 0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, total)
    return peak
