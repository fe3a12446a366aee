"""Graphs of labeled crystals, built when they are first used; those of large tables once for all processes of a node.

Every worker of a training needs all graphs, and so does each fold and seed of a benchmark table. Those of a large table
are files of 1,000 graphs each, in `graph_folder`, which all of these processes map into their memory. A file's name is
a hash of everything that determines its content. It may be deleted at any time; if it cannot be written, each process
builds its own graphs.
"""

import hashlib
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pyarrow as pa

import mat2spec.structure
from mat2spec.config import GraphConfig
from mat2spec.data.graph_table import graph_columns, read_graphs
from mat2spec.storage.atomic import PARTIAL, atomic_path
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph

MIN_STORED = 5000
"""Fewer graphs are built in two seconds."""

GRAPHS_PER_FILE = 1000

KEPT = 30 * 24 * 3600
"""Seconds after its last use that a file is kept."""


@dataclass(frozen=True)
class LazyGraph:
    """A graph that is built, or read, when it is first used.

    Args:
        crystal: The crystal.
        config: Which atoms are neighbors.
        file: The file of graphs that it belongs to, if it belongs to one.
        position: Its place there.
    """

    crystal: Crystal
    config: GraphConfig
    file: "GraphFile | None" = None
    position: int = 0

    @cached_property
    def graph(self) -> CrystalGraph:
        return self.file.graphs[self.position] if self.file else build_graph(self.crystal, self.config)


def lazy_graphs(crystals: Sequence[Crystal], config: GraphConfig) -> tuple[LazyGraph, ...]:
    """Graph of each crystal of a table; those of a large table are stored."""
    if len(crystals) < MIN_STORED:
        return tuple(LazyGraph(crystal, config) for crystal in crystals)
    graphs: list[LazyGraph] = []
    for start in range(0, len(crystals), GRAPHS_PER_FILE):
        part = tuple(crystals[start : start + GRAPHS_PER_FILE])
        file = GraphFile(part, config)
        graphs += (LazyGraph(crystal, config, file, position) for position, crystal in enumerate(part))
    return tuple(graphs)


def build_all(graphs: Sequence[LazyGraph]) -> tuple[CrystalGraph, ...]:
    """Build or read graphs: files in random order, so that processes that start together share the work."""
    files = list({id(lazy.file): lazy.file for lazy in graphs if lazy.file}.values())
    random.Random().shuffle(files)
    for file in files:
        _ = file.graphs
    return tuple(lazy.graph for lazy in graphs)


class GraphFile:
    """Graphs of some crystals, in a file.

    Args:
        crystals: The crystals.
        config: Which atoms are neighbors.
    """

    def __init__(self, crystals: tuple[Crystal, ...], config: GraphConfig) -> None:
        self._crystals = crystals
        self._config = config

    @cached_property
    def graphs(self) -> list[CrystalGraph]:
        """Graphs in the order of the crystals.

        Raises:
            StructureError: If one cannot be built.
        """
        with suppress(OSError, RuntimeError, pa.ArrowInvalid):  # missing, or damaged by other than this program
            return _read(self._path)
        graphs = [build_graph(crystal, self._config) for crystal in self._crystals]
        with suppress(OSError, RuntimeError):  # it cannot be written, or this user has no home
            _write(self._path, graphs)
            return _read(self._path)  # in memory that all processes share
        return graphs

    @cached_property
    def _path(self) -> Path:
        digest = hashlib.sha256(_code() + self._config.model_dump_json().encode())
        for crystal in self._crystals:
            for array in (crystal.atomic_numbers, crystal.lattice, crystal.frac_coords):
                digest.update(f"{array.shape}".encode())
                digest.update(array.tobytes())
        return graph_folder() / f"{digest.hexdigest()}.arrow"


def graph_folder() -> Path:
    """Folder of the files: `mat2spec/graphs` in the user's cache, which is `XDG_CACHE_HOME` or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mat2spec", "graphs")


@cache
def _code() -> bytes:
    """Hash of the code that builds graphs."""
    (folder,) = mat2spec.structure.__path__
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(folder).glob("*.py")))).digest()


def _read(path: Path) -> list[CrystalGraph]:
    with pa.memory_map(str(path)) as source:
        graphs = read_graphs(pa.ipc.open_file(source).read_all())
    os.utime(path)  # used now
    return graphs


def _write(path: Path, graphs: Sequence[CrystalGraph]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_old(path.parent)
    table = pa.table(graph_columns(graphs))
    with atomic_path(path) as partial, pa.ipc.new_file(partial, table.schema) as writer:
        writer.write_table(table)


def _remove_old(folder: Path) -> None:
    for file in [*folder.glob("*.arrow"), *folder.glob(PARTIAL)]:
        with suppress(OSError):  # another process was quicker
            if time.time() - file.stat().st_mtime > KEPT:
                file.unlink()
