"""A subprocess for rows that may crash it, hang or exhaust its memory."""

import multiprocessing
import resource
import signal
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any, NamedTuple

from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import READ, Processor, ShardStep, ShardTables, StageTimer
from mat2spec.errors import StorageError

MIN_TIME_SHARE = 0.1
"""Smallest share of a shard's time limit that a part of it gets, even a single row."""

# Forked from a clean process that has imported torch once: 0.1 s per process instead of 5.
_FORKSERVER = multiprocessing.get_context("forkserver")


def start_forkserver(modules: Sequence[str]) -> None:
    """Start the process from which subprocesses are forked, unless it runs, and return while it imports modules."""
    _FORKSERVER.set_forkserver_preload([__name__, *modules])
    ensure_running()


class Fault(NamedTuple):
    """Why a subprocess returned no result.

    Args:
        stage: Stage in which it failed.
        error_type: Class of the error.
        error: Message.
        died: Whether the process died, so that the cause may lie outside it.
    """

    stage: str
    error_type: str
    error: str
    died: bool


class IsolatedProcess:
    """A subprocess for rows that may kill it; started again after it died.

    `seconds` sums the time spent in each stage [s] on rows that have results.

    Args:
        step: What it computes.
        rows: Size of the whole shard, to which the time limit applies.
    """

    def __init__(self, step: ShardStep, rows: int) -> None:
        self._step = step
        self._rows = max(rows, 1)
        self.seconds: Counter[str] = Counter()
        self._process: ForkServerProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "IsolatedProcess":
        _FORKSERVER.set_forkserver_preload([__name__, type(self._step).__module__, *self._step.MODULES])
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def compute(self, shard: Shard) -> ShardTables | Fault:
        """Compute rows; return their results, or why there are none.

        Raises:
            StorageError: If the input cannot be read; no row is responsible for that.
        """
        pipe = self._pipe or self._start()
        limit = self._step.limits.seconds * max(len(shard) / self._rows, MIN_TIME_SHARE)
        stage = READ
        try:
            pipe.send((shard, limit))
            while True:
                kind, content = pipe.recv()
                if kind == "stage":
                    stage = content
                elif kind == "tables":
                    tables, seconds = content
                    self.seconds.update(seconds)
                    return tables
                elif kind == "unreadable":
                    raise StorageError(content)
                else:
                    self._stop()  # an error may leave the process, or its GPU, unusable
                    error_type, message = content
                    return Fault(stage, error_type, message, died=False)
        except (EOFError, OSError):
            error_type, message = self._cause_of_death(limit)
            return Fault(stage, error_type, message, died=True)

    def _start(self) -> Connection:
        self._pipe, child_pipe = _FORKSERVER.Pipe()
        self._process = _FORKSERVER.Process(target=_serve, args=(child_pipe, self._step), daemon=True)
        self._process.start()
        child_pipe.close()
        return self._pipe

    def _cause_of_death(self, limit: float) -> tuple[str, str]:
        """Error type and message for a process that died."""
        code = None
        if self._process:
            self._process.join()
            code = self._process.exitcode
        self._stop()
        if code == -signal.SIGALRM:
            return "TimeLimitError", f"took more than {limit:g} s ({self._step.limits.setting}.seconds_per_shard)"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (memory may have run out)" if name in ("SIGKILL", "SIGABRT") else ""
            return "WorkerDiedError", f"its process was killed by {name}{hint}"
        return "WorkerDiedError", f"its process exited with code {code}"

    def _stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.join()
        if self._pipe:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, step: ShardStep) -> None:
    """Main loop of the subprocess: receive rows, send the name of each stage and then the result."""
    limit_memory(step.limits.memory)
    processor = step.processor()
    while True:
        try:
            shard, limit = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit)  # SIGALRM kills the process by default, whatever it hangs in
        timer = StageTimer(lambda stage: pipe.send(("stage", stage)))
        answer = _answer(processor, shard, timer, step.limits.setting)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(answer)


def _answer(processor: Processor, shard: Shard, timer: StageTimer, setting: str) -> tuple[str, Any]:
    """Kind of the answer ("tables", "unreadable" or "raised") and its content."""
    try:
        return "tables", (processor.compute(shard, timer), dict(timer.seconds))
    except StorageError as error:
        return "unreadable", str(error)
    except MemoryError as error:
        message = _one_line(error) or f"does not fit into memory ({setting}.memory_per_process)"
        return "raised", ("MemoryError", message)
    except Exception as error:  # of any kind: it becomes the reason of a reject
        return "raised", (type(error).__name__, _one_line(error))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def limit_memory(data: int | None) -> None:
    """Limit the data of this process, so that it fails with a MemoryError before the machine runs out of memory.

    Args:
        data: How much it may allocate beyond what it has now [bytes]; None: unlimited.
    """
    if data is None:
        return
    lines = Path("/proc/self/status").read_text().splitlines()
    current = next(line for line in lines if line.startswith("VmData:"))
    soft = int(current.split()[1]) * 1024 + data
    resource.setrlimit(resource.RLIMIT_DATA, (soft, resource.getrlimit(resource.RLIMIT_DATA)[1]))
