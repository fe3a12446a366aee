"""The Ray session that a job works in."""

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

# Before Ray is imported, which reads them once.
os.environ.update(token_settings(os.environ))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# isort: split
import ray

_PORT_OF_NEXT_HEAD = "RAY_GCS_SERVER_PORT"


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS (set in every submitted job), else have a Ray of this process alone.

    Raises:
        RunError: If none answers there.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address)
    else:
        _start_here()
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=_knows_its_cluster(address))
    except ConnectionError:  # also of a Ray that asks for another token: it does not say so
        hint = f"give this process its token (RAY_AUTH_MODE is {os.environ['RAY_AUTH_MODE']}; see docs/clusters.md)"
        raise RunError(f"RAY_ADDRESS {address}: no Ray answers; start it, or {hint}") from None


class Head(NamedTuple):
    """A running Ray with a job server.

    Args:
        address: Of the job server.
        pid: Process that started it; all its others descend from this one.
        gcs: Address that further nodes join (`ray start --address`), and RAY_ADDRESS of drivers.
    """

    address: str
    pid: int
    gcs: str


@contextmanager
def local_head(variables: Mapping[str, str] | None = None, num_cpus: int | None = None) -> Iterator[Head]:
    """Run `ray start --head` here for as long as the block lasts, on free ports, so that it can stand beside any other Ray.

    Args:
        variables: Environment of the head and its jobs; default: this process's. Jobs find this process's python first.
        num_cpus: Cores that the head offers; default: all.

    Raises:
        RunError: If Ray does not start.
    """
    python = Path(sys.executable).parent
    inherited = os.environ if variables is None else variables
    ports = dict(
        zip(
            ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port"),
            _free_ports(4),
            strict=True,
        )
    )
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
            while not all(_listens(ports[name]) for name in ("dashboard-port", "dashboard-agent-listen-port")):
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
    """End a Ray; asked politely, each of its processes waits half a minute for the others."""
    with suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _start_here() -> None:
    """Start a Ray that ends with this process.

    The dashboard is no ornament: Ray Train asks it whether its controller lives, and stops the workers if the answer is no.
    """
    (port,) = _free_ports(1)
    os.environ[_PORT_OF_NEXT_HEAD] = str(port)
    try:
        ray.init(
            address="local",
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_knows_its_cluster(f"{ray.util.get_node_ip_address()}:{port}"),
        )
    finally:
        del os.environ[_PORT_OF_NEXT_HEAD]


def _knows_its_cluster(address: str) -> dict[str, dict[str, str]]:
    """Tell workers which Ray is theirs.

    Where two run on a machine, a worker asks whichever it finds for the state of the cluster; a training was stopped after five
    minutes because another's dashboard did not know its controller.
    """
    return {"env_vars": {"RAY_ADDRESS": address}}
