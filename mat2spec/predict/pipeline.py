"""The stages of a screening within one process: read a shard, build graphs, predict spectra, write the results."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from mat2spec.config import GraphConfig, InferenceConfig
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.shards.shard import Shard, ShardRows, read_shard
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.predict.table import Prediction, prediction_table
from mat2spec.storage.location import locate, storage_error_message
from mat2spec.storage.rejects import Reject, reject, reject_table
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.structure.symmetry import primitive_nsites

READ, GRAPH, PREDICT, WRITE = STAGES = ("read", "graph", "predict", "write")


UNREADABLE = (OSError, pa.ArrowInvalid)
"""Errors of a missing or damaged table. A missing or damaged structure file becomes a reject instead."""


class ScreeningSpec(NamedTuple):
    """Everything that a process needs to take part in a screening.

    Args:
        checkpoint: The model; sent as a whole, so that no process depends on the path it was read from.
        inference: Settings of the screening.
        output: The run's directory.
        memory: Limit of the data that a process may allocate [bytes]; None: unlimited.
    """

    checkpoint: Checkpoint
    inference: InferenceConfig
    output: str
    memory: int | None


class StageTimer:
    """Measures the seconds spent in each stage.

    Args:
        on_start: Called with the name of each stage when it starts.
    """

    def __init__(self, on_start: Callable[[str], None] | None = None) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._stage = ""
        self._since = 0.0
        self._on_start = on_start

    def start(self, stage: str) -> None:
        """Stop the current stage and start this one."""
        self.stop()
        self._stage = stage
        if self._on_start:
            self._on_start(stage)

    def stop(self) -> None:
        """Stop the current stage, if there is one."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] += now - self._since
        self._stage, self._since = "", now


class FeaturizedShard(NamedTuple):
    """A shard whose graphs are built; the first five fields are parallel, one entry per row that has a graph.

    Args:
        inputs: The rows.
        crystals: Crystal of each row.
        graphs: Graph of each row.
        nsites_primitive: Number of sites in the primitive cell of each row.
        sources: File and row that each comes from.
        rejects: The other rows.
    """

    inputs: pa.Table
    crystals: list[Crystal]
    graphs: list[CrystalGraph]
    nsites_primitive: list[int]
    sources: list[str]
    rejects: list[Reject]


class ShardTables(NamedTuple):
    """Results of a shard.

    Args:
        predictions: Rows with a spectrum.
        rejects: The other rows.
    """

    predictions: pa.Table
    rejects: pa.Table


class ShardReport(NamedTuple):
    """Summary of a processed shard.

    Args:
        predictions: Number of predictions.
        rejects: Number of rejects.
        seconds: Time spent in each stage [s].
        failed: Why the input could not be read or the results not be written; empty on success.
    """

    predictions: int
    rejects: int
    seconds: dict[str, float]
    failed: str = ""


def featurize(rows: ShardRows, config: GraphConfig, timer: StageTimer) -> FeaturizedShard:
    """Build the graphs of a shard. An error in one row rejects that row only.

    Raises:
        MemoryError: If memory runs out. The caller bisects the shard to find the responsible row.
    """
    timer.start(GRAPH)
    torch.set_num_threads(1)  # a setting of the calling thread, and every call may come from a new one
    positions, graphable, graphs, nsites_primitive, rejects = [], [], [], [], []
    for position, crystal in enumerate(read_crystals(rows.table)):
        stage = READ
        try:
            if refused := rows.errors.get(position):
                raise refused
            if isinstance(crystal, StructureError):
                raise crystal
            stage = GRAPH
            graph = build_graph(crystal, config)
            sites = primitive_nsites(crystal)
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
    inputs = rows.table.take(pa.array(positions, pa.int64()))
    sources = [rows.sources[position] for position in positions]
    return FeaturizedShard(inputs, graphable, graphs, nsites_primitive, sources, rejects)


class ShardPipeline:
    """Runs shards through all stages with one loaded model.

    Several threads may call it at once: one computes while the others read or write.

    Args:
        spec: What to do.
    """

    def __init__(self, spec: ScreeningSpec) -> None:
        torch.set_num_threads(1)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._checkpoint = spec.checkpoint
        self._predictor = Predictor(spec.checkpoint, device, spec.inference.edges_per_batch)
        self._run = RunDirectory(locate(spec.output))
        self._compute_lock = threading.Lock()

    def screen(self, shard: Shard) -> ShardReport:
        """Run a shard through all stages and commit its results."""
        timer = StageTimer()
        timer.start(READ)
        try:
            rows = read_shard(shard)
        except UNREADABLE as error:
            return ShardReport(0, 0, timer.seconds, storage_error_message(shard.files[0], error, "read"))
        timer.stop()
        with self._compute_lock:
            tables = self.compute(rows, timer)
        return commit(self._run, shard.name, tables, timer)

    def predict(self, shard: Shard, featurized: FeaturizedShard, timer: StageTimer) -> ShardReport:
        """Predict and commit a shard whose graphs were built elsewhere."""
        with self._compute_lock:
            timer.start(PREDICT)
            tables = self._predict(featurized)
        return commit(self._run, shard.name, tables, timer)

    def compute(self, rows: ShardRows, timer: StageTimer) -> ShardTables:
        """Build the graphs of rows and predict their spectra, without writing anything."""
        featurized = featurize(rows, self._checkpoint.card.config.graph, timer)
        timer.start(PREDICT)
        tables = self._predict(featurized)
        timer.stop()
        return tables

    def _predict(self, featurized: FeaturizedShard) -> ShardTables:
        torch.set_num_threads(1)
        prediction = self._predictor.predict_graphs(featurized.graphs)
        is_finite = np.isfinite(prediction.spectra).all(axis=1)
        rejects = [*featurized.rejects]
        for i in np.flatnonzero(~is_finite):
            crystal = featurized.crystals[i]
            error = StructureError(crystal.material_id, "the network gives no finite spectrum")
            rejects.append(reject(crystal.material_id, featurized.sources[i], PREDICT, error))
        finite = np.flatnonzero(is_finite)
        predictions = prediction_table(
            featurized.inputs.take(pa.array(finite)),
            [featurized.crystals[i] for i in finite],
            [featurized.nsites_primitive[i] for i in finite],
            Prediction(
                prediction.spectra[finite],
                None if prediction.spread is None else prediction.spread[finite],
                None if prediction.gaps is None else prediction.gaps[finite],
            ),
            self._checkpoint,
        )
        return ShardTables(predictions, reject_table(rejects))


def commit(run: RunDirectory, name: str, tables: ShardTables, timer: StageTimer) -> ShardReport:
    """Write the results of a shard; only then is the shard done."""
    timer.start(WRITE)
    failed = ""
    try:
        run.commit(name, tables.predictions, tables.rejects)
    except OSError as error:
        failed = storage_error_message(run.path, error)
    timer.stop()
    return ShardReport(len(tables.predictions), len(tables.rejects), timer.seconds, failed)
