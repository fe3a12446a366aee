"""A screening whose disk fills up, and one whose disk goes away while it works: one line, and what was done stays."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import Head, job_lines
from screening import DONE, assert_complete, gate_before_writing, predicted, read, start, wait_until_held

pytestmark = pytest.mark.timeout(1200)  # a busy machine takes long to start so many processes


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk with room for a few shards."""
    made = tmp_path / "disk"
    made.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", made], capture_output=True).returncode
    ):
        pytest.skip("a small disk is made by mounting it, which takes root")
    yield made
    subprocess.run(["umount", "--lazy", made], capture_output=True)


def remount(disk: Path, option: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{option}", disk], capture_output=True).returncode == 0


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder over itself, read-only: the disk itself is busy, as the job has its lock open."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def finish(made: Path, home: Path, head: Head) -> None:
    """Run the same command again, submitted: what was done stays as it was."""
    kept = predicted(made)
    code, output = head.run("python", "jobs/screen.py", "screen.yaml", "--output", made, home=home)
    assert code == 0, output
    assert f"{DONE} in {made}" in output
    assert kept.items() <= predicted(made).items()


def test_run_on_a_full_disk_stops_in_one_line_and_goes_on_when_there_is_room(
    home, disk, head, checkpoint, table_with_bad_rows
):
    made = disk / "run"
    with start(home, "--output", made) as process:
        _, err = process.communicate(timeout=480)
    assert process.returncode == 1, err
    (line,) = job_lines(err)
    assert str(made) in line
    assert "No space left on device" in line
    assert predicted(made)
    assert remount(disk, "size=50M")
    finish(made, home, head)
    assert_complete(read(made, "predictions"), read(made, "rejects"), checkpoint, table_with_bad_rows)


def test_disk_that_becomes_read_only_stops_the_run_in_one_line(
    home, disk, head, checkpoint, table_with_bad_rows, tmp_path_factory
):
    made = disk / "run"
    assert remount(disk, "size=50M")
    gate = gate_before_writing("predictions", tmp_path_factory.mktemp("gate"))
    with start(home, "--output", made, **gate.variables) as process:
        wait_until_held(gate, process)
        with read_only(made / "predictions"):
            gate.open()
            _, err = process.communicate(timeout=480)
    assert process.returncode == 1, err
    (line,) = job_lines(err)
    assert "Read-only file system" in line
    assert predicted(made)
    finish(made, home, head)
    assert_complete(read(made, "predictions"), read(made, "rejects"), checkpoint, table_with_bad_rows)
