"""The lock of a run: one job at a time writes into a run directory."""

import os
import socket
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from upath import UPath

from mat2spec.errors import RunError
from mat2spec.storage.location import Location, error_reason, store_errors_as_oserror

LOCK = ".lock"

WAIT = 2.0
"""[s] For a holder that is just ending: of a killed process the kernel frees the memory first and the lock after it."""


class RunLock(AbstractContextManager[None]):
    """A lock that is held for as long as a `with` block lasts; a second job is refused.

    On a disk it is the kernel's `flock` of RUN/.lock: it ends with its process, however that dies, and a stopped
    process keeps it. It reaches other machines on NFSv4 and on Lustre mounted with `-o flock`; other network file
    systems may lock for one machine only. Where there is no `flock`, as on object stores, the lock is that RUN/.lock
    exists: a killed job leaves it behind, and `force_unlock` removes it.

    Args:
        run: The run directory.
        force_unlock: Whether to remove a lock that merely exists. A lock of the kernel has a living holder and stays.
    """

    def __init__(self, run: Location, *, force_unlock: bool = False) -> None:
        self._run = run
        self._path = run / LOCK
        self._force_unlock = force_unlock
        self._content = f"{os.getpid()}\n{socket.gethostname()}\n{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
        self._file_lock: BaseFileLock | None = None

    def __enter__(self) -> None:
        """Acquire the lock.

        Raises:
            RunError: If another job holds it, or the directory cannot be written.
        """
        try:
            if isinstance(self._path, Path):
                self._lock_file(self._path)
            else:
                with store_errors_as_oserror():
                    self._create_object(self._path)
        except OSError as error:
            reason = error_reason(error)
            raise RunError(f"{self._run}: cannot be written ({reason}); choose another run directory") from None

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # the storage may be gone
            if self._path.read_text() == self._content:  # else another job has forced its way in
                self._path.unlink()  # while it is held: a job that waits for the removed file notices, and tries again
        if self._file_lock:
            with suppress(OSError):
                self._file_lock.release()

    def _lock_file(self, path: Path) -> None:
        self._file_lock = FileLock(path, timeout=WAIT)
        try:
            self._file_lock.acquire()
        except Timeout:
            if not (self._force_unlock and self._outlives_its_job):
                raise self._refusal() from None
            path.unlink(missing_ok=True)
            self._file_lock.acquire()
        if not self._outlives_its_job:  # else filelock has written the process and the host, as the first two lines
            path.write_text(self._content)

    def _create_object(self, path: UPath) -> None:
        if self._force_unlock:
            path.unlink(missing_ok=True)
        try:
            path.fs.pipe_file(path.path, self._content.encode(), mode="create")
        except FileExistsError:
            raise self._refusal() from None

    @property
    def _outlives_its_job(self) -> bool:
        """Whether a killed job leaves the lock: in an object store, and where filelock has found no `flock`."""
        return self._file_lock is None or isinstance(self._file_lock, SoftFileLock)

    def _refusal(self) -> RunError:
        try:
            pid, host, time, *_ = self._path.read_text().splitlines()
            holder = f" (process {pid} on {host}{'' if self._file_lock else f' since {time}'})"
        except (OSError, ValueError):  # it has just ended, or has not written its name yet
            holder = ""
        forced = "pass --force-unlock if it is known to be dead"
        way_out = forced if self._outlives_its_job else "choose another run directory"
        return RunError(f"{self._run}: in use by another job{holder}; wait for it to end, or {way_out}")
