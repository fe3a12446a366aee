"""A screening on the cluster: every input row becomes one prediction or one reject, however often the job is stopped."""

import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster.progress import Progress
from cluster.runtime import ray_session  # before ray itself: sets how Ray starts
from cluster.stages import Commit, Featurize, Predict

# isort: split
import ray
import ray.data

from mat2spec.checkpoint import Checkpoint, environment
from mat2spec.config import ScreenConfig
from mat2spec.data.inputs import MaterialsInput, Shard
from mat2spec.query.catalog import create_catalog
from mat2spec.run_directory import RunDirectory

_SIDE_TASK_CPUS = 0.25
"""Share of a core that reading, featurising and writing take beside a predictor on it."""


@dataclass(frozen=True)
class Screening:
    """A screening and the directory that holds it.

    Args:
        config: The settings.
        input: Path of the structures, absolute.
        checkpoint: Directory of the checkpoint, absolute, readable by every worker.
        output: The run's directory, absolute.
    """

    config: ScreenConfig
    input: Path
    checkpoint: Path
    output: Path

    def run(self) -> str:
        """Screen what is not yet done; give a line that says what the run holds.

        Raises:
            TableError: If the input cannot be read.
            CheckpointError: If the checkpoint cannot be used.
            RunError: If the directory holds another run.
        """
        checkpoint = Checkpoint.load(self.checkpoint)
        materials = MaterialsInput.open(self.input, self.config.where)
        shards = materials.shards(self.config.inference.rows_per_shard)
        run = RunDirectory(self.output)
        run.claim(self._identity(checkpoint, materials), self._details(checkpoint, materials))
        todo = [shard for shard in shards if shard.name not in run.committed()]
        if todo or run.read_record()["status"] != "finished":
            timing = self._screen(checkpoint, todo) if todo else {}
            create_catalog(run.path, checkpoint.grid)
            run.finish(sum(map(len, shards)), {"stages": timing})
        counts = run.read_record()["counts"]
        return f"{counts['input']} input rows: {counts['predictions']} predictions, {counts['rejects']} rejects in {self.output}"

    def _identity(self, checkpoint: Checkpoint, materials: MaterialsInput) -> dict[str, Any]:
        """What two attempts at one run must share."""
        return {
            "checkpoint": checkpoint.fingerprint,
            "input": materials.fingerprint,
            "where": self.config.where,
            "rows_per_shard": self.config.inference.rows_per_shard,
        }

    def _details(self, checkpoint: Checkpoint, materials: MaterialsInput) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "checkpoint": {"name": checkpoint.card.name, "path": str(self.checkpoint), "weights": checkpoint.card.weights},
            "grid": checkpoint.grid.to_json(),
            "input": {"path": str(self.input), "files": len(materials.files)},
            "versions": environment() | {name: version(name) for name in ("ray", "pyarrow", "duckdb", "spglib")},
        }

    def _screen(self, checkpoint: Checkpoint, shards: list[Shard]) -> dict[str, float]:
        """Run the pipeline over shards and give the seconds that each stage took."""
        start = time.perf_counter()
        with ray_session():
            started = time.perf_counter()
            totals: Counter[str] = Counter()
            progress = Progress(sum(map(len, shards)), "rows")
            for row in self._pipeline(checkpoint, shards).iter_rows():
                totals.update(row)
                progress.step(row["predictions"] + row["rejects"], rejects=row["rejects"])
            ended = time.perf_counter()
        seconds = {key: round(totals[key], 3) for key in ("featurize_seconds", "predict_seconds", "write_seconds")}
        rows = totals["predictions"] + totals["rejects"]
        wall = {"ray_start_seconds": round(started - start, 3), "pipeline_seconds": round(ended - started, 3)}
        return {"rows": rows, **wall, **seconds, "rows_per_second": round(rows / (ended - started), 1)}

    def _pipeline(self, checkpoint: Checkpoint, shards: list[Shard]) -> ray.data.Dataset:
        inference = self.config.inference
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        cpus = max(1, int(resources["CPU"]))
        predictors = min(len(shards), inference.predictors or gpus or cpus)
        share = {"num_gpus": gpus / max(predictors, gpus)} if gpus else {"num_cpus": (1 - _SIDE_TASK_CPUS) * cpus / max(predictors, cpus)}
        return (
            ray.data.from_items([{"shard": shard.to_json()} for shard in shards], override_num_blocks=len(shards))
            .map(Featurize(checkpoint.card.config.graph.model_dump()), num_cpus=_SIDE_TASK_CPUS)
            .map(
                Predict,
                fn_constructor_args=(str(self.checkpoint), inference.edges_per_batch, 1),
                compute=ray.data.ActorPoolStrategy(size=predictors),
                **share,
            )
            .map(Commit(str(self.output)), num_cpus=_SIDE_TASK_CPUS)
        )
