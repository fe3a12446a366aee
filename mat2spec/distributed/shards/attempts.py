"""How often a shard was tried: what always kills its process must not be tried forever."""

import sys
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

from mat2spec.distributed.session import ray_session  # noqa: F401  before ray itself: sets how Ray starts

# isort: split
import ray

from mat2spec.data.shards.step import ShardStep


class Attempts:
    """Counts how often each thing was started, so that what always kills its process is not tried forever.

    Ray Data repeats the work of a dead process without end, whatever killed it.
    """

    def __init__(self) -> None:
        self._attempts: Counter[str] = Counter()
        self._finished: dict[str, str] = {}

    def start(self, name: str) -> int:
        """Count an attempt; return how many there were before."""
        self._attempts[name] += 1
        return self._attempts[name] - 1

    def give_up(self, name: str) -> None:
        """Allow no further attempt."""
        self._attempts[name] = sys.maxsize

    def finish(self, name: str, result: str) -> None:
        """Keep the result of what need not be tried again."""
        self._finished[name] = result

    def finished(self, name: str) -> str | None:
        """Return the result that was kept, if any."""
        return self._finished.get(name)

    def forget(self, name: str) -> None:
        """Start again at none, because an attempt succeeded."""
        del self._attempts[name]


AttemptLog = ray.remote(num_cpus=0)(Attempts)
"""The actor. Not by a decorator: jaxtyping, with which the tests check types, cannot wrap the class that Ray makes."""


class Job(NamedTuple):
    """What a process needs to know; small, because Ray Data compares it for every block.

    Args:
        step: The step, in Ray's object store: a worker that Ray restarts on another node reads it from there.
        log: The attempts.
        workers: Number of workers that start.
    """

    step: "ray.ObjectRef[ShardStep]"
    log: Any
    workers: int

    def may_try(self, name: str, attempts: int) -> bool:
        """Count an attempt; return whether there were fewer before."""
        return ray.get(self.log.start.remote(name)) < attempts


@lru_cache(maxsize=1)
def _get(step: "ray.ObjectRef[ShardStep]") -> Any:
    return ray.get(step)


def get_step(job: Job) -> Any:
    """Return the step of a job, which a process reads only once, because it may hold a model."""
    return _get(job.step)
