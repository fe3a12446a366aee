"""The work of an ingestion, cut into shards: files, archives and rows of tables in; rows of a materials table and rejects out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.ingest.listing import Source
from mat2spec.data.ingest.user_tables import read_rows
from mat2spec.data.materials.schema import materials_table
from mat2spec.errors import StructureError, TableError
from mat2spec.storage.location import open_file
from mat2spec.storage.rejects import reject, reject_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.archives import is_archive, read_archive, read_bounded
from mat2spec.structure.readers.disorder import Parsed
from mat2spec.structure.readers.formats import is_known, is_table, read_structures, stem

STAGE = "read"


@dataclass(frozen=True)
class Batch:
    """A shard of the work.

    Args:
        name: Stem of its output files.
        sources: URL and name of each file.
        rows: Of one Parquet table, the first row and the one after the last; else None.
    """

    name: str
    sources: tuple[tuple[str, str], ...]
    rows: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Give it as plain values, to be sent."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Batch":
        """Read what `to_json` gave, also where lists have become arrays on the way."""
        rows = None if record["rows"] is None else tuple(map(int, record["rows"]))
        return cls(record["name"], tuple((str(url), str(name)) for url, name in record["sources"]), rows)  # type: ignore[arg-type]


class Outcome(NamedTuple):
    """What became of a shard.

    Args:
        materials: Rows of the materials table.
        rejects: The others.
    """

    materials: pa.Table
    rejects: pa.Table


def cut(sources: Sequence[Source], rows_per_shard: int) -> list[Batch]:
    """Cut sources into shards, always the same ones, at least one: archives and pieces of tables by themselves, other files together."""
    parts: list[tuple[tuple[tuple[str, str], ...], tuple[int, int] | None]] = []
    files: list[tuple[str, str]] = []
    for source in sources:
        here = (source.url, source.name)
        if is_archive(source.url):
            parts.append(((here,), None))
        elif is_table(source.url):
            parts.extend(((here,), rows) for rows in _pieces(source.url, rows_per_shard))
        else:
            files.append(here)
    parts.extend((tuple(files[start : start + rows_per_shard]), None) for start in range(0, len(files), rows_per_shard))
    return [Batch(f"part-{index:06d}", of_part, rows) for index, (of_part, rows) in enumerate(parts or [((), None)])]


def read_batch(batch: Batch, config: ReadingConfig) -> Outcome:
    """Read a shard; whatever cannot be read is a reject, and nothing else is lost by it."""
    if batch.sources and is_table(batch.sources[0][0]):
        url, name = batch.sources[0]
        return _sort_out(*read_rows(url, name, batch.rows, config))
    found = [entry for url, name in batch.sources for entry in _structures(url, name, config)]
    return _sort_out(found, pa.table({"": pa.nulls(len(found))}).select([]))


def _structures(url: str, name: str, config: ReadingConfig) -> Iterator[tuple[str, Parsed]]:
    try:
        with open_file(url) as stream:
            if not is_archive(url):
                yield from _of_file(url, name, read_bounded(name, stream, config.largest_file), config)
                return
            for member, content in read_archive(name, stream, config.largest_file, config.largest_archive):
                source = f"{url}!{member}" if member else url
                if isinstance(content, TableError):
                    yield source, Parsed("", StructureError(stem(member or name), str(content)))
                elif is_table(member):
                    yield (
                        source,
                        Parsed("", StructureError(stem(member), f"{member} is a table in an archive; unpack it first")),
                    )
                elif is_known(member):
                    yield from _of_file(source, member, content, config)
    except TableError as error:
        yield url, Parsed("", StructureError(stem(name), str(error)))
    except OSError as error:
        yield url, Parsed("", StructureError(stem(name), f"{name} cannot be read ({error.strerror or error})"))


def _of_file(source: str, name: str, content: bytes, config: ReadingConfig) -> Iterator[tuple[str, Parsed]]:
    material_id = stem(name) if config.ids == "stem" else str(PurePosixPath(name).with_name(stem(name)))
    found = read_structures(name, content, config, material_id)
    for index, parsed in enumerate(found):
        yield source if len(found) == 1 else f"{source}#{parsed.name or index}", parsed


def _sort_out(found: Sequence[tuple[str, Parsed]], further: pa.Table) -> Outcome:
    """Part crystals from rejects.

    Args:
        found: Source and structure of each.
        further: The other columns of the table from which they come.
    """
    crystals = {i: parsed.crystal for i, (_, parsed) in enumerate(found) if isinstance(parsed.crystal, Crystal)}
    kept = list(crystals)
    columns = {
        "source": pa.array([found[i][0] for i in kept], pa.string()),
        "ordered_from": pa.array([found[i][1].ordered_from for i in kept], pa.string()),
        **{name: further[name].take(pa.array(kept, pa.int64())) for name in further.column_names},
    }
    rejects = [
        reject(c.crystal.material_id, source, STAGE, c.crystal)
        for source, c in found
        if isinstance(c.crystal, StructureError)
    ]
    return Outcome(materials_table(list(crystals.values()), columns), reject_table(rejects))


def _pieces(url: str, rows_per_shard: int) -> Iterator[tuple[int, int] | None]:
    """Pieces of a Parquet table; a CSV table, and one that cannot be opened, is read as a whole."""
    if not url.lower().endswith(".parquet"):
        yield None
        return
    try:
        with open_file(url) as stream:
            rows = pq.read_metadata(stream).num_rows
    except (OSError, pa.ArrowInvalid):
        yield None
        return
    yield from ((start, min(start + rows_per_shard, rows)) for start in range(0, max(rows, 1), rows_per_shard))
