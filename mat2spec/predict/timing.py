"""Where the time of a screening went: seconds of each stage, how busy the workers were, and what held them up."""

import time
from collections import Counter

from mat2spec.predict.pipeline import GRAPH, PREDICT, READ, STAGES, WRITE, Done

WORK = {
    READ: "reading the input",
    GRAPH: "building graphs",
    PREDICT: "predicting spectra",
    WRITE: "writing the results",
}

BUSY = 0.6
"""Share of the workers' time below which it is not their work that holds a screening up."""


class StageTimes:
    """Adds up what the workers tell of their shards.

    Args:
        start: When the job began, by `time.perf_counter`.
    """

    def __init__(self, start: float) -> None:
        self._start, self._first = start, 0.0
        self._seconds: Counter[str] = Counter()
        self.predictions = self.rejects = self.isolated = 0

    def add(self, done: Done, *, isolated: bool = False) -> None:
        """Add a shard."""
        self._first = self._first or time.perf_counter()
        self._seconds.update(done.seconds)
        self.predictions += done.predictions
        self.rejects += done.rejects
        self.isolated += isolated

    def record(self, workers: int, ray_ready: float, began: float) -> dict[str, float | int | str]:
        """Give what run.json and MLflow keep; call it when the last shard is done.

        Args:
            workers: Processes that computed.
            ray_ready: When Ray had started, by `time.perf_counter`.
            began: When the first of them was ready.
        """
        rows, end = self.predictions + self.rejects, time.perf_counter()
        pipeline, working = end - ray_ready, end - (began or ray_ready)
        stages = {stage: self._seconds[stage] for stage in STAGES}
        busy = (stages[GRAPH] + stages[PREDICT]) / (workers * working)
        return {
            "rows": rows,
            "workers": workers,
            "isolated_shards": self.isolated,
            "ray_start_seconds": round(ray_ready - self._start, 3),
            "first_shard_seconds": round(self._first - self._start, 3),
            "pipeline_seconds": round(pipeline, 3),
            **{f"{stage}_seconds": round(seconds, 3) for stage, seconds in stages.items()},
            "rows_per_second": round(rows / pipeline, 1),
            "rows_per_second_after_start": round(rows / working, 1),
            "utilisation": round(busy, 3),
            "bottleneck": _bottleneck(stages, busy, workers * working),
        }


def _bottleneck(stages: dict[str, float], busy: float, available: float) -> str:
    """Name what a faster job would need to be faster at."""
    if busy >= BUSY:
        return WORK[max((GRAPH, PREDICT), key=stages.__getitem__)]
    if stages[READ] + stages[WRITE] > BUSY * available:
        return WORK[max((READ, WRITE), key=stages.__getitem__)]
    return "processes that start, or wait for the last shards"


def told(record: dict[str, float | int | str]) -> str:
    """Say in lines what a record holds."""
    seconds = [(work, float(record[f"{stage}_seconds"])) for stage, work in WORK.items()]
    total = sum(time for _, time in seconds) or 1.0
    lines = [f"  {work:<20}{time:>10.1f} s of the workers' time{time / total:>7.0%}" for work, time in seconds]
    rate = f"{record['rows_per_second_after_start']:.0f} rows/s once workers were ready"
    begun = f"the first shard was written {record['first_shard_seconds']:.1f} s after the command began"
    head = f"{record['rows']} rows in {record['pipeline_seconds']:.1f} s after Ray's start, {rate}; {begun}"
    isolated = f"; {record['isolated_shards']} shards done in isolation" if record["isolated_shards"] else ""
    tail = f"  {record['workers']} workers computed {record['utilisation']:.0%} of the time; bottleneck: {record['bottleneck']}{isolated}"
    return "\n".join([head, *lines, tail])
