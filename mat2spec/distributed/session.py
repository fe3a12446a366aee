"""Ray sessions: join the cluster of RAY_ADDRESS, start a local Ray, or start a local head with a job server."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import psutil

from mat2spec.distributed.auth_token import token_settings
from mat2spec.errors import RunError

# Before Ray is imported, because it reads them once.
os.environ.update(token_settings(os.environ))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# isort: split
import ray

_HEAD_PORT = "RAY_GCS_SERVER_PORT"
"""Variable with the port of the next head that this process starts."""


@contextmanager
def ray_session(*, dashboard: bool = False) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS (set in every submitted job), or else start a local Ray that ends with the block.

    Inside another session, the block uses that one.

    Args:
        dashboard: Whether a local Ray gets a dashboard: ten processes, which on two cores delay the first shard of a
            screening from 18.5 to 20.6 s. Ray Train needs it: it asks the dashboard whether the controller is alive,
            and stops the workers if it is not.

    Raises:
        RunError: If no Ray answers at RAY_ADDRESS.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address)
    else:
        _start_local(dashboard)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=_runtime_env(address))
    except ConnectionError:  # also raised for a missing or wrong token, without saying so
        mode = os.environ["RAY_AUTH_MODE"]
        raise RunError(
            f"RAY_ADDRESS {address}: no Ray answers; start the cluster, or pass this process the cluster's token "
            f"(RAY_AUTH_MODE is {mode}; see docs/clusters.md)"
        ) from None


class Head(NamedTuple):
    """A running Ray with a job server.

    Args:
        address: Address of the job server.
        pid: Process that started it; all its other processes descend from this one.
        gcs: Address for further nodes (`ray start --address`) and for drivers (RAY_ADDRESS).
    """

    address: str
    pid: int
    gcs: str


@contextmanager
def local_head(variables: Mapping[str, str] | None = None, num_cpus: int | None = None) -> Iterator[Head]:
    """Run `ray start --head` on free ports, so that other Rays may run beside it, for as long as the block lasts.

    Args:
        variables: Environment of the head and its jobs, which find this process's python first; None: this process's.
        num_cpus: Cores that the head offers; None: all.

    Raises:
        RunError: If Ray does not start.
    """
    python = Path(sys.executable).parent
    inherited = os.environ if variables is None else variables
    port_options = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = dict(zip(port_options, _free_ports(len(port_options)), strict=True))
    options = [
        "--block",
        "--disable-usage-stats",
        "--dashboard-host=127.0.0.1",
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    options += [] if num_cpus is None else [f"--num-cpus={num_cpus}"]
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen(
            [python / "ray", "start", "--head", *options],
            env={**inherited, "PATH": f"{python}{os.pathsep}{inherited['PATH']}"},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            while not all(_is_listening(ports[name]) for name in ("dashboard-port", "dashboard-agent-listen-port")):
                if process.poll() is not None:
                    log.seek(0)
                    raise RunError(f"Ray did not start: {' '.join(log.read().split())[-500:]}")
                time.sleep(0.1)
            yield Head(
                f"http://127.0.0.1:{ports['dashboard-port']}",
                process.pid,
                f"{ray.util.get_node_ip_address()}:{ports['port']}",
            )
        finally:
            _kill_with_children(process.pid)


def _kill_with_children(pid: int) -> None:
    """Kill a Ray; after a SIGTERM each of its processes would wait half a minute for the others."""
    with suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _start_local(dashboard: bool) -> None:
    """Start a Ray that ends with this process."""
    (port,) = _free_ports(1)
    os.environ[_HEAD_PORT] = str(port)
    try:
        ray.init(
            address="local",
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_runtime_env(f"{ray.util.get_node_ip_address()}:{port}"),
        )
    finally:
        del os.environ[_HEAD_PORT]


def _runtime_env(address: str) -> dict[str, dict[str, str]]:
    """Runtime environment that tells workers which cluster they belong to.

    Where two clusters run on one machine, a worker asks whichever it finds for the state of the cluster: a training
    was stopped after five minutes because another cluster's dashboard did not know its controller.
    """
    return {"env_vars": {"RAY_ADDRESS": address}}
