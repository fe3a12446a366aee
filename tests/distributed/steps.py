"""A step of a job that computes nothing, so that tests of the engine start quickly and fail where they should."""

import os
import signal
import time
from dataclasses import dataclass, field

import pyarrow as pa

from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import READ, ShardStep, ShardTables, StageTimer
from mat2spec.storage.rejects import reject_table


@dataclass(frozen=True)
class Step(ShardStep):
    """Copies the numbers of its rows.

    Args:
        start: What happens when a process starts: "", raise or kill.
        rows: What happens at a row, by its number: raise, kill, hang, or once (it is killed the first time).
    """

    start: str = ""
    rows: dict[int, str] = field(default_factory=dict)

    def processor(self) -> "Copy":
        if self.start == "raise":
            raise MemoryError("the model is too large")
        if self.start == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return Copy(self)


class Copy:
    def __init__(self, step: Step) -> None:
        self._step = step

    def compute(self, shard: Shard, timer: StageTimer) -> ShardTables:
        timer.start(READ)
        for row in shard.rows:
            self._do(self._step.rows.get(row, ""), row)
        timer.stop()
        return ShardTables(pa.table({"material_id": pa.array(map(str, shard.rows), pa.string())}), reject_table([]))

    def _do(self, fault: str, row: int) -> None:
        if fault == "raise":
            raise ZeroDivisionError("an error of any kind")
        if fault == "hang":
            time.sleep(10_000)
        marker = self._step.run.path / f"{row}.killed"
        if fault == "kill" or (fault == "once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
