"""Where files are: paths of this machine, and URLs of object stores that behave like them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from upath import UPath

from mat2spec.errors import Mat2SpecError, StorageError

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
