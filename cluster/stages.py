"""The stages of a screening as Ray Data runs them: shards in, graphs, predictions, files.

A row of the pipeline is a whole shard, its tables serialised: no engine can split, merge or lose a part of it unnoticed.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mat2spec.checkpoint import Checkpoint
from mat2spec.config import GraphConfig
from mat2spec.data.inputs import Shard, read_shard
from mat2spec.data.schema import crystals
from mat2spec.errors import StructureError
from mat2spec.graph import CrystalGraph, build_graph
from mat2spec.predict import Predictor
from mat2spec.rejects import reject, reject_table
from mat2spec.results import prediction_table
from mat2spec.run_directory import RunDirectory
from mat2spec.symmetry import primitive_nsites

Row = dict[str, Any]


class Featurize:
    """Read a shard and build its graphs.

    Args:
        graph: Which atoms are neighbours.
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        self._config = GraphConfig.model_validate(graph)

    def __call__(self, row: Row) -> Row:
        start = time.perf_counter()
        torch.set_num_threads(1)
        rows = read_shard(Shard.from_json(row["shard"]))
        kept, graphs, primitive, rejects = [], [], [], []
        for position, crystal in enumerate(crystals(rows.table)):
            stage = "read"
            try:
                if refused := rows.refused.get(position):
                    raise refused
                if isinstance(crystal, StructureError):
                    raise crystal
                stage = "graph"
                graph, sites = build_graph(crystal, self._config), primitive_nsites(crystal)
            except Exception as error:  # whatever a structure does to its reader is that row's matter alone
                rejects.append(reject(rows.table["material_id"][position].as_py(), rows.sources[position], stage, error))
                continue
            kept.append(position)
            graphs.append(graph)
            primitive.append(sites)
        inputs = rows.table.take(pa.array(kept, pa.int64()))
        return {
            "name": row["shard"]["name"],
            "inputs": _to_bytes(inputs),
            "graphs": _to_bytes(_graph_table(graphs, primitive)),
            "rejects": _to_bytes(reject_table(rejects)),
            "featurize_seconds": time.perf_counter() - start,
        }


class Predict:
    """Hold the network and turn graphs into rows of predictions.

    Args:
        checkpoint: Its directory.
        edges_per_batch: Edges in one forward pass; None takes what suits the device.
        threads: Cores that this process may use.
    """

    def __init__(self, checkpoint: str, edges_per_batch: int | None, threads: int) -> None:
        torch.set_num_threads(threads)
        self._checkpoint = Checkpoint.load(Path(checkpoint))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._predictor = Predictor(self._checkpoint, device, edges_per_batch)

    def __call__(self, row: Row) -> Row:
        start = time.perf_counter()
        inputs, graphs = _from_bytes(row["inputs"]), _from_bytes(row["graphs"])
        prediction = self._predictor.of_graphs(list(_graphs(inputs, graphs)))
        kept = [crystal for crystal in crystals(inputs) if not isinstance(crystal, StructureError)]
        predictions = prediction_table(inputs, kept, graphs["nsites_primitive"].to_pylist(), prediction, self._checkpoint)
        return {
            "name": row["name"],
            "predictions": _to_bytes(predictions),
            "rejects": row["rejects"],
            "featurize_seconds": row["featurize_seconds"],
            "predict_seconds": time.perf_counter() - start,
        }


class Commit:
    """Write the outcome of a shard into the run.

    Args:
        run: The run's directory.
    """

    def __init__(self, run: str) -> None:
        self._run = RunDirectory(Path(run))

    def __call__(self, row: Row) -> Row:
        start = time.perf_counter()
        predictions, rejects = _from_bytes(row["predictions"]), _from_bytes(row["rejects"])
        self._run.commit(row["name"], predictions, rejects)
        return {
            "predictions": len(predictions),
            "rejects": len(rejects),
            "featurize_seconds": row["featurize_seconds"],
            "predict_seconds": row["predict_seconds"],
            "write_seconds": time.perf_counter() - start,
        }


def _graph_table(graphs: list[CrystalGraph], primitive: list[int]) -> pa.Table:
    return pa.table(
        {
            "edge_index": pa.array([graph.edge_index.ravel() for graph in graphs], pa.list_(pa.int32())),
            "distances": pa.array([graph.distances for graph in graphs], pa.list_(pa.float32())),
            "vectors": pa.array([graph.vectors.ravel() for graph in graphs], pa.list_(pa.float32())),
            "nsites_primitive": pa.array(primitive, pa.int32()),
        }
    )


def _graphs(inputs: pa.Table, graphs: pa.Table) -> Iterator[CrystalGraph]:
    columns = (inputs["atomic_numbers"], graphs["edge_index"], graphs["distances"], graphs["vectors"])
    for atomic_numbers, edge_index, distances, vectors in zip(*(column.to_numpy() for column in columns), strict=True):
        yield CrystalGraph(atomic_numbers.astype(np.uint8), edge_index.reshape(2, -1), distances, vectors.reshape(-1, 3))


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()
