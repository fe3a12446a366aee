"""Two jobs, one run: who may write, and what becomes of a lock whose holder died."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

import mat2spec.storage.lock
from mat2spec.errors import RunError, StorageError
from mat2spec.storage.location import Location, locate
from mat2spec.storage.lock import LOCK, Lease


@pytest.fixture(scope="module")
def store():
    server = ThreadedMotoServer(port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(params=["disk", "object store"])
def lock(request, tmp_path, store, monkeypatch) -> Location:
    """A lock on a disk, or in an object store, of a run whose holder gives a sign of life ten times a second."""
    monkeypatch.setattr(mat2spec.storage.lock, "BEAT", 0.1)
    monkeypatch.setattr(mat2spec.storage.lock, "SILENCE", 0.5)
    if request.param == "disk":
        return tmp_path / LOCK
    variables = {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=tmp_path.name.replace("_", "-").strip("-")[-60:])
    return locate(f"s3://{tmp_path.name.replace('_', '-').strip('-')[-60:]}/run/{LOCK}")


def change(lock: Location, **process: object) -> None:
    """Make the lock that of another holder."""
    content = json.loads(lock.read_bytes())
    content["process"] |= process
    lock.write_bytes(json.dumps(content | {"token": "another"}).encode())


def test_second_job_is_refused_at_once_and_the_lock_goes_with_its_holder(lock):
    with Lease(lock).held() as lease:
        lease.check()
        with pytest.raises(
            RunError,
            match=f"in use by another job .process {os.getpid()} on .*; wait for its end, or choose another --output",
        ):
            Lease(lock).held().__enter__()
    assert not lock.exists()
    with Lease(lock).held():
        pass


def test_lock_of_a_process_that_was_killed_holds_nobody(lock):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    with Lease(lock).held():
        content = lock.read_bytes()
    lock.write_bytes(content)
    change(lock, pid=int(gone.stdout))
    start = time.monotonic()
    with Lease(lock).held() as lease:
        lease.check()
    assert time.monotonic() - start < 0.5, "it was looked up, not waited for"


def test_number_of_a_dead_process_that_another_has_now_holds_nobody(lock):
    with Lease(lock).held():
        content = lock.read_bytes()
    lock.write_bytes(content)
    change(lock, created=1.0)
    with Lease(lock).held() as lease:
        lease.check()


def test_setting_the_clock_takes_the_lock_from_nobody(lock, monkeypatch):
    """A process is named by when it began, which the system tells by the clock; here it is an hour ahead all of a sudden."""
    true = psutil.boot_time()
    with Lease(lock).held():
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: true + 3600)
        assert psutil.Process().create_time() > time.time()
        with pytest.raises(RunError, match="in use by another job"):
            Lease(lock).held().__enter__()


def test_holder_on_another_machine_is_believed_as_long_as_its_lock_changes(lock):
    """Whatever its clock says: nothing of it is compared."""
    with Lease(lock).held():
        content = lock.read_bytes()
    lock.write_bytes(content)
    change(lock, machine=["another", ""])
    start = time.monotonic()
    with Lease(lock).held() as lease:
        lease.check()
    assert time.monotonic() - start > 0.5, "silence was waited for"

    with Lease(lock).held() as lease:
        lease._content["process"] = lease._content["process"] | {"machine": ["another", ""]}
        time.sleep(0.3)
        with pytest.raises(RunError, match="in use by another job"):
            Lease(lock).held().__enter__()


def test_holder_that_stood_still_notices_that_it_was_replaced(lock):
    with Lease(lock).held() as lease:
        change(lock)
        time.sleep(0.5)
        with pytest.raises(StorageError, match="another job took over"):
            lease.check()
    assert lock.exists(), "it is the other's"


def test_half_written_lock_is_nobodys(lock):
    lock.write_bytes(b'{"tok')
    with Lease(lock).held() as lease:
        lease.check()


def test_directory_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    with pytest.raises(RunError, match=r"nowhere: cannot be written \(No such file or directory\)"):
        Lease(Path(tmp_path, "nowhere", LOCK)).held().__enter__()
