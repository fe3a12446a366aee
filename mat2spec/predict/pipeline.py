"""The stages of a screening in one process: a shard of rows in; graphs, spectra and files out; and what becomes of each row."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from mat2spec.config import GraphConfig, InferenceConfig
from mat2spec.data.materials.schema import crystals
from mat2spec.data.materials.shards import Rows, Shard, read_shard
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Prediction, Predictor
from mat2spec.predict.table import prediction_table
from mat2spec.storage.location import locate, storage_failure
from mat2spec.storage.rejects import Reject, reject, reject_table
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.structure.symmetry import primitive_nsites

READ, GRAPH, PREDICT, WRITE = STAGES = ("read", "graph", "predict", "write")


UNREADABLE = (OSError, pa.ArrowInvalid)
"""What a table that is gone or damaged raises; a structure file that is becomes a reject."""


class Recipe(NamedTuple):
    """What every process of a screening is given.

    Args:
        checkpoint: What predicts; sent, so that no process depends on where it was read.
        inference: How the work is done.
        output: The run's directory.
        memory: Data that a process may hold [bytes]; None: any.
    """

    checkpoint: Checkpoint
    inference: InferenceConfig
    output: str
    memory: int | None


class Clock:
    """Counts the seconds of each stage.

    Args:
        told: Is told each stage when it begins.
    """

    def __init__(self, told: Callable[[str], None] | None = None) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._stage, self._since, self._told = "", 0.0, told

    def begin(self, stage: str) -> None:
        """End the stage before and begin this one; an empty name begins none."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now
        if self._told and stage:
            self._told(stage)


class Featurized(NamedTuple):
    """A shard before it is predicted.

    Args:
        inputs: Rows that have a graph.
        crystals: The crystal of each.
        graphs: The graph of each.
        nsites_primitive: Sites of the primitive cell of each.
        sources: Where each comes from.
        rejects: The other rows.
    """

    inputs: pa.Table
    crystals: list[Crystal]
    graphs: list[CrystalGraph]
    nsites_primitive: list[int]
    sources: list[str]
    rejects: list[Reject]


class Outcome(NamedTuple):
    """A shard when it is done.

    Args:
        predictions: Rows with a spectrum.
        rejects: The others.
    """

    predictions: pa.Table
    rejects: pa.Table


class Done(NamedTuple):
    """What is told of a shard.

    Args:
        predictions: Number of its predictions.
        rejects: Number of its rejects.
        seconds: Time of each stage.
        failed: Why its input cannot be read or its files not be written; empty if they were.
    """

    predictions: int
    rejects: int
    seconds: dict[str, float]
    failed: str = ""


def featurize(rows: Rows, config: GraphConfig, clock: Clock) -> Featurized:
    """Build the graphs of a shard's rows; whatever a structure does to its reader is that row's matter alone.

    Raises:
        MemoryError: If memory runs out; whose fault that is is to be found out.
    """
    clock.begin(GRAPH)
    torch.set_num_threads(1)  # of this thread of the process, which may be a new one
    kept, found, graphs, primitive, rejects = [], [], [], [], []
    for position, crystal in enumerate(crystals(rows.table)):
        stage = READ
        try:
            if refused := rows.refused.get(position):
                raise refused
            if isinstance(crystal, StructureError):
                raise crystal
            stage = GRAPH
            graph, sites = build_graph(crystal, config), primitive_nsites(crystal)
        except MemoryError:
            raise
        except Exception as error:
            rejects.append(reject(rows.table["material_id"][position].as_py(), rows.sources[position], stage, error))
            continue
        kept.append(position)
        found.append(crystal)
        graphs.append(graph)
        primitive.append(sites)
    inputs, sources = rows.table.take(pa.array(kept, pa.int64())), [rows.sources[position] for position in kept]
    return Featurized(inputs, found, graphs, primitive, sources, rejects)


class Screener:
    """Holds the network and does shards, several at a time if asked by several threads: one computes while others read or write.

    Args:
        recipe: What to do.
    """

    def __init__(self, recipe: Recipe) -> None:
        torch.set_num_threads(1)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._checkpoint = recipe.checkpoint
        self._predictor = Predictor(recipe.checkpoint, device, recipe.inference.edges_per_batch)
        self._run = RunDirectory(locate(recipe.output))
        self._computing = threading.Lock()

    def screen(self, shard: Shard) -> Done:
        """Do a shard and write what became of its rows."""
        clock = Clock()
        try:
            clock.begin(READ)
            rows = read_shard(shard)
        except UNREADABLE as error:
            return Done(0, 0, clock.seconds, storage_failure(shard.files[0], error, "read"))
        clock.begin("")
        with self._computing:
            outcome = self.outcome(rows, clock)
        return commit(self._run, shard.name, outcome, clock)

    def predict(self, shard: Shard, featurized: Featurized, clock: Clock) -> Done:
        """Do the rest of a shard whose graphs were built elsewhere."""
        with self._computing:
            clock.begin(PREDICT)
            outcome = self._outcome(featurized)
        return commit(self._run, shard.name, outcome, clock)

    def outcome(self, rows: Rows, clock: Clock) -> Outcome:
        """Do rows without writing anything."""
        featurized = featurize(rows, self._checkpoint.card.config.graph, clock)
        clock.begin(PREDICT)
        outcome = self._outcome(featurized)
        clock.begin("")
        return outcome

    def _outcome(self, featurized: Featurized) -> Outcome:
        torch.set_num_threads(1)
        prediction = self._predictor.of_graphs(featurized.graphs)
        finite = np.flatnonzero(np.isfinite(prediction.spectra).all(axis=1))
        rejects = [*featurized.rejects]
        for i in set(range(len(featurized.crystals))).difference(finite.tolist()):
            crystal = featurized.crystals[i]
            error = StructureError(crystal.material_id, "the network gives no finite spectrum")
            rejects.append(reject(crystal.material_id, featurized.sources[i], PREDICT, error))
        kept = Prediction(*(None if part is None else part[finite] for part in prediction))
        found, primitive = (
            [of_all[i] for i in finite] for of_all in (featurized.crystals, featurized.nsites_primitive)
        )
        predictions = prediction_table(
            featurized.inputs.take(pa.array(finite)), found, primitive, kept, self._checkpoint
        )
        return Outcome(predictions, reject_table(rejects))


def commit(run: RunDirectory, name: str, outcome: Outcome, clock: Clock) -> Done:
    """Write the outcome of a shard."""
    clock.begin(WRITE)
    failed = ""
    try:
        run.commit(name, outcome.predictions, outcome.rejects)
    except OSError as error:
        failed = storage_failure(run.path, error)
    clock.begin("")
    return Done(len(outcome.predictions), len(outcome.rejects), clock.seconds, failed)
