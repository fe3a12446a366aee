"""Progress of a training: each epoch goes to MLflow, and some to the terminal of the driver."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mat2spec.distributed.session  # noqa: F401 - before ray itself: sets how Ray starts

# isort: split
import ray

# Where ray.train takes this from at run time; ray.train itself declares the types of an older API.
from ray.train.v2.api.callback import UserCallback
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mat2spec.distributed.training.tracking import TrainingTracking

PRINTED_EPOCHS = 20
"""About how many lines of progress a training prints."""


class EpochLog(UserCallback):
    """Logs each epoch from Ray's controller, so that a single process writes to MLflow wherever the workers run.

    Args:
        tracking: The MLflow run.
        epochs: Number of epochs.
        lines: Queue of lines to print.
    """

    def __init__(self, tracking: TrainingTracking, epochs: int, lines: Queue) -> None:
        self._tracking = tracking
        self._epochs = epochs
        self._lines = lines

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Log the metrics of an epoch, which the worker of rank zero has."""
        rank_zero = next(m for m in metrics if "valid_mae" in m)
        part = rank_zero.pop("part", "")
        self._tracking.log_epoch(rank_zero, part)
        epoch = int(rank_zero["epoch"])
        if epoch % max(1, self._epochs // PRINTED_EPOCHS) == 0 or epoch + 1 == self._epochs:
            valid = {key.removeprefix("valid_"): rank_zero[key] for key in rank_zero if key.startswith("valid_")}
            loss = rank_zero["train_loss"]
            name = f"{part}, " if part else ""
            progress = f"{name}epoch {epoch + 1}/{self._epochs}"
            self._lines.put(f"{progress}: loss {loss:.4f}, validation {format_scores(valid)}")


@contextmanager
def print_queue() -> Iterator[Queue]:
    """Queue whose lines this process prints: the workers' own output would come with all of Ray's."""
    # On this node, so that the queue does not die with another one.
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": this_node})

    def print_until_none() -> None:
        while (line := lines.get()) is not None:
            print(line, flush=True)

    printer = threading.Thread(target=print_until_none, daemon=True)
    printer.start()
    try:
        yield lines
    finally:
        lines.put(None)
        printer.join()
        lines.shutdown()


def format_scores(scores: Mapping[str, float]) -> str:
    """Format the most important scores for a line of progress."""
    return ", ".join(f"{name} {scores[name]:.4g}" for name in ("r2", "mae", "wd", "roc_auc") if name in scores)
