"""Calculations in a separate process: the caller gets an answer or a one-line error in time, whatever happens."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mat2spec.dft.engine import AttemptError, Limits
from mat2spec.dft.run_process import run_program
from mat2spec.errors import CalculationError

LIMITS = Limits(memory_gb=2.0, seconds=60.0)


@pytest.fixture
def run(tmp_path, silicon):
    """A function that runs a line of code as the program of a calculation of silicon."""

    def run(code: str, limits: Limits = LIMITS, **settings: object) -> dict:
        program = tmp_path / "program.py"
        program.write_text(f"import os, subprocess, time\ndef compute(structure, settings, log):\n    {code}\n")
        return run_program(sys.executable, program, silicon, settings, limits)

    return run


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""
    end = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        assert time.monotonic() < end, "a process that the child has started outlives it"
        time.sleep(0.05)


def test_program_gets_crystal_and_settings_and_returns_an_answer(run, silicon):
    answer = run("return {'sites': len(structure['atomic_numbers']), 'twice': 2 * settings['number']}", number=21)
    assert answer.pop("cpu_seconds") >= 0
    assert answer == {"sites": len(silicon), "twice": 42}


def test_child_uses_the_number_of_threads_of_its_limits(run):
    assert run("return {'threads': os.environ['OMP_NUM_THREADS']}", Limits(2.0, 60.0, 3))["threads"] == "3"


def test_child_that_hangs_is_killed_with_the_processes_it_started(run, tmp_path):
    pid = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(AttemptError, match=r" 3 s; .*--limits.time-limit"):
        run(
            f"open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid)); time.sleep(600)",
            Limits(2.0, 3.0),
        )
    assert time.monotonic() - started < 300, "the child would sleep for 600 s"
    if pid.exists():  # not if starting a Python took all the time
        wait_for_end(int(pid.read_text()))


@pytest.mark.parametrize(
    ("code", "fact"),
    [
        ("os.kill(os.getpid(), 11)", "signal 11"),
        ("os.kill(os.getpid(), 9)", "killed.*memory"),
        ("os._exit(3)", "exit code 3: nothing on stderr"),
        ("raise ValueError('no\\n such thing')", "^ValueError: no such thing$"),
        ("return {'not': {1, 2}}", "exit code 1: TypeError"),
    ],
)
def test_child_that_fails_is_one_line_with_the_reason(run, code, fact):
    with pytest.raises(AttemptError, match=fact) as failure:
        run(code)
    assert "\n" not in str(failure.value)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit works on Linux only")
def test_child_that_exceeds_its_memory_limit_has_no_second_attempt(run):
    with pytest.raises(CalculationError, match=r"silicon: .*memory.* 0.5 GB.*--limits.memory-gb"):
        run("return {'size': len(bytearray(10**9))}", Limits(0.5, 60.0))


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux a child can end with its parent")
def test_child_ends_with_the_worker_that_started_it(tmp_path):
    pid = tmp_path / "pid"
    (tmp_path / "program.py").write_text(
        f"import os, time\ndef compute(*_):\n    open({str(pid)!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    )
    code = f"""
import numpy as np, sys
from pathlib import Path
from mat2spec.structure.crystal import Crystal
from mat2spec.dft.engine import Limits
from mat2spec.dft.run_process import run_program
crystal = Crystal("x", np.array([14], np.uint8), 3 * np.eye(3), np.zeros((1, 3)))
run_program(sys.executable, Path({str(tmp_path / "program.py")!r}), crystal, {{}}, Limits(2.0, 600.0))
"""
    worker = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < end
        assert worker.poll() is None
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_for_end(int(pid.read_text()))


def test_nothing_is_left_on_disk(run, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    run("return {}")
    assert not os.listdir(folder)
