"""Files inside of files: what gzip, zstandard, tar and zip hold, read one after the other and never unpacked to disk."""

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
"""[bytes] Read at once."""

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
"""What the readers raise for a broken, encrypted or unsupported archive."""


@runtime_checkable
class Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """Give the next bytes, none at the end."""


def suffixes(name: str) -> tuple[str, ...]:
    """The last two endings of a name, in lower case: ("", ".cif"), (".tar", ".gz")."""
    parts = name.lower().rsplit("/", 1)[-1].split(".")
    ends = [f".{part}" for part in parts[1:][-2:]]
    return tuple(["", "", *ends][-2:])


def is_compressed(name: str) -> bool:
    """Whether a name is that of a compressed file, archive or not."""
    return suffixes(name)[1] in _COMPRESSED


def is_archive(name: str) -> bool:
    """Whether a name is that of an archive, which holds any number of files."""
    first, last = suffixes(name)
    return last in (".tar", ".zip", ".tgz") or (first == ".tar" and is_compressed(name))


def without_compression(name: str) -> str:
    """The name of what is compressed: quartz.cif of quartz.cif.gz."""
    return name[: -len(suffixes(name)[1])] if is_compressed(name) else name


def read_bounded(name: str, stream: Readable, largest: int) -> bytes:
    """Read a file to its end, decompressing it where its name says that it is compressed.

    Args:
        name: Of the file.
        stream: Where its bytes come from.
        largest: Bytes that may come out.

    Raises:
        TableError: If it is larger, or damaged.
    """
    try:
        with _decompressed(name, stream) as content:
            found = b"".join(_chunks(content, largest))
    except _BROKEN as error:
        raise TableError(f"{name}: damaged or not readable ({_first_line(error)})") from None
    if len(found) > largest:
        raise TableError(f"{name}: more than {largest:,} bytes; split it, or raise --largest-file")
    return found


def read_archive(
    name: str, stream: Readable, largest_file: int, largest_archive: int
) -> Iterator[tuple[str, bytes | TableError]]:
    """Read the files of an archive in its order; no name in it leads anywhere, because nothing is written.

    Args:
        name: Of the archive.
        stream: Where its bytes come from; of a zip it must seek.
        largest_file: Bytes that one of its files may have.
        largest_archive: Bytes that may come out of it in all.

    Yields:
        The name of a file and its bytes, decompressed, or why they cannot be had. A damaged archive, or one that grows beyond the limit,
        ends with a reason under the name "".
    """
    read = 0
    members = (
        _zip_members(stream, largest_archive)
        if suffixes(name)[1] == ".zip"
        else _tar_members(name, stream, largest_archive)
    )
    try:
        for member, size, content in members:
            if _of_finder(member):
                continue
            read += 1
            try:
                yield member, _member(f"{name}!{member}", size, content, largest_file)
            except TableError as error:
                yield member, error
    except _TooLargeError:
        yield (
            "",
            TableError(
                f"{name}: more than {largest_archive:,} bytes come out of it; split it, or raise --largest-archive"
            ),
        )
    except _BROKEN as error:
        before = "what came before was read" if read else "nothing of it could be read"
        yield "", TableError(f"{name}: damaged ({_first_line(error)}); {before}")


def _of_finder(member: str) -> bool:
    """Whether a file holds what macOS puts beside each that it packs."""
    return member.startswith("__MACOSX/") or member.rsplit("/", 1)[-1].startswith("._")


def _member(name: str, size: int, content: Readable, largest: int) -> bytes:
    path = name.rsplit("!", 1)[1]
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
        raise TableError(f"{name}: its path leads out of the archive; nothing in an honest archive does")
    if is_archive(path):
        raise TableError(f"{name}: an archive in an archive; unpack it first")
    if size > largest:
        raise TableError(f"{name}: {size:,} bytes are more than {largest:,}; raise --largest-file")
    return read_bounded(name, content, largest)


def _tar_members(name: str, stream: Any, largest: int) -> Iterator[tuple[str, int, Any]]:
    with _decompressed(name, stream) as content, _open_tar(_Bounded(content, largest)) as archive:
        for member in archive:
            if not member.isdir():
                yield (
                    member.name,
                    member.size,
                    archive.extractfile(member) or io.BytesIO() if member.isfile() else io.BytesIO(),
                )


def _open_tar(stream: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|")


def _zip_members(stream: Any, largest: int) -> Iterator[tuple[str, int, Any]]:
    with zipfile.ZipFile(stream) as archive:
        left = largest
        for member in archive.infolist():
            if member.is_dir():
                continue
            left -= member.file_size
            if left < 0:
                raise _TooLargeError
            with archive.open(member) as content:
                yield member.filename, member.file_size, content


class _TooLargeError(Exception):
    """More came out of an archive than may."""


class _Bounded:
    """A stream that ends with an error instead of filling a memory or a day."""

    def __init__(self, stream: Readable, largest: int) -> None:
        self._stream, self._left = stream, largest

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _TooLargeError
        return content


def _chunks(stream: Readable, largest: int) -> Iterator[bytes]:
    """Read to the end, or just beyond the limit: a stream that is asked for it all would first make room for it all."""
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
