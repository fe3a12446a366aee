"""A screening whose disk fills up, and one whose disk goes away while it works: one line, and what was done stays."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import job_lines, wait_until
from test_screen import SHARDS, STEP, gate_from, read, shards, start


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


def test_run_on_a_full_disk_stops_in_one_line_and_goes_on_when_there_is_room(
    home, disk, table_with_bad_rows, tmp_path_factory
):
    made = disk / "run"
    with start(home, "--output", made) as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    assert len(job_lines(err)) == 1, err
    (line,) = job_lines(err)
    assert str(made) in line
    assert "No space left on device" in line
    kept = {file.name: file.read_bytes() for file in (made / "predictions").glob("*.parquet")}
    assert kept
    assert remount(disk, "size=50M")
    first_held = number(max(kept)) + STEP
    assert first_held < SHARDS, "some shards must be left for the disk that goes away"
    gate = gate_from(first_held, table_with_bad_rows[0], tmp_path_factory.mktemp("gate"))
    with start(home, "--output", made, **gate.variables) as process:
        wait_until(lambda: gate.held() or process.poll() is not None, "the worker is held")
        wait_until(lambda: len(shards(made)) > len(kept) or process.poll() is not None, "a shard more")
        with read_only(made / "predictions"):
            gate.open()
            _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    assert len(job_lines(err)) == 1, err
    (line,) = job_lines(err)
    assert "Read-only file system" in line
    with start(home, "--output", made) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "211 input rows: 200 predictions, 11 rejects" in out
    assert {name: (made / "predictions" / name).read_bytes() for name in kept} == kept
    assert len(set(read(made, "predictions")["material_id"].to_pylist())) == 200


def number(shard: str) -> int:
    """Number of a shard, from the name of its file."""
    return int(Path(shard).stem.removeprefix("part-"))
