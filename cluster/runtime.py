"""The Ray session that a job works in."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before Ray is imported: the mode of its token, which it would otherwise choose by what earlier sessions left in the home directory.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS (set in every submitted job), else have a Ray of this process alone."""
    joined = bool(os.environ.get("RAY_ADDRESS"))
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.init(
        address=None if joined else "local",
        include_dashboard=None if joined else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def local_head() -> Iterator[str]:
    """Run a Ray with a dashboard and its job server on this machine, for as long as the block lasts; gives its address.

    Jobs find this process's python first.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    context = ray.init(
        address="local", include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR
    )
    try:
        yield f"http://{context.dashboard_url}"
    finally:
        ray.shutdown()
