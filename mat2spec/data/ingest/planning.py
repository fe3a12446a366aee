"""Division of a user's files into shards."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.data.shards.shard import Shard, shard_name
from mat2spec.storage.location import ListedFile, open_file
from mat2spec.structure.readers.archives import is_archive
from mat2spec.structure.readers.names import is_parquet, is_table

SHARD_PREFIX = "part"


def plan_shards(sources: Sequence[ListedFile], rows_per_shard: int) -> list[Shard]:
    """Divide files into shards: at least one, possibly empty, and always the same for the same files.

    Archives, CSV tables and pieces of Parquet tables are shards of their own; other files share shards.
    """
    shards: list[Shard] = []
    files: list[ListedFile] = []

    def add(sources: Sequence[ListedFile], rows: range | None = None) -> None:
        urls = tuple(source.url for source in sources)
        names = tuple(source.name for source in sources)
        shards.append(Shard(shard_name(SHARD_PREFIX, len(shards)), urls, rows, labels=names))

    for source in sources:
        if is_parquet(source.url):
            for rows in _pieces_of_table(source.url, rows_per_shard):
                add([source], rows)
        elif is_archive(source.url) or is_table(source.url):
            add([source])
        else:
            files.append(source)
    for start in range(0, len(files), rows_per_shard):
        add(files[start : start + rows_per_shard])
    if not shards:
        add([])
    return shards


def _pieces_of_table(url: str, rows_per_piece: int) -> Iterator[range | None]:
    """Row ranges of a Parquet table; None for one that cannot be opened, which becomes a reject."""
    try:
        with open_file(url) as stream:
            rows = pq.read_metadata(stream).num_rows
    except (OSError, pa.ArrowException):
        yield None
        return
    yield from (range(start, min(start + rows_per_piece, rows)) for start in range(0, max(rows, 1), rows_per_piece))
