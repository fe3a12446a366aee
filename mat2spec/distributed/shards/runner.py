"""Shards on Ray Data: each is processed once, and those whose process dies are processed again in isolation.

A row of the dataset is a shard, and its function commits the shard's files itself. So Ray Data only schedules, retries
and reports.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from mat2spec.distributed.session import ray_session  # noqa: F401  before ray itself: sets how Ray starts

# isort: split
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mat2spec.data.shards.isolation import checked
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits, ShardReport, ShardStep
from mat2spec.distributed.shards.attempts import AttemptLog, Job
from mat2spec.distributed.shards.worker import (
    ISOLATION_ATTEMPTS,
    REPORT,
    SHARD,
    Isolation,
    ShardWorker,
)
from mat2spec.errors import UnfinishedError, counted

CALLS_PER_WORKER = 2
"""Shards that a worker processes at once: while it computes one, the other is read or written."""

QUEUED = 2
"""Shards that Ray Data gives to a worker, as a multiple of those it processes: above 1.75, more workers are started."""

MAX_BLOCKS = 10_000
"""Blocks of a dataset: the driver needs about 1 ms for each before the first is processed."""

WORKERS_PER_SHARD = 100
"""Workers above which blocks hold more than one shard: Ray Data takes some 20 ms of CPU time in a worker and 5 in the
driver for a block, however many shards it holds."""

BLOCKS_PER_WORKER = 8
"""Blocks hold no more shards than leave each worker so many blocks, so that all end at about the same time."""


class Workers(NamedTuple):
    """Processes that work on shards, and their resources.

    Args:
        min_size: How many start.
        max_size: How many there may be when nodes have joined; None: as many as fit.
        num_cpus: Cores of each; several may share one.
        num_gpus: GPUs of each; several may share one.
    """

    min_size: int
    max_size: int | None
    num_cpus: float
    num_gpus: float = 0.0

    @classmethod
    def from_cluster(cls, number: int | None = None) -> "Workers":
        """One per GPU, or per core where there are no GPUs; or as many as asked for."""
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        cores = max(1, int(resources.get("CPU", 1)))
        size = number or gpus or cores
        # One over a whole number, so that no worker spans two cores or GPUs.
        num_gpus = 1 / math.ceil(size / gpus) if gpus else 0.0
        return cls(size, number, 1 / math.ceil(size / cores), num_gpus)

    @classmethod
    def on_cpus(cls) -> "Workers":
        """One per core, whether there are GPUs or not."""
        return cls(max(1, int(ray.cluster_resources().get("CPU", 1))), None, 1.0)


class Pool(NamedTuple):
    """How many processes Ray Data starts, and how much each does at once.

    Args:
        min_size: How many start.
        max_size: How many there may be; None: as many as fit.
        calls: Shards that each processes at once.
    """

    min_size: int
    max_size: int | None
    calls: int = CALLS_PER_WORKER

    def strategy(self) -> ActorPoolStrategy:
        """Return what Ray Data calls it."""
        return ActorPoolStrategy(
            min_size=self.min_size,
            max_size=self.max_size,
            max_tasks_in_flight_per_actor=QUEUED * self.calls,
            max_concurrent_calls_per_actor=self.calls,
            enable_true_multi_threading=True,
        )


class ShardRunner:
    """Processes shards on the cluster.

    Args:
        step: What is done with each.
        workers: The processes.
    """

    def __init__(self, step: ShardStep, workers: Workers) -> None:
        self._limits = step.limits
        self.workers = workers
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # On a node without which the job ends, too. A log that is killed counts from none again.
        log = AttemptLog.options(scheduling_strategy=here, max_restarts=-1, max_task_retries=-1).remote()
        self.job = Job(ray.put(step), log, workers.min_size)

    def run(self, shards: Sequence[Shard]) -> Generator[ShardReport]:
        """Process every shard once, in any order; yield the report of each.

        To be closed while Ray runs: an iterator of Ray Data that is abandoned stops later, and starts a new Ray for it.

        Raises:
            StorageError: If the input cannot be read or the results not be written.
            UnfinishedError: If no worker can be started, or more rows or shards are lost than `limits.faults`.
        """
        if not shards:
            return
        by_name = {shard.name: shard for shard in shards}
        lost: list[Shard] = []
        dataset = _dataset(shards, self.workers.min_size)
        pool = Pool(min(self.workers.min_size, dataset.num_blocks()), self.workers.max_size)
        with _reports(self.process(dataset, pool), self._limits) as reports:
            for report in reports:
                if not report.lost:
                    yield report
                    continue
                lost.append(by_name[report.name])
                # A row that ends its process also loses what the process does besides.
                if len(lost) > CALLS_PER_WORKER * self._limits.faults:
                    raise UnfinishedError(_too_many_shards(lost, self._limits))
        if lost:
            yield from self._isolate(lost)

    def process(self, shards: Dataset, pool: Pool) -> Dataset:
        """Return the dataset of the reports of a dataset of shards."""
        return self.on_workers(shards, ShardWorker, pool)

    def on_workers(self, dataset: Dataset, worker: type[ShardWorker], pool: Pool) -> Dataset:
        """Map blocks by workers, of which each holds a model."""
        return dataset.map_batches(
            worker,
            fn_constructor_args=(self.job,),
            compute=pool.strategy(),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.workers.num_cpus,
            num_gpus=self.workers.num_gpus,
        )

    def _isolate(self, shards: Sequence[Shard]) -> Generator[ShardReport]:
        """Process shards whose process died; the rows that kill it become rejects."""
        dataset = _dataset(shards, 1).map_batches(
            Isolation(self.job),
            compute=TaskPoolStrategy(min(self.workers.min_size, len(shards))),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            num_gpus=self.workers.num_gpus,
        )
        with _reports(dataset, self._limits) as reports:
            for report in reports:
                if report.lost:
                    deaths = f"its processes were killed {ISOLATION_ATTEMPTS} times"
                    raise UnfinishedError(f"{report.name}: {deaths}; run the same command again")
                yield report


def _dataset(shards: Sequence[Shard], workers: int) -> Dataset:
    """One row per shard; one row per block, unless there are very many shards or workers."""
    for_workers = min(math.ceil(workers / WORKERS_PER_SHARD), len(shards) // (BLOCKS_PER_WORKER * workers))
    shards_per_block = max(1, math.ceil(len(shards) / MAX_BLOCKS), for_workers)
    rows = [{SHARD: shard.to_json()} for shard in shards]
    return ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / shards_per_block))


@contextmanager
def _reports(dataset: Dataset, limits: ShardLimits) -> Iterator[Iterator[ShardReport]]:
    """Start a dataset, whose reports are yielded as they arrive, and stop it."""
    dataset.context.enable_progress_bars = False
    dataset.context.memory_usage_poll_interval_s = None  # else a thread for each block, for statistics nobody reads
    batches: Any = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    with closing(batches):
        texts = (text for batch in batches for text in batch[REPORT].to_pylist())
        yield checked(map(ShardReport.from_json, texts), limits)


def _too_many_shards(lost: Sequence[Shard], limits: ShardLimits) -> str:
    return (
        f"{lost[-1].name}: {counted(len(lost), 'shard')} ended their process; if single rows are the cause, "
        f"raise {limits.setting}.fault_limit; if not, the logs of Ray's workers say why"
    )
