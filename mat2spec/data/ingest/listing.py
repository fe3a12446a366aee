"""What lies at the paths that a user gives: files of a folder, a glob or an object store, in order, and what cannot be looked at."""

import glob
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap

from mat2spec.errors import TableError
from mat2spec.storage.location import find_remote, fixed_part, is_url
from mat2spec.storage.rejects import Reject, reject
from mat2spec.structure.readers.formats import is_known


@dataclass(frozen=True)
class Source:
    """A file to read.

    Args:
        url: Its path, or URL where it is remote.
        name: Its path below the folder, or below the fixed part of the glob, that the user named; else its last part.
        size: In bytes.
    """

    url: str
    name: str
    size: int


@dataclass(frozen=True)
class Listing:
    """All that was found.

    Args:
        sources: Files of a known format, by path.
        rejects: What cannot be looked at: folders, links that lead nowhere or in a circle.
        ignored: Number of files of other formats, by ending.
    """

    sources: tuple[Source, ...]
    rejects: tuple[Reject, ...]
    ignored: Mapping[str, int]

    def told(self) -> str:
        """Say how many files there are, and how many are of no known format."""
        others = ", ".join(f"{count} {ending}" for ending, count in sorted(self.ignored.items()))
        return (
            f"{len(self.sources)} files ({sum(self.ignored.values())} others ignored{f': {others}' if others else ''})"
        )


def list_sources(paths: Sequence[str]) -> Listing:
    """Find the files of paths: files, folders with all below them, globs, and URLs of fsspec (s3://, gs://, file://).

    Raises:
        TableError: If a path does not exist, cannot be read, or holds nothing of a known format.
    """
    sources: dict[str, Source] = {}
    rejects: list[Reject] = []
    ignored: dict[str, str] = {}
    for path in paths:
        known, others = 0, 0
        for found in starmap(Source, find_remote(path)) if is_url(path) else _local(path):
            if not isinstance(found, Source):
                rejects.append(found)
            elif is_known(found.url):
                sources.setdefault(found.url, found)
                known += 1
            else:
                ignored[found.url] = posixpath.splitext(found.url)[1].lower() or "without an ending"
                others += 1
        if not known and not rejects:
            raise TableError(f"{path}: {_nothing(path, others)}")
    return Listing(
        tuple(sorted(sources.values(), key=lambda source: source.url)), tuple(rejects), Counter(ignored.values())
    )


def _local(path: str) -> Iterator[Source | Reject]:
    if os.path.isdir(path):
        yield from _below(path, path, frozenset())
    elif os.path.lexists(path):
        yield _source(path, os.path.basename(path))
    else:
        fixed = fixed_part(path)
        for match in sorted(glob.iglob(path, recursive=True)):
            if os.path.isfile(match):
                yield _source(match, os.path.relpath(match, fixed))


def _below(root: str, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[Source | Reject]:
    """Walk a tree; a link to a folder above, which would make the walk endless, is a reject."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in above:
            raise OSError("a link to a folder above it; nothing was read twice")
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield reject(None, folder, "list", TableError(f"{folder}: cannot be listed ({error.strerror or error})"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry.path):  # not entry.is_dir(), which raises for a link to itself
            yield from _below(root, entry.path, above | {(status.st_dev, status.st_ino)})
        else:
            yield _source(entry.path, os.path.relpath(entry.path, root))


def _source(path: str, name: str) -> Source | Reject:
    try:
        return Source(path, name, os.stat(path).st_size)
    except OSError as error:
        return reject(None, path, "list", TableError(f"{path}: cannot be read ({error.strerror})"))


def _nothing(path: str, others: int) -> str:
    if others:
        return f"holds {others} files, none of a known format: CIF, POSCAR, extXYZ, JSON, CSV, Parquet, or archives of them"
    if os.path.isdir(path):
        return "is an empty folder; give files, folders, globs or URLs"
    there = (
        "matches no file"
        if glob.has_magic(path)
        else "does not exist, or is empty"
        if is_url(path)
        else "does not exist"
    )
    return f"{there}; give files, folders, globs or URLs"
