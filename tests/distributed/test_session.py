"""The local Ray of a job."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import ray

from mat2spec.distributed.session import START_ATTEMPTS, check_session, local_head, ray_session
from mat2spec.errors import RunError, UnfinishedError

REASONS = (
    "The current node timed out during startup. This could happen because ...",
    "Failed to start GCS.  Last 1 lines of error files: ... The specified port is 35811. ...",
)
"""Messages of Ray where the machine is slow, and where another process has taken the port."""


@pytest.fixture
def slow_ray(monkeypatch):
    """Function that makes the first starts of Ray fail, for either reason; returns the processes that each leaves."""
    left: list[subprocess.Popen] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def slow(times: int) -> list[subprocess.Popen]:
        def init(**_: object) -> None:
            if len(left) < times:
                left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]))
                raise RuntimeError(REASONS[len(left) % len(REASONS)])

        monkeypatch.setattr(ray, "init", init)
        return left

    return slow


def test_ray_that_starts_too_slowly_is_started_again_and_leaves_nothing(slow_ray):
    left = slow_ray(2)
    with ray_session():
        assert len(left) == 2
        assert [process.wait(timeout=60) for process in left] == [-9, -9]


def test_ray_that_never_starts_is_one_line(slow_ray):
    left = slow_ray(START_ATTEMPTS)
    with pytest.raises(UnfinishedError, match="too busy; run the same command again") as caught, ray_session():
        pass
    assert "\n" not in str(caught.value)
    assert [process.wait(timeout=60) for process in left] == [-9] * START_ATTEMPTS


def test_other_failures_of_ray_are_not_repeated(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    calls = []

    def init(**_: object) -> None:
        calls.append(1)
        raise ValueError("no such setting")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="no such setting"), ray_session():
        pass
    assert len(calls) == 1


def test_ray_that_cannot_write_its_files_is_one_line_that_does_not_blame_the_results(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def init(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/scratch/ray")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RunError, match=r"Ray cannot start: .*'/scratch/ray'; RAY_TMPDIR sets") as caught, ray_session():
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="Ray uses TMPDIR on Linux only")
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_folder_whose_sockets_have_too_long_paths_is_refused_before_ray_starts(monkeypatch, variable):
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    check_session()
    room = 107 - len(f"/ray/session_2026-01-31_23-59-59_999999_{os.getpid()}/sockets/plasma_store")
    for longest in ("/" + (room - 1) * "x", "/" + (room - 3) * "x" + "ä"):  # the same number of bytes
        monkeypatch.setenv(variable, longest)
        check_session()
    monkeypatch.setenv(variable, f"{longest}x")
    with pytest.raises(RunError, match=r"^/x+äx: too long .* 108 bytes \(107 are allowed\); set RAY_TMPDIR to"):
        check_session()
    with pytest.raises(RunError, match="too long"), local_head():
        pass


WITH_A_TASK = """
import ray
from mat2spec.distributed.session import ray_session
with ray_session():
    print(ray.get(ray.remote(lambda: __import__("sys").executable).remote()))
"""


def test_workers_start_where_the_path_of_python_has_a_space(tmp_path, monkeypatch):
    """Ray starts workers by a shell; the job waited for them without a word."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "my crystals"
    venv.create(folder)
    packages = next(path for path in map(Path, sys.path) if (path / "ray").is_dir())
    next(folder.glob("lib/python*/site-packages")).joinpath("here.pth").write_text(
        f"{packages}\n{Path(__file__).parents[2]}\n"
    )
    python = folder / "bin" / "python"
    job = subprocess.run([python, "-c", WITH_A_TASK], capture_output=True, text=True, timeout=240)
    assert (job.returncode, job.stdout) == (0, f"{python}\n"), job.stderr
