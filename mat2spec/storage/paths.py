"""Paths of a job: absolute, valid on every node, and not inside what Ray deletes."""

import os
from pathlib import Path

from mat2spec.errors import ConfigError, RunError
from mat2spec.storage.location import Location, is_url, locate

_UPLOADED_COPY = "runtime_resources/working_dir_files"


def resolve(path: str) -> Path:
    """Make a path absolute: relative to MAT2SPEC_HOME if that is set, else to the current directory."""
    return Path(os.environ.get("MAT2SPEC_HOME") or Path.cwd(), path).absolute()


def resolve_location(path: str) -> Location:
    """Make a path absolute, and leave a URL as it is."""
    return locate(path) if is_url(path) else resolve(path)


def resolve_run(path: str) -> Location:
    """Make the path of a run directory absolute and check it, as `resolve_output` does; leave a URL as it is."""
    return locate(path) if is_url(path) else resolve_output(path)


def resolve_output(path: str, *, directory: bool = True) -> Path:
    """Make the path of a result absolute, and check that it can be written and outlives the job.

    Args:
        path: The path as the user wrote it.
        directory: Whether the result is a directory, else a file.

    Raises:
        ConfigError: If a relative path would land in Ray's uploaded copy of the working directory, which Ray deletes.
        RunError: If it is a URL, or cannot be created or written.
    """
    if is_url(path):
        raise RunError(f"{path}: this job's results go to a local or shared directory; give a path")
    if not (Path(path).is_absolute() or os.environ.get("MAT2SPEC_HOME")) and _UPLOADED_COPY in str(Path.cwd()):
        raise ConfigError(
            f"output {path} is relative to Ray's copy of the working directory, which is deleted; "
            "give an absolute path or set MAT2SPEC_HOME"
        )
    output = resolve(path)
    existing = next(parent for parent in (output, *output.parents) if parent.exists())
    if existing.is_dir() != (directory or existing != output) or not os.access(existing, os.W_OK):
        what = "directory" if directory or existing != output else "file"
        raise RunError(f"{output}: cannot be written ({existing} is not a writable {what}); choose another path")
    return output
