"""How far a job is: a line that lives on a terminal, and nothing in a log."""

import sys
import time


class Progress:
    """Counts what is done and says so.

    Args:
        total: Things to do.
        unit: Their name.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit = total, unit
        self._start = time.perf_counter()
        self._done = 0
        self._counts: dict[str, int] = {}

    def step(self, done: int = 1, **counts: int) -> None:
        """Add what was done, and show it on a terminal.

        Args:
            done: Things that are finished.
            counts: What came of them, by name.
        """
        self._done += done
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        if sys.stderr.isatty():
            rate = self._done / (time.perf_counter() - self._start)
            told = ", ".join(f"{count} {name}" for name, count in self._counts.items())
            left = (self._total - self._done) / rate
            line = f"{self._done}/{self._total} {self._unit}, {told}, {rate:.0f} {self._unit}/s, {left:.0f} s left"
            print(f"\r{line:<78}", end="\n" if self._done == self._total else "", file=sys.stderr, flush=True)
