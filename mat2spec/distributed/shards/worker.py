"""What the processes of a cluster do: process shards, or bisect those whose process died."""

import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import ray

from mat2spec.data.shards.isolated_process import limit_memory
from mat2spec.data.shards.isolation import isolate
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardReport, process_shard
from mat2spec.distributed.shards.attempts import Job, get_step

RETRIES = 1
"""How often a shard is tried again before it counts as lost: most processes die for another reason than their shard."""

ISOLATION_ATTEMPTS = 6
"""How often the isolation of a shard is tried: only external reasons kill it."""

START_ATTEMPTS = 5
"""How often each worker may be started in vain."""

SHARD, REPORT = "shard", "report"
"""Columns of the datasets, of JSON texts."""

_START = "start of a worker"


class Watchdog:
    """Kills this process if it has work and finishes none of it for too long, whatever it hangs in.

    The kernel does it, by SIGALRM.

    Args:
        seconds: Time limit [s].
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._active = 0
        self._lock = threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch over the block; from any thread."""
        with self._lock:
            self._active += 1
            if self._active == 1:
                signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                signal.setitimer(signal.ITIMER_REAL, self._seconds if self._active else 0)


class ShardWorker:
    """What a worker does: process the shards of a block and commit them.

    One that cannot start says so in the report of its first shard, which stops the job: an exception would reach the
    user as the stack traces of several processes.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.step = get_step(job)
        self.cannot_start = ""
        if job.may_try(_START, START_ATTEMPTS * job.workers):
            self._start()
            job.log.forget.remote(_START)
        else:
            self.cannot_start = "each process died when it was started, most likely for lack of memory"

    def _start(self) -> None:
        unlimited = resource.getrlimit(resource.RLIMIT_DATA)
        limit_memory(self.step.limits.memory)
        self._watchdog = Watchdog(self.step.limits.seconds)
        try:
            with self._watchdog.watching():
                self.processor = self.step.processor()
        except Exception as error:  # of any kind
            resource.setrlimit(resource.RLIMIT_DATA, unlimited)
            traceback.print_exc()
            self.cannot_start = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    def __call__(self, block: pa.Table) -> pa.Table:
        shards = [Shard.from_json(text) for text in block[SHARD].to_pylist()]
        return report_table(self.try_each([(shard.name, self._processing(shard)) for shard in shards]))

    def _processing(self, shard: Shard) -> Callable[[], ShardReport]:
        return lambda: process_shard(self.processor, self.step.run, shard)

    def try_each(self, shards: Sequence[tuple[str, Callable[[], ShardReport]]]) -> Iterator[ShardReport]:
        """Process the shards of a block, unless this worker cannot, or one was tried too often.

        The first attempt counts for the block, because a message for each shard would cost more than Ray's own work.

        Args:
            shards: The name of each, and what processes it.
        """
        block = ",".join(name for name, _ in shards)
        first = not self.cannot_start and self.job.may_try(f"block {block}", 1)
        for name, process in shards:
            if self.cannot_start:
                yield ShardReport(name, failed=f"no worker can be started: {self.cannot_start}")
            else:
                yield self._try(name, process) if first else self._retry(name, process)

    def _retry(self, name: str, process: Callable[[], ShardReport]) -> ShardReport:
        """Process a shard of a block whose process died; once done, it is not repeated if the process dies again."""
        if finished := ray.get(self.job.log.finished.remote(name)):
            return ShardReport.from_json(finished)
        if not self.job.may_try(name, RETRIES):
            return ShardReport(name, lost=True)
        report = self._try(name, process)
        ray.get(self.job.log.finish.remote(name, report.to_json()))
        return report

    def _try(self, name: str, process: Callable[[], ShardReport]) -> ShardReport:
        """Process a shard within its time limit.

        An error ends this process, because it may have left it, or its GPU, unusable.
        """
        with self._watchdog.watching():
            try:
                return process()
            except Exception:  # of any kind: isolation makes it the reason of a reject
                traceback.print_exc()
                print(f"{name}: this process ends", file=sys.stderr, flush=True)
                ray.get(self.job.log.give_up.remote(name))
                os._exit(1)


class Isolation:
    """What a task of the second pass does: bisect a shard in processes of its own."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, block: pa.Table) -> pa.Table:
        return report_table(self._isolate(Shard.from_json(text)) for text in block[SHARD].to_pylist())

    def _isolate(self, shard: Shard) -> ShardReport:
        if not self._job.may_try(f"isolation of {shard.name}", ISOLATION_ATTEMPTS):
            return ShardReport(shard.name, lost=True)
        return isolate(get_step(self._job), shard)


def report_table(reports: Iterable[ShardReport]) -> pa.Table:
    """Return the reports of a block, with the name of this worker, as Ray Data hands them on."""
    worker = ray.get_runtime_context().get_actor_id() or ""  # the same when Ray has restarted it
    return pa.table({REPORT: [report._replace(worker=worker).to_json() for report in reports]})
