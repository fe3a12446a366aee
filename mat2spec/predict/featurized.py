"""Featurized shards: graphs of all rows that have one, rejects for the others; as flat arrays on their way to a GPU."""

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from mat2spec.config import GraphConfig
from mat2spec.data.graph_table import graph_columns, one_row, read_graphs
from mat2spec.data.materials.schema import PRIMITIVE_SITES, has_primitive_sites, read_crystals
from mat2spec.data.shards.shard import Shard, ShardRows, read_shard
from mat2spec.data.shards.step import READ, StageTimer
from mat2spec.errors import StructureError
from mat2spec.storage.rejects import Reject, reject, reject_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.empty_space import empty_radius
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.structure.symmetry import primitive_nsites

GRAPH = "graph"


class FeaturizedShard(NamedTuple):
    """A shard whose graphs are built; the first six fields are parallel, one entry per row that has a graph.

    Args:
        inputs: The rows.
        crystals: Crystal of each row.
        graphs: Graph of each row.
        nsites_primitive: Number of sites in the primitive cell of each row.
        empty_radii: Radius of the largest empty sphere of each row [Å].
        sources: File and row that each comes from.
        rejects: The other rows.
    """

    inputs: pa.Table
    crystals: list[Crystal]
    graphs: list[CrystalGraph]
    nsites_primitive: list[int]
    empty_radii: list[float]
    sources: list[str]
    rejects: list[Reject]

    def to_table(self, timer: StageTimer) -> pa.Table:
        """Return everything as one row of flat arrays, which cross to another process without being copied or pickled.

        Crystals are left out: they are read again from the rows.
        """
        columns = graph_columns(self.graphs)
        columns["nsites_primitive"] = one_row(np.array(self.nsites_primitive, np.int64))
        columns["empty_radii"] = one_row(np.array(self.empty_radii, np.float64))
        columns["inputs"] = _one_blob(self.inputs)
        columns["rejects"] = _one_blob(reject_table(self.rejects))
        columns["sources"] = pa.array([self.sources], pa.list_(pa.string()))
        columns["seconds"] = pa.array([json.dumps(timer.seconds)])
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table, timer: StageTimer) -> "FeaturizedShard":
        """Read what `to_table` returned, and add its stage times to those of the timer."""
        timer.seconds.update(json.loads(table["seconds"][0].as_py()))
        inputs = _read_blob(table["inputs"])
        crystals = [crystal for crystal in read_crystals(inputs) if isinstance(crystal, Crystal)]
        rejects = _read_blob(table["rejects"]).to_pylist()
        nsites_primitive, empty_radii, sources = (
            table[name][0].as_py() for name in ("nsites_primitive", "empty_radii", "sources")
        )
        return cls(inputs, crystals, read_graphs(table), nsites_primitive, empty_radii, sources, rejects)


def read_rows(shard: Shard, timer: StageTimer) -> ShardRows:
    """Read a shard.

    Raises:
        StorageError: If its table is missing or damaged.
    """
    timer.start(READ)
    rows = read_shard(shard)
    timer.stop()
    return rows


def featurize(rows: ShardRows, config: GraphConfig, timer: StageTimer) -> FeaturizedShard:
    """Build the graphs of a shard. An error in one row rejects that row only.

    Raises:
        MemoryError: If memory runs out. The caller bisects the shard to find the responsible row.
    """
    timer.start(GRAPH)
    torch.set_num_threads(1)  # a setting of the calling thread, and every call may come from a new one
    positions, graphable, graphs, nsites_primitive, empty_radii, rejects = [], [], [], [], [], []
    known_sites = _known_sites(rows.table)
    for position, crystal in enumerate(read_crystals(rows.table)):
        stage = READ
        try:
            if refused := rows.errors.get(position):
                raise refused
            if isinstance(crystal, StructureError):
                raise crystal
            stage = GRAPH
            graph = build_graph(crystal, config)
            sites = known_sites[position]
            if sites is None:
                sites = primitive_nsites(crystal)
            radius = empty_radius(crystal)
        except MemoryError:
            raise
        except Exception as error:
            material_id = rows.table["material_id"][position].as_py()
            rejects.append(reject(material_id, rows.sources[position], stage, error))
            continue
        positions.append(position)
        graphable.append(crystal)
        graphs.append(graph)
        nsites_primitive.append(sites)
        empty_radii.append(radius)
    inputs = rows.table.take(pa.array(positions, pa.int64()))
    sources = [rows.sources[position] for position in positions]
    return FeaturizedShard(inputs, graphable, graphs, nsites_primitive, empty_radii, sources, rejects)


def _known_sites(table: pa.Table) -> list[int | None]:
    """Sites of the primitive cell of each row, where the table has them, as an ingestion writes them."""
    if has_primitive_sites(table.schema):
        return table[PRIMITIVE_SITES].to_pylist()
    return [None] * len(table)


def _one_blob(table: pa.Table) -> pa.LargeBinaryArray:
    """An Arrow column whose only row is a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    ends = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, data])


def _read_blob(column: pa.ChunkedArray) -> pa.Table:
    return pa.ipc.open_stream(column[0].as_buffer()).read_all()
