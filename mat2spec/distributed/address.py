"""The address of the cluster that a job joins: found, and asked before Ray waits for its answer for many minutes."""

import os
import socket
import threading
import time
from collections.abc import Iterable

import psutil

from mat2spec.distributed.auth_token import ADDRESS, STARTS_LOCAL
from mat2spec.errors import RunError

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable that Ray's job server sets for the jobs it starts."""

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0
"""Longest waits for a port to open, and then for a Ray to answer at it."""

RETRY_SECONDS = 1.0
"""Between two questions to a Ray that may still be starting."""


def cluster_address() -> str | None:
    """Return the address of the cluster that this process joins; None if it starts a Ray of its own.

    Ray's job server passes each job the address of the Ray that was started last on the machine, which may be another
    cluster than its own. That of a submitted job is therefore read from its raylet's command line.
    """
    address = os.environ.get(ADDRESS)
    if address and SUBMITTED in os.environ:
        return address_of_raylet(process.cmdline() for process in psutil.Process().parents()) or address
    return None if address == STARTS_LOCAL else address or None


def address_of_raylet(commands: Iterable[list[str]]) -> str | None:
    """Return the address that the first raylet among these command lines has joined."""
    option = "--gcs-address="
    words = (word for command in commands for word in command)
    return next((word.removeprefix(option) for word in words if word.startswith(option)), None)


def check_address(address: str) -> None:
    """Check that a cluster answers at an address.

    Raises:
        RunError: If it is the address of a job server, or no Ray answers there.
    """
    protocol, _, rest = address.rpartition("://")
    if protocol.startswith("http"):
        raise RunError(
            f"{ADDRESS} {address}: is the address of a job server; submit to it (ray job submit --address {address} …) "
            f"or set {ADDRESS} to HOST:PORT of the cluster itself, usually port 6379"
        )
    if address == "auto":  # Ray looks for a head on this machine, and knows at once whether there is one
        return
    host, _, port = rest.rpartition(":")
    if not (host and port.isdecimal()):
        raise RunError(f"{ADDRESS} {address}: is no address; write HOST:PORT, usually with port 6379")
    _check_port(address, host.strip("[]"), int(port))
    if not protocol:
        _check_answer(address)


def no_answer(address: str, reason: str = "") -> RunError:
    """Return the error of a cluster that does not answer, or not to this process."""
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    return RunError(
        f"{ADDRESS} {address}: no Ray answers{f' ({reason})' if reason else ''}; start the cluster, unset {ADDRESS} "
        f"for a local Ray, or pass this process the cluster's token (RAY_AUTH_MODE is {mode}; see docs/clusters.md)"
    )


def _check_port(address: str, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise no_answer(address, getattr(error, "strerror", None) or str(error)) from None


def _check_answer(address: str) -> None:
    """Ask in a thread, because a server that takes connections and says nothing holds Ray's client for good."""
    # What `ray health-check` asks with. Ray takes seconds to import.
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    answered = threading.Event()
    end = time.monotonic() + ANSWER_SECONDS

    def ask() -> None:
        while not answered.is_set() and time.monotonic() < end:
            try:
                GcsClient(address=address)
                answered.set()
            except Exception:  # of Ray's own kinds and of gRPC's
                answered.wait(RETRY_SECONDS)

    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(ANSWER_SECONDS):
        raise no_answer(address)
