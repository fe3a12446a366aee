"""Where files are: paths of this machine, and URLs of object stores that behave like them."""

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import duckdb
import fsspec
from fsspec.core import url_to_fs
from upath import UPath

from mat2spec.errors import Mat2SpecError, StorageError, TableError

Location = Path | UPath

PARTIAL = ".*.partial"
"""Names of files that a kill left unfinished."""


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def locate(path: str) -> Location:
    """Give the location of a URL, as the store has it now and not as it was when it was last listed, or of an absolute path."""
    return UPath(path, use_listings_cache=False) if is_url(path) else Path(path)


def put(place: Location, content: bytes) -> None:
    """Write a file whole or not at all: by one put on an object store, else under another name that is then changed.

    Raises:
        OSError: If the storage does not take it.
    """
    if not isinstance(place, Path):
        with errors_of_stores():
            place.write_bytes(content)
        return
    partial = place.with_name(f".{place.name}.{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a rename may survive a power cut that its content does not
        partial.replace(place)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def errors_of_stores() -> Iterator[None]:
    """Make whatever a store's package raises an OSError, as a disk would."""
    try:
        yield
    except (OSError, Mat2SpecError):
        raise
    except Exception as error:  # each package has errors of its own
        raise OSError(f"{type(error).__name__}: {error}") from error


@contextmanager
def storage(place: Location) -> Iterator[None]:
    """Tell a failure of the storage in a line.

    Raises:
        StorageError: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(storage_failure(place, error)) from None


def storage_failure(place: Location | str, error: Exception, done: str = "written") -> str:
    """Say that something can no longer be read or written, and what becomes of the rest."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
    return f"{place}: cannot be {done} ({reason}); what is finished is kept, and the same command goes on from here"


def fixed_part(pattern: str) -> str:
    """The folders of a glob before the first that it leaves open: a/b of a/b/*/POSCAR."""
    *folders, _ = pattern.split("/")
    return "/".join(takewhile(lambda folder: not glob.has_magic(folder), folders)) or (
        "/" if pattern.startswith("/") else "."
    )


def open_file(path: str) -> Any:
    """Open a file or URL for reading bytes: a binary file, to be closed.

    Raises:
        OSError: If it cannot be opened.
    """
    return fsspec.open(path, "rb").open() if is_url(path) else open(path, "rb")


def connect(files: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory that can read these files; its own extension for URLs would have to be downloaded."""
    connection = duckdb.connect()
    for protocol in {file.split("://")[0] for file in files if is_url(file)}:
        connection.register_filesystem(fsspec.filesystem(protocol, use_listings_cache=False))
    return connection


def find_remote(url: str) -> Iterator[tuple[str, str, int]]:
    """Find the files at a URL: itself, those below it, or those that match it.

    Yields:
        URL, path below the one given, and size [bytes] of each, in order.

    Raises:
        TableError: If the store cannot be reached or listed, or its package is not installed.
    """
    try:
        filesystem, path = url_to_fs(url)
        is_pattern = glob.has_magic(path)
        found = filesystem.glob(path, detail=True) if is_pattern else filesystem.find(path, detail=True)
    except ImportError as error:
        raise TableError(f"{url}: {error}; pip install 'mat2spec[s3]' or 'mat2spec[gcs]'") from None
    except Exception as error:  # each store has errors of its own
        raise TableError(
            f"{url}: cannot be listed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from None
    for name, status in sorted(found.items()):
        below = (
            PurePosixPath(name).name
            if name == path
            else os.path.relpath(name, fixed_part(path) if is_pattern else path)
        )
        if status["type"] == "file" and not any(part.startswith(".") for part in below.split("/")):
            yield filesystem.unstrip_protocol(name), below, status["size"]
