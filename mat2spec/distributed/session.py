"""Ray sessions: join the cluster of RAY_ADDRESS, start a local Ray, or start a local head with a job server."""

import logging
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

import psutil

from mat2spec.distributed.address import check_address, cluster_address, no_answer
from mat2spec.distributed.auth_token import ADDRESS, token_settings
from mat2spec.errors import RunError, UnfinishedError

# Before Ray is imported, because it reads them once.
os.environ.update(token_settings(os.environ))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# isort: split
import ray
import ray._private.worker
from ray._common.utils import get_default_system_temp_dir

START_ATTEMPTS = 4
"""How often a local Ray is started before the job gives up."""

_TIMED_OUT, _PORT_TAKEN = "timed out during startup", "Failed to start GCS"
"""In the messages of Ray's exceptions; the second comes after some 40 s where another process has taken the port."""

_HEAD_PORT = "RAY_GCS_SERVER_PORT"
"""Variable with the port of the next head that this process starts."""

_MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""[bytes] Of the path of a Unix socket."""

_HEAD_FOLDER = "ray-"
"""What the name of that folder begins with for a head; eight characters follow."""


def check_session() -> None:
    """Check what can be known before Ray starts, so that a job is refused before it writes anything.

    Raises:
        RunError: If no Ray answers at RAY_ADDRESS, or the folder of temporary files has too long a name for a local
            one.
    """
    if address := cluster_address():
        check_address(address)
    else:
        _check_socket_paths("ray")


def _check_socket_paths(name: str) -> None:
    """Check that the sockets of a Ray whose folder has this name can be opened.

    Raises:
        RunError: If their paths are too long.
    """
    folder = get_default_system_temp_dir()
    longest = f"session_2026-01-31_23-59-59_999999_{os.getpid()}/sockets/plasma_store"
    length = len(os.fsencode(os.path.join(folder, name, longest)))
    if length > _MAX_SOCKET_PATH:
        raise RunError(
            f"{folder}: too long for the paths of Ray's sockets, which would have {length} bytes "
            f"({_MAX_SOCKET_PATH} are allowed); set RAY_TMPDIR to a directory with a shorter name, such as /tmp"
        )


@contextmanager
def ray_session(*, dashboard: bool = False) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS (set in every submitted job), or else start a local Ray that ends with the block.

    Inside another session, the block uses that one.

    Args:
        dashboard: Whether a local Ray gets a dashboard: ten processes, which on two cores delay the first shard of a
            screening from 18.5 to 20.6 s. Ray Train needs it: it asks the dashboard whether the controller is alive,
            and stops the workers if it is not.

    Raises:
        RunError: If `check_session` refuses.
        UnfinishedError: If a local Ray does not start, because the machine is too busy.
    """
    if ray.is_initialized():
        yield
        return
    from ray import data  # noqa: F401  takes a second; sets the level of its loggers, so it comes before the next line

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Ray has no setting for it: into the driver's stdout, whatever `log_to_driver` is, it prints that a process died or
    # that a task is tried again, which the results of a job would then be mixed with.
    ray._private.worker._worker_logs_enabled = False
    check_session()
    if address := cluster_address():
        _join(address)
    else:
        _start_local(dashboard)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    os.environ[ADDRESS] = address  # Ray takes it from there, whatever its argument is
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=_runtime_env(address))
    except ConnectionError:  # also raised for a missing or wrong token, without saying so
        raise no_answer(address) from None


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

    It has a folder of temporary files of its own: in a common one the next `ray start` would take over its jobs.

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
        "--include-log-monitor=false",  # it reads all log files all the time, for drivers with `log_to_driver`
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    options += [] if num_cpus is None else [f"--num-cpus={num_cpus}"]
    _check_socket_paths(f"{_HEAD_FOLDER}12345678")
    with (
        TemporaryFile("w+") as log,
        TemporaryDirectory(
            prefix=_HEAD_FOLDER, dir=get_default_system_temp_dir(), ignore_cleanup_errors=True
        ) as folder,
        subprocess.Popen(
            [python / "ray", "start", "--head", f"--temp-dir={folder}", *options],
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
    """Ports that are free at every address of this machine: another Ray may have one at the machine's own only."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _start_local(dashboard: bool) -> None:
    """Start a Ray that ends with this process.

    Again if it takes longer than the 30 s for which Ray waits, or if its port was taken before it could take it.

    Raises:
        RunError: If it cannot write its files.
        UnfinishedError: If that happens each time.
    """
    before = set(psutil.Process().children())
    for _ in range(START_ATTEMPTS):
        try:
            return _init_local(dashboard)
        except Exception as error:  # Ray has no class for it
            if _TIMED_OUT not in str(error) and _PORT_TAKEN not in str(error):
                if isinstance(error, OSError):  # else it would look as if the results could not be written
                    reason = " ".join(str(error).split())
                    raise RunError(f"Ray cannot start: {reason}; RAY_TMPDIR sets the folder of its files") from None
                raise
            for process in set(psutil.Process().children()) - before:
                _kill_with_children(process.pid)
    raise UnfinishedError(
        f"Ray did not start in time, {START_ATTEMPTS} times: this machine is too busy; run the same command again"
    )


def _init_local(dashboard: bool) -> None:
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


def _runtime_env(address: str) -> dict[str, Any]:
    """Runtime environment that tells workers which cluster they belong to, and, where needed, which Python they are.

    Where two clusters run on one machine, a worker asks whichever it finds for the state of the cluster: a training
    was stopped after five minutes because another cluster's dashboard did not know its controller.

    Ray (2.60) starts workers by a shell and does not quote the path of Python: with a space in it none would start.
    """
    python = shlex.quote(sys.executable)
    return {"env_vars": {ADDRESS: address}} | ({} if python == sys.executable else {"py_executable": python})
