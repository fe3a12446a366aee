"""Stage times of a screening: seconds in each stage, utilization of the workers, and the bottleneck."""

import time
from collections import Counter

from mat2spec.data.shards.step import READ, WRITE, ShardReport
from mat2spec.errors import counted
from mat2spec.predict.pipeline import GRAPH, PREDICT, STAGES
from mat2spec.storage.progress import format_rate

WORK = {
    READ: "reading the input",
    GRAPH: "building graphs",
    PREDICT: "predicting spectra",
    WRITE: "writing the results",
}

RAY, SUBPROCESSES = "Ray", "subprocesses"
"""Values of `engine` in a record."""

BUSY = 0.6
"""Utilization from which on the workers' own computation is the bottleneck."""


class StageTimes:
    """Sums the reports of all shards.

    Args:
        start: When the job started, by `time.perf_counter`.
        ray_ready: When Ray had started, or the work began without it.
        on_ray: Whether Ray's workers do the work; else subprocesses, one after the other.
    """

    def __init__(self, start: float, ray_ready: float, *, on_ray: bool = True) -> None:
        self._start = start
        self._on_ray = on_ray
        self._ray_ready = ray_ready
        self._first = 0.0
        self._first_worker_ready = 0.0
        self._seconds: Counter[str] = Counter()
        self._workers: set[str] = set()
        self.predictions = 0
        self.rejects = 0
        self.isolated = 0

    def add(self, report: ShardReport) -> None:
        """Add a shard."""
        if not self._first:
            self._first = time.perf_counter()
            self._first_worker_ready = max(self._ray_ready, self._first - sum(report.seconds.values()))
        self._seconds.update(report.seconds)
        self.predictions += report.results
        self.rejects += report.rejects
        if report.faults is None:
            self._workers.add(report.worker)
        elif self._on_ray:
            self.isolated += 1

    def record(self) -> dict[str, float | int | str]:
        """Return the entries for run.json and MLflow; to be called when the last shard is done.

        Workers are ready when the first of them begins with its first shard.
        """
        end = time.perf_counter()
        rows = self.predictions + self.rejects
        workers = max(1, len(self._workers))
        pipeline = end - self._ray_ready
        working = end - (self._first_worker_ready or self._ray_ready)
        stages = {stage: float(self._seconds[stage]) for stage in STAGES}
        utilization = (stages[GRAPH] + stages[PREDICT]) / (workers * working)
        return {
            "engine": RAY if self._on_ray else SUBPROCESSES,
            "rows": rows,
            "workers": workers,
            "isolated_shards": self.isolated,
            "ray_start_seconds": round(self._ray_ready - self._start, 3),
            "first_shard_seconds": round(self._first - self._start, 3),
            "pipeline_seconds": round(pipeline, 3),
            **{f"{stage}_seconds": round(seconds, 3) for stage, seconds in stages.items()},
            "rows_per_second": round(rows / pipeline, 1),
            "rows_per_second_after_start": round(rows / working, 1),
            "utilization": round(utilization, 3),
            "bottleneck": _bottleneck(stages, utilization, workers * working),
        }


def _bottleneck(stages: dict[str, float], utilization: float, available: float) -> str:
    """Name what would have to be faster for the job to be faster."""
    if utilization >= BUSY:
        return WORK[max((GRAPH, PREDICT), key=stages.__getitem__)]
    if stages[READ] + stages[WRITE] > BUSY * available:
        return WORK[max((READ, WRITE), key=stages.__getitem__)]
    return "starting processes, or waiting for the last shards"


def summary(record: dict[str, float | int | str]) -> str:
    """Format a record as a table of stages between two sentences."""
    seconds = [(work, float(record[f"{stage}_seconds"])) for stage, work in WORK.items()]
    total = sum(time for _, time in seconds) or 1.0
    engine = "after Ray had started" if record["engine"] == RAY else "without Ray"
    head = (
        f"{counted(int(record['rows']), 'row')} in {record['pipeline_seconds']:.1f} s {engine}, "
        f"{format_rate(float(record['rows_per_second_after_start']), 'row')} once workers were ready; "
        f"the first shard was written {record['first_shard_seconds']:.1f} s after the command started"
    )
    lines = [f"  {work:<20}{time:>10.1f} s of worker time{time / total:>7.0%}" for work, time in seconds]
    isolated = int(record["isolated_shards"])
    tail = (
        f"  {counted(int(record['workers']), 'worker')}, computing {record['utilization']:.0%} of the time; "
        f"bottleneck: {record['bottleneck']}"
    )
    tail += f"; {counted(isolated, 'shard')} processed in isolation" if isolated else ""
    return "\n".join([head, *lines, tail])
