"""Progress of a job: a bar on a terminal, and a line about once a minute in a log."""

import sys
import threading
from typing import Any

from tqdm import tqdm

from mat2spec.errors import counted

ON_TERMINAL, IN_LOG = 0.2, 60.0
"""[s] Between two updates."""

REDRAW = 1.0
"""[s] After which the time is shown anew where nothing was done."""

FIRST_IN_LOG = 10.0
"""[s] Before the first line in a log; a shorter job has none."""

_PERIODS = (("s", 1), ("min", 60), ("h", 3600))


class Progress(tqdm):
    """A progress bar that counts what came of the work, and shows slow rates per minute or per hour.

    A thread of its own shows the time that goes by while nothing is finished. To be closed, as by a `with` block, so
    that what is printed next has a line of its own.

    Args:
        total: Number of things to do, with those that an earlier job did.
        unit: Their name, in the singular.
        initial: Number of things that an earlier job did. The rate and the counts leave them out.
    """

    monitor_interval = 0  # tqdm's thread only makes up for a `miniters` that is too large

    def __init__(self, total: int, unit: str, *, initial: int = 0) -> None:
        self._counts: dict[str, int] = {}
        self._is_terminal = sys.stderr.isatty()
        self._updating = threading.Lock()
        self._closed = threading.Event()
        super().__init__(
            total=total,
            initial=initial,
            unit=unit,
            file=sys.stderr,
            disable=initial >= total,
            leave=self._is_terminal,
            dynamic_ncols=self._is_terminal,
            bar_format="{percentage:3.0f}%|{bar}| {status}" if self._is_terminal else "{status}",
            mininterval=ON_TERMINAL if self._is_terminal else IN_LOG,
            miniters=0,  # also where nothing was done: the time goes on
            smoothing=0,  # the mean rate: DFT calculations take seconds or an hour
            delay=0 if self._is_terminal else FIRST_IN_LOG,
        )
        if not (self.disable or self._is_terminal):
            self.last_print_t -= IN_LOG  # so that the first line comes early
        if not self.disable:
            threading.Thread(target=self._redraw, daemon=True).start()

    def step(self, done: int = 1, **counts: int) -> None:
        """Add what was done, and show it if it is time.

        Args:
            done: Number of things that are finished.
            counts: What came of them, by a name in the singular.
        """
        with self._updating:
            for name, count in counts.items():
                self._counts[name] = self._counts.get(name, 0) + count
            self.update(done)

    def _redraw(self) -> None:
        while not self._closed.wait(REDRAW):
            self.step(0)

    def close(self) -> None:
        """Stop, and leave the cursor on a line of its own."""
        self._closed.set()
        with self._updating:
            super().close()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or write a line into the log."""
        if self._is_terminal:
            return super().display(msg, pos)
        if msg is None:
            print(self, file=self.fp, flush=True)
        return False

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm formats, and `status`: done, counts, rate and time left."""
        values = super().format_dict
        done = values["n"] - values["initial"]
        parts = [f"{values['n']}/{counted(values['total'], values['unit'])}"]
        new = "new " if values["initial"] else ""
        parts += [counted(count, f"{new}{name}") for name, count in self._counts.items()]
        if done > 0:
            rate = done / max(values["elapsed"], 1e-9)
            left = (values["total"] - values["n"]) / rate
            parts += [format_rate(rate, values["unit"]), f"{format_duration(left)} left"]
        else:
            parts.append(f"{format_duration(float(values['elapsed']))} elapsed")
        return values | {"status": ", ".join(parts)}


def format_rate(rate: float, unit: str) -> str:
    """Return a rate [1/s] per second, minute or hour, whichever is the first with at least one: "12 materials/min"."""
    name, number = next((name, rate * seconds) for name, seconds in _PERIODS if rate * seconds >= 1 or name == "h")
    digits = f"{number:.0f}" if number >= 10 else f"{number:.2g}"
    return f"{digits} {unit if digits == '1' else f'{unit}s'}/{name}"


def format_duration(seconds: float) -> str:
    """Return a time [s] in the unit that needs two or three digits."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86_400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if days < 2 else f"{days:.1f} days"
