"""How far a job is: a line that lives on a terminal; in a log a line now and then."""

import sys
import time

ON_TERMINAL, IN_LOG = 0.2, 60.0
"""[s] Between two lines."""


class Progress:
    """Counts what is done and says so.

    Args:
        total: Things to do.
        unit: Their name.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit = total, unit
        self._start = self._said = time.perf_counter()
        self._done = 0
        self._counts: dict[str, int] = {}

    def step(self, done: int = 1, **counts: int) -> None:
        """Add what was done, and say so if it is time.

        Args:
            done: Things that are finished.
            counts: What came of them, by name.
        """
        self._done += done
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        now, lives = time.perf_counter(), sys.stderr.isatty()
        last = self._done == self._total
        if now - self._said < (ON_TERMINAL if lives else IN_LOG) and not (last and lives):
            return
        self._said = now
        if lives:
            print(f"\r{self.line():<78}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """Say how much is done, how fast, and how long the rest takes at this rate."""
        seconds = time.perf_counter() - self._start
        told = "".join(f", {count} {name}" for name, count in self._counts.items())
        head = f"{self._done}/{self._total} {self._unit}{told}"
        if not self._done:
            return f"{head}, {seconds:.0f} s"
        rate = self._done / max(seconds, 1e-9)
        return f"{head}, {rate:.0f} {self._unit}/s, {_duration((self._total - self._done) / rate)} left"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
