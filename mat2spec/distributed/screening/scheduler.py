"""Scheduler of a screening: assigns shards to workers, restarts those that die, and adds workers when nodes join."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from mat2spec.config import InferenceConfig
from mat2spec.data.shards.shard import Shard
from mat2spec.distributed.screening.actors import SHARDS_PER_WORKER, WorkerActor, build_graphs, isolate_faults
from mat2spec.errors import UnfinishedError, counted
from mat2spec.data.shards.isolation import TooManyFaultsError
from mat2spec.predict.pipeline import ScreeningSpec, ShardReport

NODE_POLL_SECONDS = 5.0
"""How often the scheduler checks whether nodes have joined."""

MAX_RETRIES = 5
"""How often an isolation, or the start of a worker, may fail for external reasons."""

MAX_RESTART_POLLS = 600
"""How often, half a second apart, a worker may be unavailable because Ray restarts it."""

RESTART_POLL_SECONDS = 0.5

MIN_MEMORY = 2_000_000_000
"""Memory limit of a process [bytes] where a core's share of the node's memory is smaller."""

Heartbeat = Callable[[], None]


class Layout(NamedTuple):
    """How the cluster's resources are divided among processes.

    Args:
        predictors: Number of processes that hold the model.
        options: Ray resources of each.
        separate_featurization: Whether graphs are built in tasks of their own.
        cores: Cores of the cluster.
    """

    predictors: int
    options: dict[str, float]
    separate_featurization: bool
    cores: int

    @classmethod
    def from_cluster(cls, inference: InferenceConfig) -> "Layout":
        """One predictor per GPU, or per core where there are no GPUs."""
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        cores = max(1, int(resources.get("CPU", 1)))
        predictors = inference.predictors or gpus or cores
        # One over a whole number, so that no predictor spans two cores or GPUs.
        options = {"num_cpus": 1 / math.ceil(predictors / cores)}
        if gpus:
            options["num_gpus"] = 1 / math.ceil(predictors / gpus)
        separate = bool(gpus) if inference.separate_featurization is None else inference.separate_featurization
        if separate:
            options["num_cpus"] /= 2  # so that a predictor and a featurization task fit on a single core
        return cls(predictors, options, separate, cores)


def memory_per_process(inference: InferenceConfig) -> int | None:
    """Memory limit per process [bytes]: as configured, else node memory / cores; unlimited on GPU nodes."""
    if inference.memory_per_process:
        return int(inference.memory_per_process * 1e9)
    if ray.cluster_resources().get("GPU", 0):
        return None  # CUDA reserves far more address space than there is memory
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [resources.get("memory", 0) / resources["CPU"] for resources in nodes if resources.get("CPU")]
    return max(MIN_MEMORY, int(min(shares, default=0)))


class WorkerHandle:
    """The scheduler's view of a worker.

    Args:
        actor: The worker's process.
        spec: The screening, in Ray's object store.
    """

    def __init__(self, actor: ActorHandle[Any], spec: "ray.ObjectRef[ScreeningSpec]") -> None:
        self.actor = actor
        self.in_flight: dict[Any, Shard] = {}
        self.starting: Any = None
        self._spec = spec
        self.initialize()

    def initialize(self) -> None:
        """Load the model; the worker gets no shards until that is done."""
        self.starting = self.actor.initialize.remote(self._spec)

    def submit(self, shard: Shard, separate_featurization: bool) -> None:
        """Submit a shard."""
        ref: Any
        if separate_featurization:
            ref = self.actor.predict.remote(shard, build_graphs.remote(self._spec, shard))
        else:
            ref = self.actor.screen.remote(shard)
        self.in_flight[ref] = shard


class Scheduler:
    """Assigns shards to the workers of a cluster.

    Args:
        spec: What the workers do.
        heartbeat: Called about once a second.
    """

    def __init__(self, spec: ScreeningSpec, heartbeat: Heartbeat) -> None:
        self._inference = spec.inference
        self._spec = ray.put(spec)
        self._heartbeat = heartbeat
        self._workers: list[WorkerHandle] = []
        self._failed_starts = 0
        self.first_ready = 0.0
        """When the first worker was ready, by `time.perf_counter`."""
        self.layout = Layout.from_cluster(self._inference)

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, ShardReport | None]]:
        """Process every shard once, in any order; the report is None if the worker died or raised an error.

        Raises:
            UnfinishedError: If no worker can be started.
        """
        waiting = deque(shards)
        consecutive_failures = 0
        last_poll = 0.0
        while waiting or any(worker.in_flight for worker in self._workers):
            if time.monotonic() - last_poll > NODE_POLL_SECONDS:
                self._add_workers(len(waiting))
                last_poll = time.monotonic()
            self._assign(waiting)
            for shard, report in self._wait():
                consecutive_failures = 0 if report else consecutive_failures + 1
                yield shard, report
            self._heartbeat()
            if consecutive_failures > max(20, 4 * self.layout.predictors):
                # Every shard kills its worker: leave the rest to the isolation.
                yield from ((shard, None) for shard in waiting)
                waiting.clear()
        for worker in self._workers:
            ray.kill(worker.actor)

    def isolate(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, ShardReport]]:
        """Reprocess shards whose worker died; the rows that cause it become rejects.

        Raises:
            UnfinishedError: If more than `fault_limit` rows fail, or workers keep being killed for external reasons.
        """
        waiting = deque((shard, 0) for shard in shards)
        running: dict[Any, tuple[Shard, int]] = {}
        failed_rows = 0
        task = isolate_faults.options(num_cpus=1.0, num_gpus=self.layout.options.get("num_gpus", 0.0))
        while waiting or running:
            while waiting and len(running) < self.layout.predictors:
                shard, retries = waiting.popleft()
                remaining = self._inference.fault_limit - failed_rows
                running[task.remote(self._spec, shard, remaining)] = (shard, retries)
            for ref in _wait_for_any(list(running)):
                shard, retries = running.pop(ref)
                try:
                    report, failed = ray.get(ref)
                except TooManyFaultsError as error:
                    raise UnfinishedError(_too_many(shard, self._inference.fault_limit, error)) from None
                except RayTaskError:
                    raise
                except RayError:
                    if retries == MAX_RETRIES:
                        raise UnfinishedError(
                            f"{shard.name}: its processes were killed {retries + 1} times; run the same command again"
                        ) from None
                    waiting.append((shard, retries + 1))
                    continue
                failed_rows += failed
                yield shard, report
            self._heartbeat()

    def _add_workers(self, waiting: int) -> None:
        """Start workers until the cluster is full, or there are as many as shards waiting and in flight."""
        self.layout = Layout.from_cluster(self._inference)
        in_flight = sum(len(worker.in_flight) for worker in self._workers)
        while len(self._workers) < min(self.layout.predictors, waiting + in_flight):
            self._workers.append(WorkerHandle(self._start_worker(), self._spec))

    def _start_worker(self) -> Any:
        return WorkerActor.options(max_concurrency=SHARDS_PER_WORKER, **self.layout.options).remote()

    def _assign(self, waiting: deque[Shard]) -> None:
        """Submit shards to the workers with the fewest in flight, up to the limit of each."""
        limit = SHARDS_PER_WORKER
        if self.layout.separate_featurization:
            limit += self.layout.cores // self.layout.predictors
        for in_flight in range(limit):
            for worker in self._workers:
                if waiting and not worker.starting and len(worker.in_flight) == in_flight:
                    worker.submit(waiting.popleft(), self.layout.separate_featurization)

    def _wait(self) -> Iterator[tuple[Shard, ShardReport | None]]:
        """Yield the shards that are finished, and note which workers have become ready."""
        by_ref: dict[Any, WorkerHandle] = {}
        for worker in self._workers:
            by_ref |= dict.fromkeys(worker.in_flight, worker)
            if worker.starting:
                by_ref[worker.starting] = worker
        for ref in _wait_for_any(list(by_ref)):
            worker = by_ref[ref]
            if ref == worker.starting:
                self._on_ready(worker)
            else:
                yield worker.in_flight.pop(ref), self._report(worker, ref)

    def _on_ready(self, worker: WorkerHandle) -> None:
        """Mark a worker as ready, or start it again if its start failed."""
        try:
            ray.get(worker.starting)
        except RayError as error:
            self._failed_starts += 1
            is_restarting = isinstance(error, ActorUnavailableError)
            if self._failed_starts >= (MAX_RESTART_POLLS if is_restarting else MAX_RETRIES):
                reason = str(error).strip().splitlines()[-1]
                raise UnfinishedError(f"no worker can be started: {reason}") from None
            time.sleep(RESTART_POLL_SECONDS)
            worker.initialize()
        else:
            worker.starting = None
            self._failed_starts = 0
            self.first_ready = self.first_ready or time.perf_counter()

    def _report(self, worker: WorkerHandle, ref: Any) -> ShardReport | None:
        """Report of a finished shard; None if the worker died or raised an error, after which it is started again."""
        try:
            return ray.get(ref)
        except RayTaskError:
            ray.kill(worker.actor, no_restart=False)  # an error may leave the process, or its GPU, unusable
        except RayError:
            pass  # the worker is dead; Ray restarts it
        if not worker.starting:
            worker.initialize()
        return None


def _wait_for_any(refs: list[Any]) -> list[Any]:
    """Return every finished ref, waiting at most 1 s for the first."""
    if not refs or not ray.wait(refs, timeout=1)[0]:
        return []
    return ray.wait(refs, num_returns=len(refs), timeout=0)[0]


def _too_many(shard: Shard, limit: int, error: TooManyFaultsError) -> str:
    return (
        f"{shard.name}: more than {counted(limit, 'row')} killed their process or exceeded its limits; "
        f"the last one {error}; if the rows are the cause, raise inference.fault_limit"
    )
