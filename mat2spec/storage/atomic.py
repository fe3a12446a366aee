"""Files that are written whole or not at all: a kill at any moment leaves either the old file or the new one."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.storage.location import Location, store_errors_as_oserror

PARTIAL = ".*.partial"
"""Pattern of the names of files that a kill left unfinished."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside this one, for a file that is renamed to this one when the block ends without an error."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # after a power cut a rename may have survived and the content not
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_bytes(path: Location, content: bytes) -> None:
    """Write a file: by a rename on a disk, by one put on an object store.

    Raises:
        OSError: If the storage refuses it.
    """
    if isinstance(path, Path):
        with atomic_path(path) as partial:
            partial.write_bytes(content)
    else:
        with store_errors_as_oserror():
            path.write_bytes(content)


def write_text(path: Location, text: str) -> None:
    """Write a text file in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Location, record: Any) -> None:
    """Write a JSON file that people can read, as `write_bytes` does."""
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def write_parquet(path: Location, table: pa.Table) -> None:
    """Write a Parquet file, compressed with zstd, as `write_bytes` does.

    Lists of a fixed size with a NULL among them become lists of any size: pyarrow cannot read such columns back.
    """
    content = io.BytesIO()
    pq.write_table(_readable(table), content, compression="zstd")
    write_bytes(path, content.getvalue())


def _readable(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_fixed_size_list(field.type) and table.column(index).null_count:
            free = pa.list_(field.type.value_type)
            table = table.set_column(index, field.with_type(free), table.column(index).cast(free))
    return table
