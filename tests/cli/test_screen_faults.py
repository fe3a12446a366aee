"""Screenings that are killed, stopped and disturbed at a named point: each ends with what an undisturbed one holds."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from faults import with_faults
from running import Head, job_lines
from screening import (
    DONE,
    HELD_FROM,
    SHARDS,
    assert_complete,
    end,
    gate_at_rows,
    gate_before_writing,
    kill,
    predicted,
    read,
    start,
    wait_until_held,
)

pytestmark = pytest.mark.timeout(1200)  # a busy machine takes long to start so many processes

SUBMISSION = ("python", "jobs/screen.py", "screen.yaml", "--output")


@pytest.fixture
def finish(home: Path, head: Head, checkpoint, table_with_bad_rows) -> Callable[[Path], None]:
    """Run the same command again, submitted; nothing is lost, and what was done stays as it was."""

    def finish_run(made: Path) -> None:
        first = predicted(made)
        assert 0 < len(first) < SHARDS
        assert not (made / "catalog.duckdb").exists()
        code, output = head.run(*SUBMISSION, made, home=home)
        assert code == 0, output
        assert f"{DONE} in {made}" in output
        now = predicted(made)
        assert {path: now[path] for path in first} == first
        assert len(now) == SHARDS
        assert not [path for path in made.rglob("*") if path.name.startswith(".")]
        assert_complete(read(made, "predictions"), read(made, "rejects"), checkpoint, table_with_bad_rows)

    return finish_run


def test_driver_is_killed_between_the_two_files_of_a_shard(home, finish, tmp_path):
    made = home / "killed-driver"
    gate = gate_before_writing("predictions", tmp_path)
    with start(home, "--output", made, **gate.variables) as process:
        wait_until_held(gate, process)
        others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
    end(others)
    assert (made / f"rejects/part-{HELD_FROM:06d}.parquet").exists()
    assert len(predicted(made)) == HELD_FROM
    finish(made)


def test_raylet_is_killed_before_a_commit(home, finish, tmp_path):
    made = home / "killed-raylet"
    gate = gate_before_writing("rejects", tmp_path)
    with start(home, "--output", made, **gate.variables) as process:
        wait_until_held(gate, process)
        others = psutil.Process(process.pid).children(recursive=True)
        kill("raylet", others)
        process.communicate(timeout=240)
    assert process.returncode not in (0, 2)
    end(others)
    finish(made)


def test_interrupt_while_rows_are_read(home, finish, table_with_bad_rows, tmp_path):
    made = home / "interrupted"
    gate = gate_at_rows(table_with_bad_rows[0], tmp_path)
    with start(home, "--output", made, **gate.variables) as process:
        wait_until_held(gate, process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (1, "")
    (line,) = job_lines(err)
    assert line.startswith("interrupted; ")
    finish(made)


def test_job_is_stopped_between_the_two_files_of_a_shard(home, head, finish, tmp_path):
    made = home / "stopped"
    gate = gate_before_writing("predictions", tmp_path)
    with head.submit(*SUBMISSION, made, home=home, variables=gate.variables, name="stopped") as process:
        wait_until_held(gate, process)
        assert "was stopped" in head.stop("stopped")
        process.communicate(timeout=240)
    finish(made)


def test_worker_is_killed_between_the_two_files_of_a_shard(home, head, checkpoint, table_with_bad_rows, tmp_path):
    """The job itself goes on."""
    made = home / "killed-worker"
    gate = gate_before_writing("predictions", tmp_path)
    with head.submit(*SUBMISSION, made, home=home, variables=gate.variables) as process:
        os.kill(wait_until_held(gate, process), signal.SIGKILL)
        gate.open()
        output = process.communicate(timeout=480)[0]
    assert process.returncode == 0, output
    assert f"{DONE} in {made}" in output
    # Ray may have tried the shards of the killed worker again; if not, they were isolated, and no others.
    assert re.search(
        r"1 worker, .*\d+% .*bottleneck: [^;\n]*(; \d shards? [^;\n]*in isolation)?$", output, re.MULTILINE
    )
    assert_complete(read(made, "predictions"), read(made, "rejects"), checkpoint, table_with_bad_rows)


def test_second_job_on_a_run_is_refused(home, head, job, checkpoint, table_with_bad_rows, tmp_path):
    made = home / "twice"
    gate = gate_before_writing("rejects", tmp_path)
    with head.submit(*SUBMISSION, made, home=home, variables=gate.variables) as process:
        wait_until_held(gate, process)
        second = job("screen", "screen.yaml", "--output", made)
        gate.open()
        output = process.communicate(timeout=480)[0]
    assert (second.code, second.err.count("\n")) == (2, 1)
    assert re.search(rf"{made}: in use by another job \(process \d+ on ", second.err)
    assert process.returncode == 0, output
    assert_complete(read(made, "predictions"), read(made, "rejects"), checkpoint, table_with_bad_rows)


def test_checkpoint_that_vanishes_meanwhile_is_not_missed(
    home, head, checkpoint, checkpoint_directory, table_with_bad_rows, tmp_path
):
    made, copy = home / "without-checkpoint", home / "copied-checkpoint"
    shutil.copytree(checkpoint_directory, copy)
    gate = gate_before_writing("rejects", tmp_path, shard=0)
    with head.submit(*SUBMISSION, made, "--checkpoint", copy, home=home, variables=gate.variables) as process:
        wait_until_held(gate, process)
        shutil.rmtree(copy)
        gate.open()
        output = process.communicate(timeout=480)[0]
    assert process.returncode == 0, output
    assert_complete(read(made, "predictions"), read(made, "rejects"), checkpoint, table_with_bad_rows)


def test_rows_that_end_their_process_are_rejected_and_nothing_else_suffers(
    home, head, table_with_bad_rows, tmp_path, checkpoint
):
    """Rows raise, crash, hang and are killed with their process."""
    table, reasons = table_with_bad_rows
    good = [name for name in table["material_id"].to_pylist() if name not in reasons]
    died, late, odd = "WorkerDiedError", "TimeLimitError", "ZeroDivisionError"
    deeds = {
        good[20]: ("segv", "graph", died),
        good[60]: ("hang", "graph", late),
        good[61]: ("predict:raise", "predict", odd),
        good[120]: ("predict:kill", "predict", died),
        good[150]: ("raise", "graph", odd),
    }
    made = home / "poisoned"
    variables = with_faults({name: fault for name, (fault, _, _) in deeds.items()}, tmp_path)
    options = ("--inference.seconds_per_shard", "10")
    with head.submit(*SUBMISSION, made, *options, home=home, variables=variables) as process:
        output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    found = {row["material_id"]: (row["stage"], row["error_type"]) for row in read(made, "rejects").to_pylist()}
    reasons = reasons | {name: (stage, error, "") for name, (_, stage, error) in deeds.items()}
    assert found == {name: (stage, error) for name, (stage, error, _) in reasons.items()}
    assert "211 input rows: 195 predictions, 16 rejects" in output
    assert_complete(read(made, "predictions"), read(made, "rejects"), checkpoint, (table, reasons))
