"""Stage times of a screening and the bottleneck that they show."""

import re

import pytest

from mat2spec.data.shards.step import READ, WRITE, ShardReport
from mat2spec.predict.pipeline import GRAPH, PREDICT
from mat2spec.predict.timing import StageTimes, summary


@pytest.fixture
def clock(monkeypatch):
    """Clock set by the test."""
    now = [1000.0]
    monkeypatch.setattr("mat2spec.predict.timing.time.perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "bottleneck"),
    [
        ({READ: 1, GRAPH: 20, PREDICT: 70, WRITE: 2}, "predicting spectra"),
        ({READ: 1, GRAPH: 60, PREDICT: 30, WRITE: 2}, "building graphs"),
        ({READ: 90, GRAPH: 10, PREDICT: 20, WRITE: 2}, "reading the input"),
        ({READ: 1, GRAPH: 10, PREDICT: 20, WRITE: 99}, "writing the results"),
        ({READ: 1, GRAPH: 10, PREDICT: 20, WRITE: 2}, "starting processes, or waiting for the last shards"),
    ],
)
def test_summary_names_the_bottleneck(clock, seconds, bottleneck):
    times = StageTimes(980.0, 990.0)
    clock[0] = 1010.0
    times.add(ShardReport("part-000000", 4, 1, {PREDICT: 5.0}, worker="a"))
    rest = seconds | {PREDICT: seconds[PREDICT] - 5}
    times.add(ShardReport("part-000001", 86, 9, {stage: float(time) for stage, time in rest.items()}, worker="b"))
    clock[0] = 1055.0
    record = times.record()
    assert record["bottleneck"] == bottleneck
    assert (record["rows"], record["rows_per_second_after_start"], record["first_shard_seconds"]) == (100, 2.0, 30.0)
    assert record["utilization"] == pytest.approx((seconds[GRAPH] + seconds[PREDICT]) / (2 * 50), abs=1e-3)
    assert re.search(rf"2 workers, .*{record['utilization']:.0%} .*{bottleneck}$", summary(record))
