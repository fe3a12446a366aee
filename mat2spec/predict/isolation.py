"""Rows that end their process: found by bisection, each try in a process of its own, and rejected so that their neighbours are not."""

import multiprocessing
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mat2spec.data.materials.shards import Shard, material_id_of, read_shard, source_of
from mat2spec.errors import StorageError
from mat2spec.predict.pipeline import READ, UNREADABLE, Clock, Done, Outcome, Recipe, Screener, commit
from mat2spec.storage.location import locate, storage_failure
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import RunDirectory

CONFIRMATIONS = 3
"""Times that a row by itself must end its process before it is blamed: others kill processes, too."""

SHORTEST = 0.1
"""Of a shard's time limit, what even a single row is given."""

_START = multiprocessing.get_context(
    "forkserver"
)  # forked of a clean process that has imported torch once: 0.1 s instead of 5


class Fault(NamedTuple):
    """Why a process gave no outcome.

    Args:
        stage: Which stage it was in.
        error_type: Name of the error.
        error: What it says.
        died: Whether the process ended, so that it may have been another's doing.
    """

    stage: str
    error_type: str
    error: str
    died: bool


class TooManyFaultsError(Exception):
    """More rows are at fault than a run may have."""


def find_faults(
    shard: Shard, compute: Callable[[Shard], Outcome | Fault], limit: int
) -> tuple[list[Outcome], dict[int, Fault]]:
    """Halve a shard until each part either has an outcome or is one row that has none.

    Args:
        shard: The rows.
        compute: Gives the outcome of some of them, or why there is none.
        limit: Rows that may be at fault.

    Returns:
        The outcomes in the order of the rows, and the faults by position.

    Raises:
        TooManyFaultsError: If more than `limit` rows are at fault.
    """
    outcomes: list[Outcome] = []
    faults: dict[int, Fault] = {}
    parts = [(0, len(shard))]
    while parts:
        start, stop = parts.pop()
        tries = 0
        while isinstance(found := compute(shard.part(start, stop)), Fault) and stop - start == 1 and found.died:
            tries += 1
            if tries == CONFIRMATIONS:
                break
        if isinstance(found, Outcome):
            outcomes.append(found)
        elif stop - start > 1:
            middle = (start + stop) // 2
            parts += [(middle, stop), (start, middle)]
        else:
            faults[start] = found
            if len(faults) > limit:
                raise TooManyFaultsError(found.error)
    return outcomes, faults


def isolate(recipe: Recipe, shard: Shard, limit: int) -> tuple[Done, int]:
    """Do a shard some of whose rows may end their process, exceed their time or their memory: these become rejects.

    Returns:
        What became of it, and how many rows were at fault.

    Raises:
        TooManyFaultsError: If more than `limit` rows are at fault.
    """
    try:
        with Process(recipe, len(shard)) as process:
            outcomes, faults = find_faults(shard, process.compute, limit)
            outcomes = outcomes or [process.columns(shard)]
    except StorageError as error:
        return Done(0, 0, Clock().seconds, str(error)), 0
    blamed = reject_table(_reject(shard, position, fault) for position, fault in faults.items())
    predictions, rejects = (pa.concat_tables(tables) for tables in zip(*outcomes, strict=True))
    whole = Outcome(predictions, pa.concat_tables([rejects, blamed]))
    return commit(RunDirectory(locate(recipe.output)), shard.name, whole, Clock()), len(faults)


class Process:
    """A process that computes what may end it, and begins anew when it has.

    Args:
        recipe: What it does.
        rows: Size of a whole shard, for which the time limit is meant.
    """

    def __init__(self, recipe: Recipe, rows: int) -> None:
        self._recipe, self._rows = recipe, max(rows, 1)
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "Process":
        _START.set_forkserver_preload(["mat2spec.predict.isolation"])
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def columns(self, shard: Shard) -> Outcome:
        """Give the outcome of no rows."""
        outcome = self.compute(shard.part(0, 0))
        if isinstance(outcome, Fault):
            raise TooManyFaultsError(outcome.error)
        return outcome

    def compute(self, shard: Shard) -> Outcome | Fault:
        """Do some rows; an outcome, or why there is none.

        Raises:
            StorageError: If the input cannot be read, which is no row's fault.
        """
        pipe = self._pipe or self._begin()
        limit = self._recipe.inference.seconds_per_shard * max(len(shard) / self._rows, SHORTEST)
        stage = READ
        try:
            pipe.send((shard, limit))
            while True:
                kind, content = pipe.recv()
                if kind == "stage":
                    stage = content
                elif kind == "outcome":
                    return content
                elif kind == "unreadable":
                    raise StorageError(content)
                else:
                    self._end()  # an error may leave a process, or its GPU, unfit for more
                    return Fault(stage, *content, died=False)
        except (EOFError, OSError):
            return Fault(stage, *self._cause(limit), died=True)

    def _begin(self) -> Connection:
        self._pipe, theirs = _START.Pipe()
        self._process = _START.Process(target=_serve, args=(theirs, self._recipe), daemon=True)
        self._process.start()
        theirs.close()
        return self._pipe

    def _cause(self, limit: float) -> tuple[str, str]:
        """Why the process ended."""
        self._process.join()
        code = self._process.exitcode
        self._end()
        if code == -signal.SIGALRM:
            return "TimeLimitError", f"took more than {limit:g} s (inference.seconds_per_shard)"
        if code is not None and code < 0:
            told = signal.Signals(-code).name
            return (
                "WorkerDiedError",
                f"its process was ended by {told}{' (memory may have run out)' * (told in ('SIGKILL', 'SIGABRT'))}",
            )
        return "WorkerDiedError", f"its process ended with code {code}"

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.join()
            self._pipe.close()  # type: ignore[union-attr]
        self._process = self._pipe = None


def _serve(pipe: Connection, recipe: Recipe) -> None:
    """Life of the process: rows come, stages and outcomes go."""
    limit_memory(recipe.memory)
    screener = Screener(recipe)
    while True:
        try:
            shard, limit = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit)  # by default its signal ends the process, whatever it hangs in
        answer = _answer(screener, shard, Clock(lambda stage: pipe.send(("stage", stage))))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(answer)


def _answer(screener: Screener, shard: Shard, clock: Clock) -> tuple[str, Any]:
    clock.begin(READ)
    try:
        rows = read_shard(shard)
    except UNREADABLE as error:
        return "unreadable", storage_failure(shard.files[0], error, "read")
    try:
        return "outcome", screener.outcome(rows, clock)
    except MemoryError as error:
        return "raised", (
            "MemoryError",
            " ".join(str(error).split())[:300] or "does not fit into memory (inference.memory_per_process)",
        )
    except Exception as error:  # to be told, whatever it is
        return "raised", (type(error).__name__, " ".join(str(error).split())[:300])


def limit_memory(data: int | None) -> None:
    """Make this process run out of memory by itself, where it can still say so, before the machine does.

    Args:
        data: What it may hold beside what it holds now [bytes]; None: any.
    """
    if data is not None:
        held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
        soft = int(held.split()[1]) * 1024 + data
        resource.setrlimit(resource.RLIMIT_DATA, (soft, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _reject(shard: Shard, position: int, fault: Fault) -> dict[str, str | None]:
    try:
        material_id = material_id_of(shard, position)
    except Exception:  # unreadable, which may be what is wrong with it
        material_id = None
    error = f"{material_id}: {fault.error}"
    return {
        "material_id": material_id,
        "source": source_of(shard, position),
        "stage": fault.stage,
        "error_type": fault.error_type,
        "error": error,
    }
