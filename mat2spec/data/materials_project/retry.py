"""Patience with a service on the network: not too many requests at a time, and those that fail again, less and less often."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from mat2spec.errors import Mat2SpecError, ServiceError

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0
"""[s] After a request that failed, and at most; each wait is twice the one before, less up to half of it by chance."""


class Patience:
    """Asks for several threads.

    Args:
        service: Name of what is asked.
        seconds: For how long a request that fails is repeated.
        rate: Requests per second, of all threads together.
        problem: Says in a line what an error means; raises one of ours if it would happen again.
    """

    def __init__(self, service: str, seconds: float, rate: float, problem: Callable[[Exception], str]) -> None:
        self._service, self._seconds, self._rate, self._problem = service, seconds, rate, problem
        self._turn, self._stopped = threading.Lock(), threading.Event()
        self._free_from = 0.0

    def ask(self, request: Callable[[], T]) -> T:
        """Ask until there is an answer.

        Raises:
            ServiceError: If there is none when patience ends.
        """
        end, wait = time.monotonic() + self._seconds, FIRST_WAIT
        while True:
            self._wait_for_turn()
            try:
                return request()
            except Mat2SpecError:
                raise
            except Exception as error:  # every library has errors of its own
                problem = self._problem(error)
            if time.monotonic() + wait > end:
                way_out = "what is fetched is kept, and the same command goes on from here"
                raise ServiceError(f"{self._service}: no answer for {self._seconds:g} s ({problem}); {way_out}")
            if self._stopped.wait(wait * random.uniform(0.5, 1.0)):
                raise ServiceError(f"{self._service}: stopped")
            wait = min(2 * wait, LONGEST_WAIT)

    def stop(self) -> None:
        """Let no thread wait any longer."""
        self._stopped.set()

    def _wait_for_turn(self) -> None:
        with self._turn:
            time.sleep(max(0.0, self._free_from - time.monotonic()))
            self._free_from = time.monotonic() + 1 / self._rate
