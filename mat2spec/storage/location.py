"""Paths of this machine, and URLs of object stores that are used like paths."""

import glob
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from upath import UPath

from mat2spec.errors import Mat2SpecError, StorageError, TableError

if TYPE_CHECKING:
    import duckdb

Location = Path | UPath

_UNCACHED: dict[str, Any] = {"use_listings_cache": False}
"""Option of every file system of fsspec: other processes write into the same folders."""

_STORE_EXTRAS = "pip install 'mat2spec[s3]' or 'mat2spec[gcs]'"
"""What to do if the package of an object store is missing."""


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def path_of_url(path: str) -> str:
    """Return the path that a file:// URL stands for; anything else as it is. fsspec does not follow links on a disk."""
    protocol, _, rest = path.partition("://")
    return rest if protocol in ("file", "local") else path


def locate(path: str) -> Location:
    """Return the location of a URL or of an absolute path."""
    path = path_of_url(path)
    return UPath(path, **_UNCACHED) if is_url(path) else Path(path)


def open_file(path: str) -> Any:
    """Open a file or URL for reading; return a binary file that the caller closes.

    Raises:
        OSError: If it cannot be opened.
    """
    return fsspec.open(path, "rb", **_UNCACHED).open() if is_url(path) else open(path, "rb")


def remove_tree(path: Location) -> None:
    """Remove a folder and everything in it; it may be gone already.

    Raises:
        OSError: If something cannot be removed.
    """
    with store_errors_as_oserror(), suppress(FileNotFoundError):
        if isinstance(path, Path):
            shutil.rmtree(path)
        else:
            path.fs.rm(path.path, recursive=True)


def connect_duckdb(files: Iterable[str]) -> "duckdb.DuckDBPyConnection":
    """Open a DuckDB in memory that reads these files. URLs go through fsspec: DuckDB would download an extension."""
    import duckdb  # a prediction does not need it, and in a process that loads torch it reports leaks at exit

    connection = duckdb.connect()
    for protocol in {file.split("://")[0] for file in files if is_url(file)}:
        connection.register_filesystem(fsspec.filesystem(protocol, **_UNCACHED))
    return connection


class ListedFile(NamedTuple):
    """A file that was listed, on a disk or in an object store.

    Args:
        url: Its path or URL.
        name: Its path below the folder, or below the fixed part of the glob, that was listed; else its last part.
        size: In bytes.
        version: The time of its last change, or the hash of its content, whichever the store lists; empty if neither.
    """

    url: str
    name: str
    size: int
    version: str


_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
"""Where the file systems of fsspec list a hash of a file's content, or else its time."""


def list_remote_files(url: str) -> Iterator[ListedFile]:
    """List the files at a URL: itself, those below it, or those that match it as a glob; hidden ones are skipped.

    Yields:
        The files, sorted by URL.

    Raises:
        TableError: If the store cannot be reached or listed, or its package is not installed.
    """
    try:
        filesystem, root = url_to_fs(url, **_UNCACHED)
        is_pattern = glob.has_magic(root) and not filesystem.exists(root)
        files = _match(filesystem, root) if is_pattern else filesystem.find(root, detail=True)
    except ImportError as error:
        raise TableError(f"{url}: {error}; {_STORE_EXTRAS}") from None
    except Exception as error:  # each store has errors of its own
        raise TableError(f"{url}: cannot be listed ({type(error).__name__}: {_one_line(error)})") from None
    start = folders_before_pattern(root) if is_pattern else root
    for name, info in sorted(files.items()):
        relative = PurePosixPath(name).name if name == root else os.path.relpath(name, start)
        is_hidden = any(part.startswith(".") for part in relative.split("/"))
        if info["type"] == "file" and not is_hidden:
            version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
            yield ListedFile(filesystem.unstrip_protocol(name), relative, info["size"], version)


def _match(filesystem: AbstractFileSystem, pattern: str) -> dict[str, Any]:
    """Files that match a glob, and those below folders that match it."""
    files: dict[str, Any] = {}
    for name, info in filesystem.glob(pattern, detail=True).items():
        files |= filesystem.find(name, detail=True) if info["type"] == "directory" else {name: info}
    return files


def folders_before_pattern(pattern: str) -> str:
    """Return the folders of a glob that come before its first wildcard: a/b of a/b/*/POSCAR."""
    *folders, _ = pattern.split("/")
    fixed = "/".join(takewhile(lambda folder: not glob.has_magic(folder), folders))
    return fixed or ("/" if pattern.startswith("/") else ".")


@contextmanager
def store_errors_as_oserror() -> Iterator[None]:
    """Turn whatever the package of an object store raises into an OSError, which is what a disk raises."""
    try:
        yield
    except (OSError, Mat2SpecError):
        raise
    except ImportError as error:
        raise OSError(f"{error}; {_STORE_EXTRAS}") from error
    except Exception as error:  # each package has errors of its own
        raise OSError(f"{type(error).__name__}: {error}") from error


@contextmanager
def storage_errors(path: Location) -> Iterator[None]:
    """Report a storage that fails during a job in one line.

    Raises:
        StorageError: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(storage_error_message(path, error)) from None


def storage_error_message(path: Location | str, error: Exception, action: str = "written") -> str:
    """Return a line that says what can no longer be written or read, why, and how to resume the job."""
    return f"{path}: cannot be {action} ({error_reason(error)}); finished work is kept, run the same command to resume"


def error_reason(error: Exception) -> str:
    """Return the reason of a failed access to storage in one line, without the path that an OSError repeats."""
    return getattr(error, "strerror", None) or _one_line(error) or type(error).__name__


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
