"""Files at the paths that a user gives (folders, globs, URLs), and rejects for those that cannot be listed."""

import glob
import hashlib
import json
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from mat2spec.errors import TableError, counted
from mat2spec.storage.location import (
    ListedFile,
    Location,
    folders_before_pattern,
    is_url,
    list_remote_files,
    path_of_url,
    store_errors_as_oserror,
)
from mat2spec.storage.rejects import Reject, reject
from mat2spec.storage.run_directory import MATERIALS, RECORD
from mat2spec.structure.readers.names import is_known, is_parquet

_FORMATS = "CIF, POSCAR, extXYZ, JSON, CSV, Parquet, or archives of them"

_VERSIONS = "whose files also hold deleted and replaced rows; write the current ones to a Parquet file, those of"


@dataclass(frozen=True)
class FileListing:
    """All files at some paths.

    Args:
        sources: Files of a known format, sorted by path.
        rejects: Folders that cannot be listed, and links that are broken or circular.
        ignored: Number of files of other formats, by extension.
    """

    sources: tuple[ListedFile, ...]
    rejects: tuple[Reject, ...]
    ignored: Mapping[str, int]

    @property
    def holds_only_parquet(self) -> bool:
        """Whether all files are Parquet tables, and nothing else could be there: no folder that cannot be listed."""
        return not self.rejects and all(is_parquet(source.url) for source in self.sources)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes when a file is added, removed or changed, by its name, size and time: none is read."""
        digest = hashlib.sha256()
        for source in self.sources:
            line = f"{source.name}\t{source.size}\t{source.version}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def summary(self) -> str:
        """Number of files, and of ignored files by extension."""
        files = counted(len(self.sources), "file")
        if not self.ignored:
            return files
        extensions = ", ".join(f"{count} {extension}" for extension, count in sorted(self.ignored.items()))
        return f"{files} ({counted(sum(self.ignored.values()), 'other')} ignored: {extensions})"


def list_input(pattern: Location, output: Location | None = None) -> tuple[FileListing, Location]:
    """List the files of an input; of an ingestion, or a screening of structure files, those of its table.

    Args:
        pattern: File, folder, glob or directory of an ingestion.
        output: Directory of the job that reads them, which may be below the input; it is left out.

    Returns:
        The files, and the folder or pattern that was listed.

    Raises:
        TableError: If there is nothing to read, or an ingestion is not finished.
    """
    try:
        with store_errors_as_oserror():
            while (pattern / RECORD).is_file() and (pattern / MATERIALS).is_dir():
                _check_finished(pattern)
                pattern = pattern / MATERIALS
    except OSError as error:
        raise TableError(f"{pattern}: cannot be read ({error})") from None
    return list_sources([str(pattern)], None if output is None else str(output)), pattern


def _check_finished(directory: Location) -> None:
    """Refuse the directory of an ingestion that still lacks rows."""
    try:
        record = json.loads((directory / RECORD).read_text())
    except ValueError:
        return  # not ours: a folder that happens to have these names
    if isinstance(record, dict) and "identity" in record and record.get("status") != "finished":
        raise TableError(f"{directory}: is not finished; run the command that makes it again")


def list_sources(paths: Sequence[str], output: str | None = None) -> FileListing:
    """List the files at paths: files, folders with all their subfolders, globs, and fsspec URLs (s3://, gs://, file://).

    Args:
        paths: The paths.
        output: Directory of the job that reads them, which may be below a path; it is left out.

    Raises:
        TableError: If a path does not exist, cannot be read, or holds nothing of a known format.
    """
    sources: dict[str, ListedFile] = {}
    rejects: list[Reject] = []
    ignored: dict[str, str] = {}
    output = output and path_of_url(output)
    for path in map(path_of_url, paths):
        known = 0
        unknown = 0
        for entry in list_remote_files(path) if is_url(path) else _list_local(path):
            if not isinstance(entry, ListedFile):
                rejects.append(entry)
                continue
            if format := _format_of_versions(entry.name):
                raise TableError(f"{path}: holds {format}")
            if output and entry.url.startswith(f"{output}/") and not path.startswith(f"{output}/"):
                continue
            if is_known(entry.url):
                sources.setdefault(entry.url, entry)
                known += 1
            else:
                ignored[entry.url] = posixpath.splitext(entry.url)[1].lower() or "without extension"
                unknown += 1
        if not known and not rejects:
            raise TableError(f"{path}: {_why_nothing(path, unknown)}")
    in_order = sorted(sources.values(), key=lambda source: source.url)
    return FileListing(tuple(in_order), tuple(rejects), Counter(ignored.values()))


def _list_local(path: str) -> Iterator[ListedFile | Reject]:
    if os.path.isdir(path):
        yield from _walk(path, path, frozenset())
    elif os.path.lexists(path):
        yield _source(path, os.path.basename(path))
    else:
        yield from _match(path)


def _match(pattern: str) -> Iterator[ListedFile | Reject]:
    """List the files that match a glob, and those below folders that match it, each once."""
    start = folders_before_pattern(pattern)
    listed: set[str] = set()
    for match in sorted(glob.iglob(pattern, recursive=True), key=lambda path: (path.count("/"), path)):
        folder, name = os.path.split(match.rstrip("/"))
        real = os.path.realpath(match) if os.path.isdir(match) else os.path.join(os.path.realpath(folder), name)
        if listed.isdisjoint([real, *map(str, PurePath(real).parents)]):
            listed.add(real)
            if os.path.isdir(match):
                yield from _walk(start, match.rstrip("/"), frozenset())
            else:
                yield _source(match, os.path.relpath(match, start))


def _walk(root: str, folder: str, parents: frozenset[tuple[int, int]]) -> Iterator[ListedFile | Reject]:
    """Walk a tree; a link to a parent folder, which would make the walk endless, is a reject."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in parents:
            raise OSError("a link to a folder above it; nothing was read twice")
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield reject(None, folder, "list", TableError(f"{folder}: cannot be listed ({error.strerror or error})"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry.path):  # not entry.is_dir(), which raises for a link to itself
            yield from _walk(root, entry.path, parents | {(status.st_dev, status.st_ino)})
        else:
            yield _source(entry.path, os.path.relpath(entry.path, root))


def _source(path: str, name: str) -> ListedFile | Reject:
    try:
        status = os.stat(path)
        return ListedFile(path, name, status.st_size, str(status.st_mtime_ns))
    except OSError as error:
        return reject(None, path, "list", TableError(f"{path}: cannot be read ({error.strerror})"))


def _format_of_versions(name: str) -> str:
    """Name the format of a folder to which a file belongs, if it also keeps files of earlier versions; else ""."""
    *folders, file = name.split("/")
    if "_delta_log" in folders:
        return f"a Delta table, {_VERSIONS} deltalake.DeltaTable(PATH).to_pyarrow_table()"
    if folders[-1:] == ["metadata"] and file.endswith(".metadata.json"):
        return f"an Iceberg table, {_VERSIONS} pyiceberg.table.StaticTable.from_metadata(METADATA).scan().to_arrow()"
    return ""


def _why_nothing(path: str, unknown: int) -> str:
    if unknown:
        return f"holds {counted(unknown, 'file')}, none of a known format: {_FORMATS}"
    if os.path.isdir(path):
        reason = "is an empty folder"
    elif glob.has_magic(path):
        reason = "matches no file"
    elif is_url(path):
        reason = "does not exist, or is empty"
    else:
        reason = "does not exist"
    return f"{reason}; give files, folders, globs or URLs"
