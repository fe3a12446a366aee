"""Calculations on the cluster: each crystal a task of its own, tried once more by safer settings, and no third time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import NodeDiedError, RayError, RayTaskError

from mat2spec.config import LimitsConfig
from mat2spec.dft.engine import AttemptError, Engine, Limits
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import CalculationError, ConfigError, Mat2SpecError, UnfinishedError
from mat2spec.structure.crystal import Crystal
from mat2spec.verify.campaign import verified_row

PATIENCE = 5
"""Nodes that a calculation may lose without being blamed for it."""

AT_ONCE = 1000
"""Tasks that are with Ray at a time: all that may run, and enough waiting for an autoscaler to see."""

_GIGABYTE = 10**9


@dataclass(frozen=True)
class Task:
    """One calculation, for all materials that are the same crystal.

    Args:
        key: Its name.
        crystal: What is computed.
        ids: Of the materials.
        failed: Why the first attempt gave no spectrum.
        lost: How many nodes died under it.
    """

    key: str
    crystal: Crystal
    ids: tuple[str, ...]
    failed: str | None = None
    lost: int = 0


def compute(
    engine: Engine, grid: SpectrumGrid, config: LimitsConfig, tasks: Sequence[Task], tick: Callable[[], None]
) -> Iterator[tuple[Task, pa.Table | Mat2SpecError]]:
    """Compute crystals, in any order; give the row of each, or why there is none.

    Args:
        engine: What computes.
        grid: Axis of the spectra.
        config: What one of them may take.
        tasks: The crystals.
        tick: Called every second or so.

    Raises:
        UnfinishedError: If a node lacks the engine, or too many die.
    """
    limits = Limits(config.memory_gb, config.time_limit, config.cores)
    attempt = _attempt.options(**_resources(config))
    waiting, running = deque(tasks), dict[Any, Task]()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            task = waiting.popleft()
            running[attempt.remote(engine, task, grid, limits)] = task
        for ref in ray.wait(list(running), timeout=1)[0]:
            task = running.pop(ref)
            outcome = _outcome(ref, task)
            if isinstance(outcome, Task):
                waiting.append(outcome)
            else:
                yield task, outcome
        tick()


def _resources(config: LimitsConfig) -> dict[str, float]:
    """What Ray reserves: never more than the largest node has, where a task would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores, memory = (max(node.get(name, 0.0) for node in nodes) for name in ("CPU", "memory"))
    return {"num_cpus": min(config.cores, cores), "memory": min(config.memory_gb * _GIGABYTE, memory)}


def _outcome(ref: Any, task: Task) -> pa.Table | Mat2SpecError | Task:
    """What came of an attempt: a row, why there is none, or the next attempt."""
    name = task.ids[0]
    try:
        found = ray.get(ref)
    except RayTaskError as error:
        raise UnfinishedError(f"{name}: {error.cause}; what is computed is kept") from None
    except NodeDiedError:
        if task.lost == PATIENCE:
            raise UnfinishedError(f"{name}: {PATIENCE + 1} nodes died under it; give the same command again") from None
        return replace(task, lost=task.lost + 1)
    except RayError as error:
        found = AttemptError(
            f"its worker died ({type(error).__name__}), most likely for lack of memory; lower the load on the machine"
        )
    if not isinstance(found, AttemptError):
        return found
    if task.failed is None:
        return replace(task, failed=str(found))
    return CalculationError(name, f"{task.failed}; again with safer settings: {found}")


@ray.remote(max_retries=0)  # with one retry or more Ray begins anew, without end, what its memory monitor has ended
def _attempt(engine: Engine, task: Task, grid: SpectrumGrid, limits: Limits) -> pa.Table | Mat2SpecError | AttemptError:
    """Compute one crystal; whatever goes wrong with it is its own matter."""
    try:
        engine.check()
        return verified_row(engine.calculate(task.crystal, limits, safer=task.failed is not None), task.key, grid)
    except ConfigError:  # the node's matter
        raise
    except (Mat2SpecError, AttemptError) as error:
        return error
    except Exception as error:
        return AttemptError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
