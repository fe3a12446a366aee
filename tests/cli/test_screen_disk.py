"""A screening whose disk fills up, and one whose disk goes away while it works: one line, and what was done stays."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import job_lines, wait_until
from test_screen import read, shards, start, with_faults


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


def test_run_on_a_full_disk_stops_in_one_line_and_goes_on_when_there_is_room(home, disk, tmp_path):
    made = disk / "run"
    with start(home, "--output", made, **with_faults({"*": "pause"}, tmp_path)) as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    (line,) = job_lines(err)
    assert str(made) in line
    assert "No space left on device" in line
    kept = {file.name: file.read_bytes() for file in (made / "predictions").glob("*.parquet")}
    assert kept
    assert remount(disk, "size=50M")
    with start(home, "--output", made, **with_faults({"*": "pause"}, tmp_path)) as process:
        wait_until(lambda: len(shards(made)) > len(kept) or process.poll() is not None, "a shard more")
        with read_only(made / "predictions"):
            _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    (line,) = job_lines(err)
    assert "Read-only file system" in line
    with start(home, "--output", made) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "211 input rows: 200 predictions, 11 rejects" in out
    assert {name: (made / "predictions" / name).read_bytes() for name in kept} == kept
    assert len(set(read(made, "predictions")["material_id"].to_pylist())) == 200
