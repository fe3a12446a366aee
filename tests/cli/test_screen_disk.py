"""A screening whose disk fills up, and one whose disk goes away while it works: one line, and what was done stays."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import wait_until
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


def told(error: str) -> list[str]:
    """What a job prints; Ray's C++ begins its own lines with a bracket."""
    return [line for line in error.splitlines() if not line.startswith("[")]


def test_run_on_a_full_disk_stops_in_one_line_and_goes_on_when_there_is_room(home, disk, tmp_path):
    made = disk / "run"
    with start(home, "--output", made, **with_faults({"*": "pause"}, tmp_path)) as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    (line,) = told(err)
    assert str(made) in line
    assert "No space left on device" in line
    kept = {file.name: file.read_bytes() for file in (made / "predictions").glob("*.parquet")}
    assert kept
    assert remount(disk, "size=50M")
    with start(home, "--output", made, **with_faults({"*": "pause"}, tmp_path)) as process:
        wait_until(lambda: len(shards(made)) > len(kept) or process.poll() is not None, "a shard more")
        wait_until(lambda: remount(disk, "ro"), "a moment with no file open for writing")
        _, err = process.communicate(timeout=240)
        assert remount(disk, "rw")
    assert process.returncode == 1, err
    (line,) = told(err)
    assert "Read-only file system" in line
    with start(home, "--output", made) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "211 input rows: 200 predictions, 11 rejects" in out
    assert {name: (made / "predictions" / name).read_bytes() for name in kept} == kept
    assert len(set(read(made, "predictions")["material_id"].to_pylist())) == 200
