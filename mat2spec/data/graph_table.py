"""Graphs as flat arrays in an Arrow table of one row, which are read without being copied or unpickled."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mat2spec.structure.graph import CrystalGraph

_ARRAYS: dict[str, Any] = {
    "atomic_numbers": np.uint8,
    "edge_index": np.int32,
    "distances": np.float32,
    "vectors": np.float32,
}
"""Arrays of a graph, and their types."""


def graph_columns(graphs: Sequence[CrystalGraph]) -> dict[str, pa.Array]:
    """Columns of one row: numbers of nodes and edges of each graph, and the arrays of all graphs one after another."""
    columns = {
        "nodes": one_row(np.array([len(graph.atomic_numbers) for graph in graphs], np.int64)),
        "edges": one_row(np.array([graph.num_edges for graph in graphs], np.int64)),
    }
    for name, kind in _ARRAYS.items():
        parts = [getattr(graph, name).ravel() for graph in graphs]
        columns[name] = one_row(np.concatenate([np.empty(0, kind), *parts], dtype=kind))
    return columns


def read_graphs(table: pa.Table) -> list[CrystalGraph]:
    """Graphs of `graph_columns`; their arrays lie in the memory of the table and cannot be written to."""
    nodes, edges = row_array(table["nodes"]), row_array(table["edges"])
    return [
        CrystalGraph(numbers, index.reshape(2, -1), distances, vectors.reshape(-1, 3))
        for numbers, index, distances, vectors in zip(
            _split(row_array(table["atomic_numbers"]), nodes),
            _split(row_array(table["edge_index"]), 2 * edges),
            _split(row_array(table["distances"]), edges),
            _split(row_array(table["vectors"]), 3 * edges),
            strict=True,
        )
    ]


def one_row(array: np.ndarray) -> pa.LargeListArray:
    """An Arrow column whose only row is an array."""
    return pa.LargeListArray.from_arrays([0, len(array)], pa.array(array))


def row_array(column: pa.ChunkedArray) -> np.ndarray:
    """The array of `one_row`, without a copy."""
    return column.chunk(0).flatten().to_numpy()


def _split(array: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Cut an array into parts of these sizes."""
    return [array[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
