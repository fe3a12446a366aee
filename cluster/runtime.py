"""The Ray session that a job works in."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before Ray is imported: the mode of its token, which it would otherwise choose by what earlier sessions left in the home directory.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

_PORT_OF_NEXT_HEAD = "RAY_GCS_SERVER_PORT"


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS (set in every submitted job), else have a Ray of this process alone."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if address := os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=_knows_its_cluster(address))
    else:
        _start_here()
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def local_head() -> Iterator[str]:
    """Run a Ray with a job server on this machine, for as long as the block lasts; gives its address.

    Jobs find this process's python first.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        yield f"http://{_start_here()}"
    finally:
        ray.shutdown()


def _start_here() -> str:
    """Start a Ray that ends with this process; gives the address of its dashboard, on loopback.

    The dashboard is no ornament: Ray Train asks it whether its controller lives, and stops the workers if the answer is no.
    """
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    os.environ[_PORT_OF_NEXT_HEAD] = str(port)
    try:
        context = ray.init(
            address="local",
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_knows_its_cluster(f"{ray.util.get_node_ip_address()}:{port}"),
        )
    finally:
        del os.environ[_PORT_OF_NEXT_HEAD]
    return context.dashboard_url


def _knows_its_cluster(address: str) -> dict[str, dict[str, str]]:
    """Tell workers which Ray is theirs.

    Where two run on a machine, a worker asks whichever it finds for the state of the cluster; a training was stopped after five
    minutes because another's dashboard did not know its controller.
    """
    return {"env_vars": {"RAY_ADDRESS": address}}
