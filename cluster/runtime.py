"""Where work runs and where its files go: the Ray session, and paths that stay valid on every node."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mat2spec.errors import ConfigError, RunError

# Before Ray is imported: the mode of its token, which it would otherwise choose by what earlier sessions left in the home directory.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

_UPLOADED_COPY = "runtime_resources/working_dir_files"


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS (set in every submitted job), else have a Ray of this process alone."""
    address = None if os.environ.get("RAY_ADDRESS") else "local"
    ray.init(address=address, log_to_driver=False, logging_level="warning", include_dashboard=None if address is None else False)
    try:
        yield
    finally:
        ray.shutdown()


def resolve(path: str) -> Path:
    """Make a path absolute: relative ones start at MAT2SPEC_HOME, else in the current directory."""
    return Path(os.environ.get("MAT2SPEC_HOME") or Path.cwd(), path).absolute()


def resolve_output(path: str) -> Path:
    """Make the path of a result absolute, and make sure that it can be written and outlives the job.

    Raises:
        ConfigError: If a relative path would land in Ray's uploaded copy of the working directory, which Ray deletes.
        RunError: If the directory cannot be made or written.
    """
    if not (Path(path).is_absolute() or os.environ.get("MAT2SPEC_HOME")) and _UPLOADED_COPY in str(Path.cwd()):
        raise ConfigError(f"output {path} is relative to Ray's uploaded copy, which is deleted; give an absolute path or set MAT2SPEC_HOME")
    output = resolve(path)
    existing = next(parent for parent in (output, *output.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"{output}: cannot be written ({existing} is not a writable directory); choose another --output")
    return output
