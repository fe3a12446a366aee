"""Retries with exponential backoff, and a rate limit, for requests to a service on the network."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception_type, sleep_using_event, stop_before_delay
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from mat2spec.errors import Mat2SpecError, ServiceError

T = TypeVar("T")

FIRST_WAIT = 2.0
"""[s] After the first failure. Each wait is twice the one before, plus a random part of up to half of this."""

LONGEST_WAIT = 60.0
"""[s] Between two attempts."""


class RetryPolicy:
    """Runs requests of several threads: at a limited rate, and again after a temporary failure.

    Args:
        service: Name of the service, for errors.
        timeout: Time for which a failed request is retried [s].
        rate: Requests per second, over all threads.
        describe: Describes a failure in a line; raises a Mat2SpecError if a retry would fail in the same way.
    """

    def __init__(self, service: str, timeout: float, rate: float, describe: Callable[[Exception], str]) -> None:
        self._service = service
        self._timeout = timeout
        self._rate = rate
        self._describe = describe
        self._rate_lock = threading.Lock()
        self._next_request = 0.0
        self._stopped = threading.Event()

    def run(self, request: Callable[[], T]) -> T:
        """Return the answer to a request.

        Raises:
            ServiceError: If it still fails after the timeout, or `stop` was called.
            Mat2SpecError: At once, whatever `describe` or the request raises.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(_TemporaryError),
            stop=stop_before_delay(self._timeout) | stop_when_event_set(self._stopped),
            wait=wait_exponential_jitter(multiplier=FIRST_WAIT, jitter=FIRST_WAIT / 2, max=LONGEST_WAIT),
            sleep=sleep_using_event(self._stopped),
        )
        try:
            return retrying(self._attempt, request)
        except RetryError as failure:
            reason = f"no answer for {self._timeout:g} s ({failure.last_attempt.exception()})"
            resume = "finished shards are kept, run the same command to resume"
            raise ServiceError(f"{self._service}: {reason}; {resume}") from None

    def stop(self) -> None:
        """End all waits and refuse further requests, in every thread."""
        self._stopped.set()

    def _attempt(self, request: Callable[[], T]) -> T:
        if self._stopped.is_set():
            raise ServiceError(f"{self._service}: stopped")
        self._wait_for_rate_limit()
        try:
            return request()
        except Mat2SpecError:
            raise
        except Exception as error:  # every library has its own exceptions
            raise _TemporaryError(self._describe(error)) from error

    def _wait_for_rate_limit(self) -> None:
        with self._rate_lock:
            time.sleep(max(0.0, self._next_request - time.monotonic()))
            self._next_request = time.monotonic() + 1 / self._rate


class _TemporaryError(Exception):
    """A failure after which the request is repeated."""
