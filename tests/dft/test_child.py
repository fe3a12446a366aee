"""A calculation in a process of its own: whatever the process does, the caller gets an answer or one line, in time."""

import os
import sys
import time

import psutil
import pytest

from mat2spec.dft.calculation import Limits
from mat2spec.dft.child import ChildError, run_child

LIMITS = Limits(memory_gb=2.0, seconds=60.0)

ANSWER = "import json, sys; json.dump({}, open(sys.argv[2], 'w'))"


def run(code: str, limits: Limits = LIMITS, **request: object) -> dict:
    return run_child([sys.executable, "-c", code], request, limits, {})


def test_request_and_answer_are_json():
    code = "import json, sys; r = json.load(open(sys.argv[1])); json.dump({'twice': 2 * r['number']}, open(sys.argv[2], 'w'))"
    assert run(code, number=21) == {"twice": 42}


def test_child_computes_on_one_thread():
    assert run(ANSWER.format("{'threads': __import__('os').environ['OMP_NUM_THREADS']}")) == {"threads": "1"}


def test_child_that_hangs_is_killed_with_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    code = f"import subprocess, time; p = subprocess.Popen(['sleep', '600']); open('{pid}', 'w').write(str(p.pid)); time.sleep(600)"
    started = time.monotonic()
    with pytest.raises(ChildError, match="no answer within 10 s; raise --time_limit"):
        run(code, Limits(2.0, 10.0))
    assert time.monotonic() - started < 60
    end = time.monotonic() + 30
    while psutil.pid_exists(int(pid.read_text())) and psutil.Process(int(pid.read_text())).status() != "zombie":
        assert time.monotonic() < end, "what the child has started outlives it"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "died without an answer.*signal 11"),
        ("import os; os.kill(os.getpid(), 9)", "most likely out of memory .limit 2 GB.; raise --memory_gb"),
        ("raise ValueError('no such thing')", "exit code 1: ValueError: no such thing"),
        (ANSWER.format("{'error_type': 'KohnShamConvergenceError', 'error': 'did not converge'}"), "KohnShamConvergenceError: did not"),
        (ANSWER.format("{'error_type': 'MemoryError', 'error': ''}"), "out of memory"),
    ],
)
def test_child_that_fails_says_why_in_one_line(code, said):
    with pytest.raises(ChildError, match=said) as failure:
        run(code)
    assert "\n" not in str(failure.value)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_child_gets_no_more_memory_than_its_limit():
    with pytest.raises(ChildError, match=r"out of memory .limit 0.5 GB"):
        run("b = bytearray(10**9)", Limits(0.5, 60.0))


def test_answer_that_is_half_written_does_not_count():
    with pytest.raises(ChildError, match="died without an answer"):
        run("import sys; open(sys.argv[2] + '.part', 'w').write(json := '{'); sys.exit(3)")


def test_nothing_is_left_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(ANSWER.format("{}"))
    assert not os.listdir(tmp_path)
