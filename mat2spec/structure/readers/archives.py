"""Reader of gzip, zstandard, tar and zip files, one member after the other and without unpacking to disk."""

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from mat2spec.errors import TableError

_COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".tgz": "gzip"}
_CHUNK = 1 << 20
"""[bytes] Size of one read."""

_BROKEN = (
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    pa.ArrowInvalid,
    NotImplementedError,
    RuntimeError,
    ValueError,
    zlib.error,
)
"""Exceptions that the libraries raise for a broken, encrypted or unsupported archive."""


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, none at the end."""


def suffixes(name: str) -> tuple[str, ...]:
    """The last two extensions of a name, in lower case: ("", ".cif"), (".tar", ".gz")."""
    parts = name.lower().rsplit("/", 1)[-1].split(".")
    ends = [f".{part}" for part in parts[1:][-2:]]
    return tuple(["", "", *ends][-2:])


def is_compressed(name: str) -> bool:
    """Whether a name is that of a compressed file, archive or not."""
    return suffixes(name)[1] in _COMPRESSED


def is_archive(name: str) -> bool:
    """Whether a name is that of an archive, which can hold several files."""
    first, last = suffixes(name)
    return last in (".tar", ".zip", ".tgz") or (first == ".tar" and is_compressed(name))


def without_compression(name: str) -> str:
    """Name of a file without the extension of its compression: quartz.cif for quartz.cif.gz."""
    return name[: -len(suffixes(name)[1])] if is_compressed(name) else name


def read_bounded(name: str, stream: Readable, largest: int) -> bytes:
    """Read a whole file, decompressing it if its name ends in .gz, .zst or .bz2.

    Args:
        name: Name of the file.
        stream: Its bytes.
        largest: Maximum decompressed size [bytes].

    Raises:
        TableError: If it is larger, or damaged.
    """
    try:
        with _decompressed(name, stream) as content:
            file = b"".join(_chunks(content, largest))
    except _BROKEN as error:
        raise TableError(f"{name}: damaged or not readable ({_first_line(error)})") from None
    if len(file) > largest:
        raise TableError(f"{name}: more than {largest:,} bytes; split it, or raise --reading.largest-file")
    return file


def read_archive(
    name: str, stream: Readable, largest_file: int, largest_archive: int
) -> Iterator[tuple[str, bytes | TableError]]:
    """Read the files of an archive in order. Nothing is written, so no name in it can overwrite a file.

    Args:
        name: Name of the archive.
        stream: Its bytes; for a zip the stream must be seekable.
        largest_file: Maximum decompressed size of one of its files [bytes].
        largest_archive: Maximum total decompressed size [bytes].

    Yields:
        Name and decompressed bytes of a file, or an error. A damaged archive, or one that exceeds the limit, ends with
        an error under the name "".
    """
    files_read = 0
    members = (
        _zip_members(stream, largest_archive)
        if suffixes(name)[1] == ".zip"
        else _tar_members(name, stream, largest_archive)
    )
    try:
        for member, size, content in members:
            if _is_macos_metadata(member):
                continue
            files_read += 1
            try:
                yield member, _member(f"{name}!{member}", size, content, largest_file)
            except TableError as error:
                yield member, error
    except _TooLargeError:
        rule = f"it holds more than {largest_archive:,} bytes decompressed"
        yield "", TableError(f"{name}: {rule}; split it, or raise --reading.largest-archive")
    except _BROKEN as error:
        salvaged = "the files before the damage were read" if files_read else "no file in it could be read"
        yield "", TableError(f"{name}: damaged ({_first_line(error)}); {salvaged}")


def _is_macos_metadata(member: str) -> bool:
    """Whether a file is metadata that macOS adds to archives."""
    return member.startswith("__MACOSX/") or member.rsplit("/", 1)[-1].startswith("._")


def _member(name: str, size: int, content: Readable, largest: int) -> bytes:
    path = name.rsplit("!", 1)[1]
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
        raise TableError(f"{name}: its path leads out of the archive; remove this file from it")
    if is_archive(path):
        raise TableError(f"{name}: an archive inside an archive; unpack it first")
    if size > largest:
        raise TableError(f"{name}: {size:,} bytes, more than {largest:,}; raise --reading.largest-file")
    return read_bounded(name, content, largest)


def _tar_members(name: str, stream: Any, largest: int) -> Iterator[tuple[str, int, Any]]:
    with _decompressed(name, stream) as content, _open_tar(_Bounded(content, largest)) as archive:
        for member in archive:
            if not member.isdir():
                file = archive.extractfile(member) if member.isfile() else None
                yield member.name, member.size, file or io.BytesIO()


def _open_tar(stream: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|")


def _zip_members(stream: Any, largest: int) -> Iterator[tuple[str, int, Any]]:
    with zipfile.ZipFile(stream) as archive:
        remaining = largest
        for member in archive.infolist():
            if member.is_dir():
                continue
            remaining -= member.file_size
            if remaining < 0:
                raise _TooLargeError
            with archive.open(member) as content:
                yield member.filename, member.file_size, content


class _TooLargeError(Exception):
    """An archive exceeds its maximum decompressed size."""


class _Bounded:
    """A stream that raises an error beyond a number of bytes."""

    def __init__(self, stream: Readable, largest: int) -> None:
        self._stream = stream
        self._remaining = largest

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._remaining -= len(content)
        if self._remaining < 0:
            raise _TooLargeError
        return content


def _chunks(stream: Readable, largest: int) -> Iterator[bytes]:
    """Read to the end, or just beyond the limit: reading all at once would allocate memory for it first."""
    total = 0
    while total <= largest and (chunk := stream.read(_CHUNK)):
        total += len(chunk)
        yield chunk


@contextmanager
def _decompressed(name: str, stream: Any) -> Iterator[Any]:
    if not is_compressed(name):
        yield stream
        return
    with pa.CompressedInputStream(pa.PythonFile(stream, "r"), _COMPRESSED[suffixes(name)[1]]) as content:
        yield content


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
