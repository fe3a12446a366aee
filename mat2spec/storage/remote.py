"""Files on disks and in object stores: the door to fsspec."""

import glob
import os
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

import duckdb
import fsspec
from fsspec.core import url_to_fs

from mat2spec.errors import TableError


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def fixed_part(pattern: str) -> str:
    """The folders of a glob before the first that it leaves open: a/b of a/b/*/POSCAR."""
    *folders, _ = pattern.split("/")
    return "/".join(takewhile(lambda folder: not glob.has_magic(folder), folders)) or ("/" if pattern.startswith("/") else ".")


def open_file(path: str) -> Any:
    """Open a file or URL for reading bytes: a binary file, to be closed.

    Raises:
        OSError: If it cannot be opened.
    """
    return fsspec.open(path, "rb").open() if is_remote(path) else open(path, "rb")


def connect(files: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory that can read these files; its own extension for URLs would have to be downloaded."""
    connection = duckdb.connect()
    for protocol in {file.split("://")[0] for file in files if is_remote(file)}:
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
        raise TableError(f"{url}: cannot be listed ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from None
    for name, status in sorted(found.items()):
        below = PurePosixPath(name).name if name == path else os.path.relpath(name, fixed_part(path) if is_pattern else path)
        if status["type"] == "file" and not any(part.startswith(".") for part in below.split("/")):
            yield filesystem.unstrip_protocol(name), below, status["size"]
