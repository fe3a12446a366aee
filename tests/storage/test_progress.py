"""What a job says of itself while it runs, and at its end."""

import re

import pytest

from mat2spec.predict.pipeline import GRAPH, PREDICT, READ, WRITE, Done
from mat2spec.predict.timing import StageTimes, told
from mat2spec.storage.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [1000.0]
    for module in ("mat2spec.storage.progress", "mat2spec.predict.timing"):
        monkeypatch.setattr(f"{module}.time.perf_counter", lambda: now[0])
    return now


def test_log_has_a_line_now_and_then(clock, capsys):
    progress = Progress(600, "rows")
    for _ in range(6):
        clock[0] += 30
        progress.step(100, rejects=1)
    assert capsys.readouterr().err.splitlines() == [
        "200/600 rows, 2 rejects, 3 rows/s, 120 s left".replace("120 s", "2 min"),
        "400/600 rows, 4 rejects, 3 rows/s, 60 s left",
        "600/600 rows, 6 rejects, 3 rows/s, 0 s left",
    ]


def test_terminal_has_one_line_that_lives(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(10_000, "rows")
    clock[0] += 1
    progress.step(0)
    for done in (4_000, 1, 5_999):
        clock[0] += 0.1 if done == 1 else 10
        progress.step(done)
    lines = capsys.readouterr().err.split("\r")[1:]
    assert [line.split(" rows")[0] for line in lines] == ["0/10000", "4000/10000", "10000/10000"], (
        "not more often than an eye can follow"
    )
    assert "364 rows/s, 16 s left" in lines[1]
    assert lines[-1].endswith("\n")
    assert not any("\n" in line for line in lines[:-1])


def test_short_job_says_nothing_in_a_log(capsys):
    Progress(1, "shards").step()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "bottleneck"),
    [
        ({READ: 1, GRAPH: 20, PREDICT: 70, WRITE: 2}, "predicting spectra"),
        ({READ: 1, GRAPH: 60, PREDICT: 30, WRITE: 2}, "building graphs"),
        ({READ: 90, GRAPH: 10, PREDICT: 20, WRITE: 2}, "reading the input"),
        ({READ: 1, GRAPH: 10, PREDICT: 20, WRITE: 99}, "writing the results"),
        ({READ: 1, GRAPH: 10, PREDICT: 20, WRITE: 2}, "processes that start, or wait for the last shards"),
    ],
)
def test_report_names_what_a_faster_job_would_need(clock, seconds, bottleneck):
    times = StageTimes(start=980.0)
    clock[0] = 1010.0
    times.add(Done(90, 10, seconds))
    clock[0] = 1055.0
    record = times.record(2, 990.0, 1005.0)
    assert record["bottleneck"] == bottleneck
    assert (record["rows"], record["rows_per_second_after_start"], record["first_shard_seconds"]) == (100, 2.0, 30.0)
    assert record["utilisation"] == pytest.approx((seconds[GRAPH] + seconds[PREDICT]) / (2 * 50), abs=1e-3)
    assert re.search(
        rf"2 workers computed {record['utilisation']:.0%} of the time; bottleneck: {bottleneck}$", told(record)
    )
