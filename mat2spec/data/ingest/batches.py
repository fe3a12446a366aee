"""Batches of an ingestion: files, archives and rows of tables in; rows of a materials table and rejects out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.ingest.listing import SourceFile
from mat2spec.data.ingest.user_tables import read_user_table
from mat2spec.data.materials.schema import materials_table
from mat2spec.errors import StructureError, TableError
from mat2spec.storage.location import open_file
from mat2spec.storage.rejects import reject, reject_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.archives import is_archive, read_archive, read_bounded
from mat2spec.structure.readers.disorder import ParsedStructure
from mat2spec.structure.readers.formats import is_known, is_table, read_structures, stem

STAGE = "read"


@dataclass(frozen=True)
class Batch:
    """Files, or rows of one table, that are read and written together.

    Args:
        name: Stem of its output files.
        sources: URL and name of each file.
        rows: Of one Parquet table, the first row and the one after the last; else None.
    """

    name: str
    sources: tuple[tuple[str, str], ...]
    rows: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the batch as plain values, to be sent to another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Batch":
        """Read what `to_json` returned, also where lists have become arrays on the way."""
        rows = None if record["rows"] is None else tuple(map(int, record["rows"]))
        return cls(record["name"], tuple((str(url), str(name)) for url, name in record["sources"]), rows)  # type: ignore[arg-type]


class BatchTables(NamedTuple):
    """Output of a batch.

    Args:
        materials: Rows of the materials table.
        rejects: All other rows.
    """

    materials: pa.Table
    rejects: pa.Table


def make_batches(sources: Sequence[SourceFile], rows_per_batch: int) -> list[Batch]:
    """Divide sources into batches, at least one and always the same for the same sources.

    Archives and pieces of tables are batches of their own; other files share batches.
    """
    parts: list[tuple[tuple[tuple[str, str], ...], tuple[int, int] | None]] = []
    files: list[tuple[str, str]] = []
    for source in sources:
        file = (source.url, source.name)
        if is_archive(source.url):
            parts.append(((file,), None))
        elif is_table(source.url):
            parts.extend(((file,), rows) for rows in _pieces_of_table(source.url, rows_per_batch))
        else:
            files.append(file)
    parts.extend((tuple(files[start : start + rows_per_batch]), None) for start in range(0, len(files), rows_per_batch))
    return [Batch(f"part-{index:06d}", *part) for index, part in enumerate(parts or [((), None)])]


def read_batch(batch: Batch, config: ReadingConfig) -> BatchTables:
    """Read a batch; a structure that cannot be read becomes a reject and affects no other."""
    if batch.sources and is_table(batch.sources[0][0]):
        url, name = batch.sources[0]
        return _to_tables(*read_user_table(url, name, batch.rows, config))
    structures = [structure for url, name in batch.sources for structure in _read_source(url, name, config)]
    return _to_tables(structures, pa.table({"": pa.nulls(len(structures))}).select([]))


def _read_source(url: str, name: str, config: ReadingConfig) -> Iterator[tuple[str, ParsedStructure]]:
    try:
        with open_file(url) as stream:
            if is_archive(url):
                for member, content in read_archive(name, stream, config.largest_file, config.largest_archive):
                    yield from _read_member(url, name, member, content, config)
            else:
                yield from _read_file(url, name, read_bounded(name, stream, config.largest_file), config)
    except TableError as error:
        yield url, _error(name, str(error))
    except OSError as error:
        yield url, _error(name, f"{name} cannot be read ({error.strerror or error})")


def _read_member(
    url: str, archive: str, member: str, content: bytes | TableError, config: ReadingConfig
) -> Iterator[tuple[str, ParsedStructure]]:
    source = f"{url}!{member}" if member else url
    if isinstance(content, TableError):
        yield source, _error(member or archive, str(content))
    elif is_table(member):
        yield source, _error(member, f"{member} is a table inside an archive; unpack it first")
    elif is_known(member):
        yield from _read_file(source, member, content, config)


def _read_file(source: str, name: str, content: bytes, config: ReadingConfig) -> Iterator[tuple[str, ParsedStructure]]:
    material_id = stem(name) if config.ids == "stem" else str(PurePosixPath(name).with_name(stem(name)))
    structures = read_structures(name, content, config, material_id)
    for index, structure in enumerate(structures):
        yield source if len(structures) == 1 else f"{source}#{structure.name or index}", structure


def _error(name: str, rule: str) -> ParsedStructure:
    return ParsedStructure("", StructureError(stem(name), rule))


def _to_tables(structures: Sequence[tuple[str, ParsedStructure]], extra_columns: pa.Table) -> BatchTables:
    """Separate crystals from rejects.

    Args:
        structures: Source and structure of each row.
        extra_columns: The other columns of the table that was read.
    """
    crystals: list[Crystal] = []
    rows: list[int] = []
    rejects = []
    for row, (source, structure) in enumerate(structures):
        if isinstance(structure.crystal, StructureError):
            rejects.append(reject(structure.crystal.material_id, source, STAGE, structure.crystal))
        else:
            crystals.append(structure.crystal)
            rows.append(row)
    columns = {
        "source": pa.array([structures[row][0] for row in rows], pa.string()),
        "ordered_from": pa.array([structures[row][1].ordered_from for row in rows], pa.string()),
    }
    columns |= {name: extra_columns[name].take(pa.array(rows, pa.int64())) for name in extra_columns.column_names}
    return BatchTables(materials_table(crystals, columns), reject_table(rejects))


def _pieces_of_table(url: str, rows_per_piece: int) -> Iterator[tuple[int, int] | None]:
    """Row ranges of a Parquet table; None for a CSV table or one that cannot be opened, which is read as a whole."""
    if not url.lower().endswith(".parquet"):
        yield None
        return
    try:
        with open_file(url) as stream:
            rows = pq.read_metadata(stream).num_rows
    except (OSError, pa.ArrowInvalid):
        yield None
        return
    yield from ((start, min(start + rows_per_piece, rows)) for start in range(0, max(rows, 1), rows_per_piece))
