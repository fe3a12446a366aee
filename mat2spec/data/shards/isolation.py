"""Isolation of rows that crash, hang or exhaust memory: bisect a shard in subprocesses and reject only those rows."""

import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mat2spec.data.shards.shard import Shard, material_id_of, source_of
from mat2spec.data.shards.step import (
    READ,
    Processor,
    ShardLimits,
    ShardReport,
    ShardStep,
    ShardTables,
    StageTimer,
    commit,
)
from mat2spec.errors import StorageError, UnfinishedError, counted
from mat2spec.storage.rejects import reject_table

CONFIRMATIONS = 3
"""Times that a single row must kill its process before it is rejected: processes are also killed for other reasons."""

MIN_TIME_SHARE = 0.1
"""Smallest share of a shard's time limit that a part of it gets, even a single row."""

# Forked from a clean process that has imported torch once: 0.1 s per process instead of 5.
_FORKSERVER = multiprocessing.get_context("forkserver")


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


class TooManyFaultsError(Exception):
    """More rows failed than `ShardLimits.faults` allows."""


def checked(reports: Iterable[ShardReport], limits: ShardLimits) -> Iterator[ShardReport]:
    """Yield reports until one says that the job cannot go on.

    Raises:
        StorageError: If the input cannot be read or the results not be written.
        UnfinishedError: If more rows failed than may.
    """
    faults = 0
    for report in reports:
        if report.failed:
            raise StorageError(report.failed)
        yield report
        faults += report.faults or 0
        if faults > limits.faults:
            raise UnfinishedError(_too_many_rows(report.name, limits, "see its rejects"))


def _too_many_rows(name: str, limits: ShardLimits, where: str) -> str:
    return (
        f"{name}: more than {counted(limits.faults, 'row')} killed their process or exceeded its limits; {where}; "
        f"if the rows are the cause, raise {limits.setting}.fault_limit"
    )


def find_faults(
    shard: Shard, compute: Callable[[Shard], ShardTables | Fault], limit: int
) -> tuple[list[ShardTables], dict[int, Fault]]:
    """Bisect a shard until every part either has results or is a single row that fails.

    Args:
        shard: The rows.
        compute: Returns the results of a part, or why it has none.
        limit: Number of rows that may fail.

    Returns:
        The results in row order, and the faults by position in the shard.

    Raises:
        TooManyFaultsError: If more than `limit` rows fail.
    """
    results: list[ShardTables] = []
    faults: dict[int, Fault] = {}
    parts = [(0, len(shard))]
    while parts:
        start, stop = parts.pop()
        result = _compute_part(shard.part(start, stop), compute)
        if isinstance(result, ShardTables):
            results.append(result)
        elif stop - start > 1:
            middle = (start + stop) // 2
            parts += [(middle, stop), (start, middle)]
        else:
            faults[start] = result
            if len(faults) > limit:
                raise TooManyFaultsError(result.error)
    return results, faults


def _compute_part(part: Shard, compute: Callable[[Shard], ShardTables | Fault]) -> ShardTables | Fault:
    """Compute a part; a single row whose process dies is tried again, until it has died CONFIRMATIONS times."""
    result = compute(part)
    deaths = 1
    while isinstance(result, Fault) and result.died and len(part) == 1 and deaths < CONFIRMATIONS:
        result = compute(part)
        deaths += 1
    return result


def isolate(step: ShardStep, shard: Shard) -> ShardReport:
    """Process a shard in which rows may kill their process or exceed the limits of time or memory; reject those rows.

    If more rows fail than the limits allow, or the input cannot be read, nothing is committed, and the report says so.
    """
    try:
        with IsolatedProcess(step, len(shard)) as process:
            tables, faults = find_faults(shard, process.compute, step.limits.faults)
            tables = tables or [process.compute_empty(shard)]
    except StorageError as error:
        return ShardReport(shard.name, failed=str(error))
    except TooManyFaultsError as error:
        return ShardReport(shard.name, failed=_too_many_rows(shard.name, step.limits, f"the last one {error}"))
    fault_rejects = reject_table(_reject(shard, position, fault) for position, fault in faults.items())
    results, rejects = (pa.concat_tables(parts) for parts in zip(*tables, strict=True))
    joined = ShardTables(results, pa.concat_tables([rejects, fault_rejects]))
    return commit(step.run, shard.name, joined, StageTimer())._replace(faults=len(faults))


class IsolatedProcess:
    """A subprocess for rows that may kill it; started again after it died.

    Args:
        step: What it computes.
        rows: Size of the whole shard, to which the time limit applies.
    """

    def __init__(self, step: ShardStep, rows: int) -> None:
        self._step = step
        self._rows = max(rows, 1)
        self._process: ForkServerProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "IsolatedProcess":
        _FORKSERVER.set_forkserver_preload([__name__, type(self._step).__module__])
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def compute_empty(self, shard: Shard) -> ShardTables:
        """Return results without rows, which have the columns of this shard."""
        result = self.compute(shard.part(0, 0))
        if isinstance(result, Fault):
            raise TooManyFaultsError(result.error)
        return result

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
                    return content
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
        return "tables", processor.compute(shard, timer)
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


def _reject(shard: Shard, position: int, fault: Fault) -> dict[str, str | None]:
    try:
        material_id = material_id_of(shard, position)
    except Exception:  # the row cannot be read, which may be why it failed
        material_id = None
    return {
        "material_id": material_id,
        "source": source_of(shard, position),
        "stage": fault.stage,
        "error_type": fault.error_type,
        "error": f"{material_id}: {fault.error}",
    }
