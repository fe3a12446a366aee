"""A small cluster on this machine: a head that only schedules, and nodes that can be killed and added."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil
import requests

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own
    from mat2spec.distributed.session import local_head

ROOT = Path(__file__).parents[2]

RAY = Path(sys.executable).with_name("ray")

SCRUBBED = ("MAT2SPEC_HOME", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")
"""Variables that determine where jobs read and write."""

FAST_HEALTH_CHECKS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_timeout_ms": "20000",
}
"""A lost node is noticed after 5 s instead of 17; one that is only slow has 20 s to answer."""

DEADLINE = 240
"""[s] Time limit of every wait; each takes a few seconds on an idle machine."""


def wait_until(condition: Callable[[], object], what: str, alive: subprocess.Popen | None = None) -> None:
    """Poll until something has happened; fail if the process that should do it has exited."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE} s"
        assert alive is None or alive.poll() is None, f"exited before {what}: {alive.communicate()}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Cluster:
    """A running Ray of several nodes.

    Args:
        gcs: Address that nodes and drivers join.
        jobs: Address of the job server.
        variables: Environment of its processes, with its token.
        nodes: Main process of each node but the head.
        cleanup: Stops everything that was started.
    """

    gcs: str
    jobs: str
    variables: dict[str, str]
    nodes: list[subprocess.Popen]
    cleanup: ExitStack

    @property
    def token(self) -> dict[str, str]:
        """HTTP header with the token."""
        return {"Authorization": f"Bearer {self.variables['RAY_AUTH_TOKEN']}"}

    def add_nodes(self, count: int) -> None:
        """Add nodes of one core each and wait until they are up; one by one, because two may choose the same port."""
        options = ["--num-cpus=1", "--dashboard-agent-listen-port=0", "--disable-usage-stats"]
        command = [RAY, "start", "--address", self.gcs, "--block", "--include-log-monitor=false", *options]
        for _ in range(count):
            before = self.alive()
            process = self._start_node(command)
            while not self.alive() - before:
                if process.poll() is not None:  # another Ray may have taken its port while both started
                    process = self._start_node(command)
                wait_until(
                    lambda before=before, new=process: self.alive() - before or new.poll() is not None,
                    "a node has joined",
                )
            self.nodes.append(process)

    def _start_node(self, command: list[object]) -> subprocess.Popen:
        process = subprocess.Popen(command, env=self.variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.cleanup.callback(kill, process)
        return process

    def kill_node(self) -> None:
        """Kill the oldest node, raylet and workers at once, as a power failure does."""
        kill(self.nodes.pop(0))

    def alive(self) -> set[str]:
        """Ids of the nodes that the head considers alive."""
        answer = requests.get(f"{self.jobs}/nodes?view=summary", headers=self.token, timeout=30).json()
        nodes = answer["data"]["summary"]
        return {node["raylet"]["nodeId"] for node in nodes if node["raylet"]["state"] == "ALIVE"}

    def start(
        self, *command: object, on_nodes: Mapping[str, str] = MappingProxyType({}), **variables: object
    ) -> subprocess.Popen:
        """Start a job of this repository whose driver joins this cluster.

        Args:
            command: Its script and arguments.
            on_nodes: Variables of its processes on the nodes, which inherit none of the driver's.
            variables: Variables of the driver.
        """
        environment = (
            self.variables | {"RAY_ADDRESS": self.gcs} | {name: str(value) for name, value in variables.items()}
        )
        if on_nodes:  # as the job manager of Ray passes them to a submitted job
            environment["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": {"env_vars": dict(on_nodes)}})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment, **pipes)
        self.cleanup.callback(kill, process)
        return process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@contextmanager
def start_cluster(nodes: int, **variables: object) -> Iterator[Cluster]:
    """Start a head without cores for tasks, and nodes of one core each."""
    environment = {name: value for name, value in os.environ.items() if name not in SCRUBBED}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), **FAST_HEALTH_CHECKS}
    environment |= {name: str(value) for name, value in variables.items()}
    with local_head(environment, num_cpus=0) as head, ExitStack() as cleanup:
        cluster = Cluster(head.gcs, head.address, environment, [], cleanup)
        wait_until(cluster.alive, "the head is registered")
        cluster.add_nodes(nodes)
        yield cluster


def kill(process: subprocess.Popen) -> None:
    """Kill a process and all its descendants at once."""
    try:
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        processes = []
    for each in processes:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate()
