"""The stages of a screening within one process: read a shard, build graphs, predict spectra."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from mat2spec.data.shards.shard import Shard, ShardRows
from mat2spec.data.shards.step import READ, WRITE, ShardStep, ShardTables, StageTimer
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.featurized import GRAPH, FeaturizedShard, featurize, read_rows
from mat2spec.predict.predictor import Predictor
from mat2spec.predict.table import prediction_table
from mat2spec.storage.rejects import reject, reject_table
from mat2spec.structure.graph import build_graph
from mat2spec.structure.warm_up import COPPER, LOOPS, warm_up

PREDICT = "predict"

STAGES = (READ, GRAPH, PREDICT, WRITE)


@dataclass(frozen=True)
class ScreeningStep(ShardStep):
    """Everything that a process needs to take part in a screening.

    Args:
        checkpoint: The model; sent as a whole, so that no process depends on the path it was read from.
        edges_per_batch: Edges in one forward pass; None: as many as suit the device.
    """

    checkpoint: Checkpoint
    edges_per_batch: int | None = None

    MODULES: ClassVar[tuple[str, ...]] = ("mat2spec.model.edge_loops", *LOOPS)

    def processor(self) -> "ShardPipeline":
        """Load the model."""
        return ShardPipeline(self.checkpoint, self.edges_per_batch)


class ShardPipeline:
    """Runs shards through all stages with one loaded model.

    Several threads may call it at once: one computes while the others read or write.

    Args:
        checkpoint: The model.
        edges_per_batch: Edges in one forward pass; None: as many as suit the device.
    """

    def __init__(self, checkpoint: Checkpoint, edges_per_batch: int | None = None) -> None:
        torch.set_num_threads(1)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._checkpoint = checkpoint
        self._predictor = Predictor(checkpoint, device, edges_per_batch)
        self._compute_lock = threading.RLock()
        self._warm_up()

    def _warm_up(self) -> None:
        """Compute copper, so that loading or compiling code is not charged to the time limit of the first rows."""
        warm_up()
        with suppress(StructureError):  # with a very short cutoff it has no graph
            self._predictor.predict_graphs([build_graph(COPPER, self._checkpoint.card.config.graph)])

    def compute(self, shard: Shard, timer: StageTimer) -> ShardTables:
        """Run a shard through all stages, without writing anything.

        Raises:
            StorageError: If the input cannot be read.
        """
        rows = read_rows(shard, timer)
        with self._compute_lock:
            return self.compute_rows(rows, timer)

    def compute_rows(self, rows: ShardRows, timer: StageTimer) -> ShardTables:
        """Build the graphs of rows and predict their spectra."""
        return self.predict(featurize(rows, self._checkpoint.card.config.graph, timer), timer)

    def predict(self, featurized: FeaturizedShard, timer: StageTimer) -> ShardTables:
        """Predict the spectra of graphs."""
        with self._compute_lock:
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
            [featurized.empty_radii[i] for i in finite],
            prediction.take(finite),
            self._checkpoint,
        )
        return ShardTables(predictions, reject_table(rejects))
