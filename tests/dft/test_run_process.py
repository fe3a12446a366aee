"""A calculation in a process of its own: whatever the process does, the caller gets an answer or one line, in time."""

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
    """Run some lines as the program of a calculation of silicon."""

    def run(code: str, limits: Limits = LIMITS, **settings: object) -> dict:
        program = tmp_path / "program.py"
        program.write_text(f"import os, subprocess, time\ndef compute(structure, settings, log):\n    {code}\n")
        return run_program(sys.executable, program, silicon, settings, limits)

    return run


def ends(pid: int) -> None:
    """Wait until a process is no more."""
    end = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        assert time.monotonic() < end, "what the child has started outlives it"
        time.sleep(0.05)


def test_crystal_and_settings_go_in_and_the_answer_comes_out(run, silicon):
    answer = run("return {'sites': len(structure['atomic_numbers']), 'twice': 2 * settings['number']}", number=21)
    assert answer.pop("cpu_seconds") >= 0
    assert answer == {"sites": len(silicon), "twice": 42}


def test_child_computes_on_as_many_threads_as_it_may(run):
    assert run("return {'threads': os.environ['OMP_NUM_THREADS']}", Limits(2.0, 60.0, 3))["threads"] == "3"


def test_child_that_hangs_is_killed_with_what_it_started(run, tmp_path):
    pid = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(AttemptError, match="no answer within 3 s; raise --time-limit"):
        run(
            f"open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid)); time.sleep(600)",
            Limits(2.0, 3.0),
        )
    assert time.monotonic() - started < 60
    if pid.exists():  # not if starting a Python took all the time
        ends(int(pid.read_text()))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os.kill(os.getpid(), 11)", "died without an answer.*signal 11"),
        ("os.kill(os.getpid(), 9)", "killed, most likely because the machine ran out of memory"),
        ("os._exit(3)", "died without an answer.*exit code 3: nothing on stderr"),
        ("raise ValueError('no\\n such thing')", "^ValueError: no such thing$"),
        ("return {'not': {1, 2}}", "exit code 1: TypeError"),
    ],
)
def test_child_that_fails_says_why_in_one_line(run, code, said):
    with pytest.raises(AttemptError, match=said) as failure:
        run(code)
    assert "\n" not in str(failure.value)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_child_gets_no_more_memory_than_its_limit_and_no_second_attempt(run):
    with pytest.raises(CalculationError, match=r"silicon: out of memory .limit 0.5 GB.; raise --memory-gb"):
        run("return {'size': len(bytearray(10**9))}", Limits(0.5, 60.0))


@pytest.mark.skipif(sys.platform != "linux", reason="only there a child can ask to end with its parent")
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
    ends(int(pid.read_text()))


def test_nothing_is_left_on_disk(run, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    run("return {}")
    assert not os.listdir(folder)
