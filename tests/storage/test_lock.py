"""One job at a time writes into a run, and what becomes of a lock whose holder is killed or stopped."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mat2spec.errors import RunError
from mat2spec.storage.location import Location, locate
from mat2spec.storage.lock import LOCK, RunLock

ROOT = Path(__file__).parents[2]

HOLDER = """
import subprocess, sys
from multiprocessing import get_context
from time import sleep
from mat2spec.storage.location import locate
from mat2spec.storage.lock import RunLock

def start_child(method):
    if method == "subprocess":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    child = get_context(method).Process(target=sleep, args=[600])
    child.start()
    return child

_, run, *methods = sys.argv
with RunLock(locate(run)):
    print(*[start_child(method).pid for method in methods], flush=True)
    sleep(600)
"""
"""Holds the lock of a run, and starts children by the methods that are named."""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def remote_run(tmp_path, store, monkeypatch) -> Location:
    """A run in an object store."""
    variables = {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    bucket = tmp_path.name.replace("_", "-").strip("-")[-60:]
    boto3.client("s3").create_bucket(Bucket=bucket)
    return locate(f"s3://{bucket}/run")


@pytest.fixture(params=["disk", "object store"])
def run(request, tmp_path) -> Location:
    return tmp_path if request.param == "disk" else request.getfixturevalue("remote_run")


@contextmanager
def holder(run: Location, *methods: str) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """Another process that holds the lock, and the ids of its children; all are killed at the end."""
    command = [sys.executable, "-c", HOLDER, str(run), *methods]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        children = [int(pid) for pid in process.stdout.readline().split()]
        try:
            yield process, children
        finally:
            process.kill()
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def refusal(run: Location, **options: bool) -> str:
    """The error of a job that must not get the lock."""
    with pytest.raises(RunError) as caught, RunLock(run, **options):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_second_job_is_refused_with_the_name_of_the_first(run):
    with RunLock(run):
        message = refusal(run)
    assert str(run) in message
    assert f"process {os.getpid()} on {socket.gethostname()}" in message


def test_lock_and_its_file_end_with_the_block_even_if_that_fails(run):
    with pytest.raises(ZeroDivisionError), RunLock(run):
        raise ZeroDivisionError
    assert not (run / LOCK).exists()
    with RunLock(run):
        assert (run / LOCK).exists()


def test_killed_holder_frees_the_lock_at_once_though_its_children_live_on(tmp_path, monkeypatch):
    """Ray starts its processes as subprocesses; multiprocessing forks, or asks a server to."""
    with holder(tmp_path, "subprocess", "fork", "forkserver") as (process, children):
        refusal(tmp_path)
        process.kill()
        process.wait()
        monkeypatch.setattr("mat2spec.storage.lock.WAIT", 0.0)  # it is tried once
        with RunLock(tmp_path):
            assert len(children) == 3
        for child in children:
            os.kill(child, 0)  # raises ProcessLookupError if it ended


def test_stopped_holder_keeps_the_lock(tmp_path):
    with holder(tmp_path) as (process, _):
        os.kill(process.pid, signal.SIGSTOP)
        assert f"process {process.pid} on" in refusal(tmp_path)


def test_force_does_not_break_the_lock_of_a_living_process(tmp_path):
    with holder(tmp_path) as (process, _):
        message = refusal(tmp_path, force_unlock=True)
    assert f"process {process.pid} on" in message
    assert "--force-unlock" not in message


def test_lock_file_that_a_killed_job_left_refuses_nobody(tmp_path):
    (tmp_path / LOCK).write_text("1\nhost\n")
    with RunLock(tmp_path):
        assert f"process {os.getpid()} on" in refusal(tmp_path)


def test_killed_job_leaves_its_lock_in_an_object_store_until_somebody_forces_it(remote_run):
    with holder(remote_run) as (process, _):
        process.kill()
        process.wait()
        message = refusal(remote_run)
        assert f"process {process.pid} on {socket.gethostname()} since {time.strftime('%Y-')}" in message
        assert "--force-unlock" in message
        with RunLock(remote_run, force_unlock=True):
            assert f"process {os.getpid()} on" in refusal(remote_run)
        with RunLock(remote_run):
            pass


def test_job_whose_lock_was_forced_leaves_the_new_lock_alone(remote_run):
    with RunLock(remote_run):
        (remote_run / LOCK).write_text("1\nanother\n2026-01-01 00:00:00 UTC\n")
    assert "process 1 on another since 2026-01-01" in refusal(remote_run)


def test_lock_in_an_object_store_with_unknown_content_still_locks(remote_run):
    (remote_run / LOCK).write_text("")
    assert "in use by another job" in refusal(remote_run)


class TestWithoutFlock:
    """File systems without flock, such as Lustre mounted without it: the lock is a file."""

    pytestmark = pytest.mark.filterwarnings("ignore:flock not supported:UserWarning")

    @pytest.fixture(autouse=True)
    def _no_flock(self, monkeypatch):
        def flock(*_: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr("fcntl.flock", flock)

    def test_second_job_is_refused_with_the_name_of_the_first(self, tmp_path):
        with RunLock(tmp_path):
            message = refusal(tmp_path)
        assert f"process {os.getpid()} on {socket.gethostname()})" in message
        assert not (tmp_path / LOCK).exists()

    def test_lock_of_another_machine_stays_until_somebody_forces_it(self, tmp_path):
        (tmp_path / LOCK).write_text("1\nanother\n")
        assert "--force-unlock" in refusal(tmp_path)
        with RunLock(tmp_path, force_unlock=True):
            assert f"process {os.getpid()} on" in refusal(tmp_path)


def test_directory_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(tmp_path / "file" / "run")
