"""What a job shows of its progress on a terminal and in a log."""

import io
import re

import pytest

from mat2spec.storage.progress import Progress, format_duration, format_rate


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch) -> Terminal:
    """Make stderr a terminal; called in the test itself, as pytest sets stderr anew after the fixtures."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    return terminal


def test_log_has_a_first_line_early_and_then_one_a_minute(clock, capsys):
    with Progress(600, "row") as progress:
        for _ in range(12):
            clock[0] += 15
            progress.step(50, reject=1)
    assert capsys.readouterr().err.splitlines() == [
        "50/600 rows, 1 reject, 3.3 rows/s, 3 min left",
        "250/600 rows, 5 rejects, 3.3 rows/s, 105 s left",
        "450/600 rows, 9 rejects, 3.3 rows/s, 45 s left",
    ]


def test_log_has_a_line_also_while_nothing_is_done(clock, capsys):
    with Progress(6, "material") as progress:
        for _ in range(2):
            clock[0] += 61
            progress.step(0)
    assert capsys.readouterr().err.splitlines() == ["0/6 materials, 61 s elapsed", "0/6 materials, 2 min elapsed"]


def test_log_is_plain_text(clock, capsys):
    with Progress(10, "row") as progress:
        clock[0] += 60
        progress.step(5)
    text = capsys.readouterr().err
    assert text == "5/10 rows, 5 rows/min, 60 s left\n"


def test_terminal_has_a_bar_that_is_redrawn(clock, monkeypatch):
    terminal = use_terminal(monkeypatch)
    with Progress(10_000, "row") as progress:
        clock[0] += 1
        progress.step(0)
        for done in (4_000, 1, 5_999):
            clock[0] += 0.1 if done == 1 else 10
            progress.step(done, reject=1)
    *lines, end = terminal.getvalue().split("\r")[1:]
    shown = [re.search(r"(\d+)%\|.*\| (\d+)/10000 rows", line).groups() for line in lines]
    assert shown == [("0", "0"), ("0", "0"), ("40", "4000"), ("100", "10000")], "not more often than an eye can follow"
    assert "1 reject, 364 rows/s, 16 s left" in lines[2]
    assert end.endswith("\n")
    assert "10000/10000 rows, 3 rejects" in end
    assert not any("\n" in line for line in lines)


def test_error_after_a_bar_begins_on_a_line_of_its_own(clock, monkeypatch):
    terminal = use_terminal(monkeypatch)
    with pytest.raises(KeyError), Progress(10, "row"):
        raise KeyError
    assert terminal.getvalue().endswith("\n")


def test_resumed_job_counts_what_was_done_before_but_not_in_its_rate(clock, capsys):
    with Progress(1000, "row", initial=900) as progress:
        clock[0] += 20
        progress.step(50, reject=2)
    assert capsys.readouterr().err == "950/1000 rows, 2 new rejects, 2.5 rows/s, 20 s left\n"


def test_short_or_finished_job_shows_nothing_in_a_log(clock, capsys):
    with Progress(1, "shard") as progress:
        progress.step()
    with Progress(3, "shard", initial=3):
        clock[0] += 100
    with Progress(0, "shard"):
        clock[0] += 100
    assert capsys.readouterr().err == ""


def test_finished_job_shows_nothing_on_a_terminal(clock, monkeypatch):
    terminal = use_terminal(monkeypatch)
    with Progress(3, "shard", initial=3):
        clock[0] += 100
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds_each", "rate"),
    [
        (0.001, "1000 materials/s"),
        (0.4, "2.5 materials/s"),
        (1, "1 material/s"),
        (5, "12 materials/min"),
        (90, "40 materials/h"),
        (3600, "1 material/h"),
        (7200, "0.5 materials/h"),
    ],
)
def test_slow_rate_is_shown_per_minute_or_per_hour(seconds_each, rate):
    assert format_rate(1 / seconds_each, "material") == rate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (119.0, "119 s"), (600.0, "10 min"), (36_000.0, "10.0 h"), (302_400.0, "3.5 days")],
)
def test_durations_are_short(seconds, text):
    assert format_duration(seconds) == text
