"""The workers of a screening: given shards as they become free, begun anew when they die, joined by others when nodes come."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from mat2spec.config import InferenceConfig
from mat2spec.data.materials.shards import Shard
from mat2spec.distributed.screening.actors import SHARDS_AT_ONCE, Worker, build_graphs, isolate_faults
from mat2spec.errors import UnfinishedError
from mat2spec.predict.isolation import TooManyFaultsError
from mat2spec.predict.pipeline import Done, Recipe

RECRUITING = 5.0
"""[s] Between two looks at whether nodes came."""

PATIENCE = 5
"""Times that an isolation, or the start of a worker, may fail for reasons of its machine."""

RESTARTING = 600
"""Times, half a second apart, that a worker may be found restarting before it is given up."""

SMALLEST_MEMORY = 2_000_000_000
"""[bytes] Given to a process even where Ray counts less for each core."""

Tick = Callable[[], None]


class Layout(NamedTuple):
    """Which processes work, and with what.

    Args:
        predictors: Processes that hold the network.
        options: Ray's resources of each.
        apart: Whether graphs are built by other tasks.
        cores: Cores of the cluster.
    """

    predictors: int
    options: dict[str, float]
    apart: bool
    cores: int

    @classmethod
    def of_cluster(cls, inference: InferenceConfig) -> "Layout":
        """Give a predictor each GPU, or each core where there are none."""
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
        predictors = inference.predictors or gpus or cores
        options = {
            "num_cpus": 1 / math.ceil(predictors / cores)
        }  # shares of which a whole number fits: none may span two
        if gpus:
            options["num_gpus"] = 1 / math.ceil(predictors / gpus)
        apart = bool(gpus) if inference.featurize_apart is None else inference.featurize_apart
        if apart:
            options["num_cpus"] /= 2  # so that on a single core both find room
        return cls(predictors, options, apart, cores)


def memory_of_process(inference: InferenceConfig) -> int | None:
    """Give the data that a process may hold [bytes]: as configured, else the share of a core in its node's memory; with GPUs any."""
    if inference.memory_per_process:
        return int(inference.memory_per_process * 1e9)
    if ray.cluster_resources().get("GPU", 0):
        return None  # CUDA reserves addresses far beyond any memory
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [resources.get("memory", 0) / resources["CPU"] for resources in nodes if resources.get("CPU")]
    return max(SMALLEST_MEMORY, int(min(shares, default=0)))


class _Member:
    """A worker as the driver sees it.

    Args:
        actor: Its process.
        recipe: What it is given.
    """

    def __init__(self, actor: Any, recipe: Any) -> None:
        self.actor = actor
        self.busy: dict[Any, Shard] = {}
        self._recipe = recipe
        self.begin()

    def begin(self) -> None:
        """Make it ready; until it is, it is given nothing."""
        self.starting = self.actor.begin.remote(self._recipe)

    def give(self, shard: Shard, apart: bool) -> None:
        """Give it a shard."""
        done = (
            self.actor.predict.remote(shard, build_graphs.remote(self._recipe, shard))
            if apart
            else self.actor.screen.remote(shard)
        )
        self.busy[done] = shard


