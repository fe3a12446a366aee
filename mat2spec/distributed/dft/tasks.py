"""DFT calculations as Ray tasks: one per crystal, with one more attempt by safer settings."""

from collections import deque
from collections.abc import Iterator, Sequence
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

MAX_NODE_FAILURES = 5
"""Nodes that may die under a calculation before the job stops."""

MAX_SUBMITTED = 1000
"""Tasks submitted to Ray at a time: all that may run, and enough waiting ones for an autoscaler to see."""

_GIGABYTE = 10**9


@dataclass(frozen=True)
class Task:
    """One calculation, for all materials that are the same crystal.

    Args:
        key: Key of the calculation.
        crystal: The crystal to compute.
        ids: Ids of the materials.
        first_error: Why the first attempt failed; None before.
        lost_nodes: Number of nodes that died while computing it.
    """

    key: str
    crystal: Crystal
    ids: tuple[str, ...]
    first_error: str | None = None
    lost_nodes: int = 0


def compute(
    engine: Engine, grid: SpectrumGrid, config: LimitsConfig, tasks: Sequence[Task]
) -> Iterator[tuple[Task, pa.Table | Mat2SpecError]]:
    """Compute crystals, in any order; yield the row of each, or the error.

    Args:
        engine: The DFT engine.
        grid: Axis of the spectra.
        config: Limits of a calculation.
        tasks: The calculations.

    Raises:
        UnfinishedError: If a node lacks the engine, or too many nodes die.
    """
    limits = Limits(config.memory_gb, config.time_limit, config.cores)
    attempt = _attempt.options(**_resources(config))
    waiting = deque(tasks)
    running: dict[Any, Task] = {}
    while waiting or running:
        while waiting and len(running) < MAX_SUBMITTED:
            task = waiting.popleft()
            running[attempt.remote(engine, task, grid, limits)] = task
        for ref in ray.wait(list(running))[0]:
            task = running.pop(ref)
            result = _result(ref, task)
            if isinstance(result, Task):
                waiting.append(result)
            else:
                yield task, result


def _resources(config: LimitsConfig) -> dict[str, float]:
    """Resources that Ray reserves: never more than the largest node has, because the task would wait forever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores, memory = (max(node.get(name, 0.0) for node in nodes) for name in ("CPU", "memory"))
    return {"num_cpus": min(config.cores, cores), "memory": min(config.memory_gb * _GIGABYTE, memory)}


def _result(ref: Any, task: Task) -> pa.Table | Mat2SpecError | Task:
    """Result of an attempt: a row, the final error, or the task to try again."""
    name = task.ids[0]
    try:
        result = ray.get(ref)
    except RayTaskError as error:
        raise UnfinishedError(f"{name}: {error.cause}; finished calculations are kept") from None
    except NodeDiedError:
        if task.lost_nodes == MAX_NODE_FAILURES:
            raise UnfinishedError(
                f"{name}: {MAX_NODE_FAILURES + 1} nodes died while computing it; run the same command again"
            ) from None
        return replace(task, lost_nodes=task.lost_nodes + 1)
    except RayError as error:
        result = AttemptError(
            f"its worker died ({type(error).__name__}), most likely for lack of memory; lower the load on the machine"
        )
    if not isinstance(result, AttemptError):
        return result
    if task.first_error is None:
        return replace(task, first_error=str(result))
    return CalculationError(name, f"{task.first_error}; again with safer settings: {result}")


@ray.remote(max_retries=0)  # with retries, Ray restarts without end a task that its memory monitor has killed
def _attempt(engine: Engine, task: Task, grid: SpectrumGrid, limits: Limits) -> pa.Table | Mat2SpecError | AttemptError:
    """Compute one crystal; return its row, or what went wrong with it."""
    try:
        engine.check()
        calculation = engine.calculate(task.crystal, limits, safer=task.first_error is not None)
        return verified_row(calculation, task.key, grid)
    except ConfigError:  # the node lacks the engine
        raise
    except (Mat2SpecError, AttemptError) as error:
        return error
    except Exception as error:
        return AttemptError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
