"""A screening on Ray: every input row becomes one prediction or one reject, however often the job is interrupted."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts
from mat2spec.storage.progress import Progress

# isort: split
from mat2spec.config import ScreenConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.shard import Shard
from mat2spec.distributed.screening.runner import memory_per_process, screening_runner
from mat2spec.distributed.screening.tracking import Tracking
from mat2spec.errors import counted
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.pipeline import ScreeningSpec
from mat2spec.predict.timing import StageTimes, summary
from mat2spec.provenance import environment
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import Location, storage_errors
from mat2spec.storage.lock import RunLock
from mat2spec.storage.run_directory import RunDirectory


@dataclass(frozen=True)
class Screening:
    """A screening and its run directory.

    Args:
        config: The settings.
        input: Where the structures are, absolute.
        checkpoint: Where the checkpoint is, absolute.
        output: The run's directory, absolute.
    """

    config: ScreenConfig
    input: Location
    checkpoint: Location
    output: Location

    def run(self) -> str:
        """Screen the rows that are not done yet; return the counts, and the stage times if there was anything to do.

        Raises:
            TableError: If the input cannot be read.
            CheckpointError: If the checkpoint cannot be used.
            RunError: If the directory holds another run, cannot be written, or another job is working on it.
            UnfinishedError: If the job had to stop; finished shards are kept.
        """
        start = time.perf_counter()
        checkpoint = Checkpoint.load(self.checkpoint)
        materials = MaterialsInput.open(self.input, self.config.where)
        run = RunDirectory(self.output)
        identity = self._identity(checkpoint, materials)
        new_rows = self.config.allow_new_rows
        if not run.check(identity, new_rows=new_rows):
            materials.shards(self.config.inference.rows_per_shard)  # refuses a bad condition before anything is written
        elif run.is_finished(identity):
            return self._summary(run)
        run.make_folders()
        with RunLock(run.path, force_unlock=self.config.force_unlock), storage_errors(self.output):
            run.claim(identity, self._details(checkpoint, materials), new_rows=new_rows)
            with Tracking(self.checkpoint, run) if self.config.track else nullcontext() as tracking:
                shards, rows_before = self._shards(materials, run)
                stages = self._screen(checkpoint, shards, start)
                create_catalog(run.path, checkpoint.grid)
                if tracking:
                    tracking.wait()
                run.finish(sum(map(len, shards)) + rows_before, {"stages": stages})
        return "\n".join([*([summary(stages)] if stages else []), self._summary(run)])

    def _summary(self, run: RunDirectory) -> str:
        counts = run.record["counts"]
        return (
            f"{counted(counts['input'], 'input row')}: {counted(counts['predictions'], 'prediction')}, "
            f"{counted(counts['rejects'], 'reject')} in {self.output}"
        )

    def _identity(self, checkpoint: Checkpoint, materials: MaterialsInput) -> dict[str, Any]:
        """Everything that must stay the same when the run is resumed."""
        return {
            "checkpoint": checkpoint.fingerprint,
            "input": materials.fingerprint,
            "where": self.config.where,
            "rows_per_shard": self.config.inference.rows_per_shard,
        }

    def _details(self, checkpoint: Checkpoint, materials: MaterialsInput) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "checkpoint": {
                "name": checkpoint.card.name,
                "path": str(self.checkpoint),
                "weights": checkpoint.card.weights,
            },
            "grid": checkpoint.grid.to_json(),
            "input": {"path": str(self.input), "files": len(materials.files)},
            "versions": environment() | {name: version(name) for name in ("ray", "pyarrow", "duckdb", "spglib")},
        }

    def _shards(self, materials: MaterialsInput, run: RunDirectory) -> tuple[list[Shard], int]:
        """Cut the input into shards; return them and the number of rows that need none.

        When rows were added to the input of a run, only the new rows are cut.
        """
        size = self.config.inference.rows_per_shard
        additions = len(run.record.get("additions", []))
        if not additions:
            return materials.shards(size), 0
        prefix = f"added-{additions:03d}"
        before = run.rows_by_id(name for name in run.committed() if not name.startswith(prefix))
        return materials.shards(size, prefix, before), sum(before["rows"].to_pylist())

    def _screen(self, checkpoint: Checkpoint, shards: list[Shard], start: float) -> dict[str, float | int | str]:
        """Process the shards that are not done yet; return the stage times."""
        committed = RunDirectory(self.output).committed()
        missing = [shard for shard in shards if shard.name not in committed]
        if not missing:
            return {}
        inference = self.config.inference
        with ray_session():
            times = StageTimes(start, time.perf_counter())
            spec = ScreeningSpec(checkpoint, inference, str(self.output), memory_per_process(inference))
            rows = sum(map(len, shards))
            with Progress(rows, "row", initial=rows - sum(map(len, missing))) as progress:
                for report in screening_runner(spec).run(missing):
                    times.add(report)
                    progress.step(report.results + report.rejects, reject=report.rejects)
        return times.record()