class Crew:
    """All workers of a screening.

    Args:
        recipe: What they do.
        tick: Called every second or so.
    """

    def __init__(self, recipe: Recipe, tick: Tick) -> None:
        self._inference, self._recipe, self._tick = recipe.inference, ray.put(recipe), tick
        self._members: list[_Member] = []
        self._failed_starts = 0
        self.began = 0.0  # when the first worker was ready, by time.perf_counter
        self.layout = Layout.of_cluster(self._inference)

    def work(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Done | None]]:
        """Do shards once each, in any order; of those that died with their worker there is no outcome.

        Raises:
            UnfinishedError: If no worker can be started.
        """
        waiting, unlucky, recruited = deque(shards), 0, 0.0
        while waiting or any(member.busy for member in self._members):
            if time.monotonic() - recruited > RECRUITING:
                self._recruit(len(waiting))
                recruited = time.monotonic()
            self._assign(waiting)
            for shard, done in self._wait():
                unlucky = 0 if done else unlucky + 1
                yield shard, done
            self._tick()
            if unlucky > max(
                20, 4 * self.layout.predictors
            ):  # something kills whatever it is given: to be looked at one by one
                yield from ((shard, None) for shard in waiting)
                waiting.clear()
        for member in self._members:
            ray.kill(member.actor)

    def isolate(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Done]]:
        """Do shards that died with their worker; rows that are to blame for it become rejects.

        Raises:
            UnfinishedError: If more rows are to blame than may be, or the machines give no peace.
        """
        waiting, running, faults = deque((shard, 0) for shard in shards), dict[Any, tuple[Shard, int]](), 0
        options = {"num_cpus": 1.0, "num_gpus": self.layout.options.get("num_gpus", 0.0)}
        while waiting or running:
            while waiting and len(running) < self.layout.predictors:
                shard, tries = waiting.popleft()
                left = self._inference.fault_limit - faults
                running[isolate_faults.options(**options).remote(self._recipe, shard, left)] = (shard, tries)
            for ref in _ready(list(running)):
                shard, tries = running.pop(ref)
                try:
                    done, found = ray.get(ref)
                except TooManyFaultsError as error:
                    raise UnfinishedError(_too_many(shard, self._inference.fault_limit, error)) from None
                except RayTaskError:
                    raise
                except RayError:
                    if tries == PATIENCE:
                        raise UnfinishedError(
                            f"{shard.name}: its processes were killed {tries} times; give the same command again"
                        ) from None
                    waiting.append((shard, tries + 1))
                    continue
                faults += found
                yield shard, done
            self._tick()

    def _recruit(self, shards: int) -> None:
        """Have as many workers as the cluster has room for now, and no more than there are shards."""
        self.layout = Layout.of_cluster(self._inference)
        at_work = sum(len(member.busy) for member in self._members)
        while len(self._members) < min(self.layout.predictors, shards + at_work):
            self._members.append(_Member(self._enlist(), self._recipe))

    def _enlist(self) -> Any:
        return Worker.options(**self.layout.options).remote()  # type: ignore[attr-defined]

    def _assign(self, waiting: deque[Shard]) -> None:
        """Give shards to the workers that have fewest."""
        at_once = SHARDS_AT_ONCE + (self.layout.cores // self.layout.predictors if self.layout.apart else 0)
        for number in range(at_once):
            for member in self._members:
                if waiting and not member.starting and len(member.busy) == number:
                    member.give(waiting.popleft(), self.layout.apart)

    def _wait(self) -> Iterator[tuple[Shard, Done | None]]:
        by_ref = {
            ref: member
            for member in self._members
            for ref in (*member.busy, *([member.starting] if member.starting else []))
        }
        for ref in _ready(list(by_ref)):
            member = by_ref[ref]
            if ref == member.starting:
                self._welcome(member)
            else:
                yield member.busy.pop(ref), self._outcome(member, ref)

    def _welcome(self, member: _Member) -> None:
        """Note that a worker is ready, or try again."""
        try:
            ray.get(member.starting)
            member.starting, self._failed_starts = None, 0
            self.began = self.began or time.perf_counter()
        except RayError as error:
            self._failed_starts += 1
            restarting = isinstance(error, ActorUnavailableError)  # which takes a while
            if self._failed_starts >= (RESTARTING if restarting else PATIENCE):
                raise UnfinishedError(f"no worker can be started: {str(error).strip().splitlines()[-1]}") from None
            time.sleep(0.5)
            member.begin()

    def _outcome(self, member: _Member, ref: Any) -> Done | None:
        try:
            return ray.get(ref)
        except RayTaskError:  # an error may leave a process, or its GPU, unfit for more
            ray.kill(member.actor, no_restart=False)
        except RayError:
            pass  # dead; Ray begins it anew
        if not member.starting:
            member.begin()
        return None


def _ready(refs: list[Any]) -> list[Any]:
    """Wait up to a second for one of what was asked for, and take with it all others that are there: many workers end within one wait."""
    if not refs or not ray.wait(refs, timeout=1)[0]:
        return []
    return ray.wait(refs, num_returns=len(refs), timeout=0)[0]


def _too_many(shard: Shard, limit: int, error: TooManyFaultsError) -> str:
    return (
        f"{shard.name}: more than {limit} rows end their process or exceed its limits, the last one {error}; "
        "if the rows are to blame, raise inference.fault_limit"
    )
