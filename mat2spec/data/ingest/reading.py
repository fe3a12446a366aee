"""Reading of a user's files, archives and tables: each structure becomes a row of a materials table or a reject."""

import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

import pyarrow as pa

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.ingest.user_tables import read_user_table
from mat2spec.data.materials.schema import PRIMITIVE_SITES, materials_table, primitive_sites
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import READ, ShardStep, ShardTables, StageTimer
from mat2spec.errors import StructureError, TableError
from mat2spec.storage.location import open_file
from mat2spec.storage.rejects import reject, reject_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.archives import is_archive, read_archive, read_bounded
from mat2spec.structure.readers.disorder import ParsedStructure
from mat2spec.structure.readers.formats import read_structures
from mat2spec.structure.readers.names import is_known, is_table, stem
from mat2spec.structure.warm_up import READING_LOOPS, warm_up_reading


@dataclass(frozen=True)
class ReadStep(ShardStep):
    """Reading of shards, for processes that work on them.

    Args:
        config: How structures are read.
    """

    config: ReadingConfig

    MODULES: ClassVar[tuple[str, ...]] = READING_LOOPS

    def processor(self) -> "SourceReader":
        """Make what reads shards."""
        return SourceReader(self.config, self.limits.seconds)


class SourceReader:
    """Reads shards; a structure that cannot be read becomes a reject and affects no other.

    Args:
        config: How structures are read.
        seconds: Time limit of a shard, and of each file in an archive [s].
    """

    def __init__(self, config: ReadingConfig, seconds: float) -> None:
        self._config = config
        self._seconds = seconds
        warm_up_reading()
        self._lock = threading.Lock()  # pymatgen changes the process's warning filters while it reads

    def compute(self, shard: Shard, timer: StageTimer) -> ShardTables:
        """Read a shard."""
        with self._lock:
            timer.start(READ)
            tables = self._read(shard)
            timer.stop()
            return tables

    def _read(self, shard: Shard) -> ShardTables:
        if shard.files and is_table(shard.files[0]):
            return _to_tables(*read_user_table(shard, self._config))
        sources = zip(shard.files, shard.labels or shard.files, strict=True)
        structures = [structure for url, name in sources for structure in self._read_source(url, name)]
        return _to_tables(structures, pa.table({"": pa.nulls(len(structures))}).select([]))

    def _read_source(self, url: str, name: str) -> Iterator[tuple[str, ParsedStructure]]:
        config = self._config
        try:
            with open_file(url) as stream:
                if is_archive(url):
                    for member, content in read_archive(name, stream, config.largest_file, config.largest_archive):
                        _restart_time_limit(self._seconds)
                        yield from self._read_member(url, name, member, content)
                else:
                    yield from self._read_file(url, name, read_bounded(name, stream, config.largest_file))
        except TableError as error:
            yield url, _error(name, str(error))
        except OSError as error:
            yield url, _error(name, f"{name} cannot be read ({error.strerror or error})")

    def _read_member(
        self, url: str, archive: str, member: str, content: bytes | TableError
    ) -> Iterator[tuple[str, ParsedStructure]]:
        source = f"{url}!{member}" if member else url
        if isinstance(content, TableError):
            yield source, _error(member or archive, str(content))
        elif is_table(member):
            yield source, _error(member, f"{member} is a table inside an archive; unpack it first")
        elif is_known(member):
            yield from self._read_file(source, member, content)

    def _read_file(self, source: str, name: str, content: bytes) -> Iterator[tuple[str, ParsedStructure]]:
        material_id = stem(name) if self._config.ids == "stem" else str(PurePosixPath(name).with_name(stem(name)))
        structures = read_structures(name, content, self._config, material_id)
        for index, structure in enumerate(structures):
            yield source if len(structures) == 1 else f"{source}#{structure.name or index}", structure


def _restart_time_limit(seconds: float) -> None:
    """Start the time limit of this process again, if it has one.

    A large archive takes hours, so each file in it gets as long as a shard.
    """
    remaining, _ = signal.getitimer(signal.ITIMER_REAL)
    if remaining:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _error(name: str, rule: str) -> ParsedStructure:
    return ParsedStructure("", StructureError(stem(name), rule))


def _to_tables(structures: Sequence[tuple[str, ParsedStructure]], extra_columns: pa.Table) -> ShardTables:
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
            rejects.append(reject(structure.crystal.material_id, source, READ, structure.crystal))
        else:
            crystals.append(structure.crystal)
            rows.append(row)
    columns = {
        PRIMITIVE_SITES: primitive_sites(crystals),
        "source": pa.array([structures[row][0] for row in rows], pa.string()),
        "ordered_from": pa.array([structures[row][1].ordered_from for row in rows], pa.string()),
    }
    columns |= {name: extra_columns[name].take(pa.array(rows, pa.int64())) for name in extra_columns.column_names}
    return ShardTables(materials_table(crystals, columns), reject_table(rejects))
