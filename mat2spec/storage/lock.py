"""The right to write into a run: one job at a time, and not for ever if its holder dies."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from mat2spec.errors import RunError, StorageError
from mat2spec.storage.location import Location, errors_of_stores, put

LOCK = ".lock"

BEAT = 5.0
"""[s] Between two signs of life."""

SILENCE = 4 * BEAT
"""[s] Without a sign of life after which a holder on another machine counts as dead."""


class Lease:
    """A lock file that its holder renews.

    Whether a holder lives is never read off a clock that two machines would have to share: on its own machine its process is looked up;
    from another one watches whether the file changes.

    Args:
        place: The lock file.
    """

    def __init__(self, place: Location) -> None:
        self._place = place
        self._content: dict[str, Any] = {
            "token": uuid4().hex,
            "beat": 0,
            "host": socket.gethostname(),
            "process": _this_process(),
        }
        self._released, self._lost = threading.Event(), False

    @contextmanager
    def held(self) -> Iterator["Lease"]:
        """Hold it for as long as the block lasts.

        Raises:
            RunError: If another job holds it.
        """
        try:
            with errors_of_stores():
                self._take()
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise RunError(f"{self._place.parent}: cannot be written ({reason}); choose another --output") from None
        renewal = threading.Thread(target=self._renew, name="lease", daemon=True)
        renewal.start()
        try:
            yield self
        finally:
            self._released.set()
            renewal.join()
            if not self._lost:
                with suppress(Exception):  # gone with its storage
                    self._place.unlink()

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            StorageError: If another took it, because this process gave no sign of life for too long.
        """
        if self._lost:
            raise StorageError(
                f"{self._place.parent}: another job took over while this one stood still; it goes on where this one stopped"
            )

    def _take(self) -> None:
        while not self._create():
            there = self._read()
            if there is not None and not _died_here(there):
                self._watch(there)
            if there is not None:
                put(self._place, self._encoded())
                time.sleep(
                    0.1
                )  # of two that take a dead one's place at once, the first to write sees the other's token
                if (now := self._read()) is None or now["token"] != self._content["token"]:
                    raise RunError(_told(self._place, now or there))
                return

    def _create(self) -> bool:
        try:
            if isinstance(self._place, Path):
                with self._place.open("xb") as file:
                    file.write(self._encoded())
            else:
                self._place.fs.pipe_file(self._place.path, self._encoded(), mode="create")
        except FileExistsError:
            return False
        return True

    def _watch(self, there: dict[str, Any]) -> None:
        """Wait for a sign of life of a holder that cannot be looked up."""
        if _is_here(there):
            raise RunError(_told(self._place, there))
        start = time.monotonic()
        while time.monotonic() - start < SILENCE:
            time.sleep(BEAT / 2)
            if (now := self._read()) is None:
                return
            if now != there:
                raise RunError(_told(self._place, now))

    def _renew(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(Exception):  # a storage that fails is for the job itself to tell
                there = self._read()
                if there is not None and there["token"] != self._content["token"]:
                    self._lost = True
                    return
                self._content["beat"] += 1
                put(self._place, self._encoded())

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._place.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:  # killed while it was created: nobody's
            return {"token": "", "beat": -1, "host": "", "process": None}

    def _encoded(self) -> bytes:
        return json.dumps(self._content).encode()


def _this_process() -> dict[str, Any]:
    """What names a process of this machine until it ends, across restarts and containers."""
    return {"machine": _machine(), "pid": os.getpid(), "created": _created(psutil.Process())}


def _created(process: psutil.Process) -> float:
    """Seconds from the machine's start to the process's, which stay the same when somebody sets the clock."""
    return process.create_time() - psutil.boot_time()


def _machine() -> list[str]:
    boot, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return [boot.read_text().strip(), os.readlink(processes)] if boot.exists() else [socket.gethostname(), ""]


def _is_here(there: dict[str, Any]) -> bool:
    return there["process"] is not None and there["process"]["machine"] == _machine()


def _died_here(there: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    if there["process"] is None:
        return True
    if not _is_here(there):
        return False
    try:
        process = psutil.Process(there["process"]["pid"])
        return process.status() == psutil.STATUS_ZOMBIE or abs(_created(process) - there["process"]["created"]) > 1
    except psutil.NoSuchProcess:
        return True


def _told(place: Location, there: dict[str, Any]) -> str:
    pid = f"process {there['process']['pid']} on " if there["process"] else ""
    return f"{place.parent}: in use by another job ({pid}{there['host']}); wait for its end, or choose another --output"
