"""A screening on the cluster: every input row becomes one prediction or one reject, however often the job is stopped."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts
from mat2spec.storage.progress import Progress

# isort: split
from mat2spec.config import ScreenConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.materials.shards import Shard
from mat2spec.distributed.screening.scheduler import Crew, memory_of_process
from mat2spec.distributed.screening.tracking import Tracking
from mat2spec.errors import StorageError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.pipeline import Done, Recipe
from mat2spec.predict.timing import StageTimes, told
from mat2spec.provenance import environment
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import Location, storage
from mat2spec.storage.lock import LOCK, Lease
from mat2spec.storage.run_directory import RunDirectory


@dataclass(frozen=True)
class Screening:
    """A screening and the directory that holds it.

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
        """Screen what is not yet done; say what the run holds, and after work where the time went.

        Raises:
            TableError: If the input cannot be read.
            CheckpointError: If the checkpoint cannot be used.
            RunError: If the directory holds another run, cannot be written, or another job works on it.
            UnfinishedError: If the job had to stop under way; what is finished is kept.
        """
        start = time.perf_counter()
        checkpoint = Checkpoint.load(self.checkpoint)
        materials = MaterialsInput.open(self.input, self.config.where)
        run, identity, new_rows = (
            RunDirectory(self.output),
            self._identity(checkpoint, materials),
            self.config.allow_new_rows,
        )
        if not run.check(identity, new_rows=new_rows):
            materials.shards(
                self.config.inference.rows_per_shard
            )  # a condition that is no SQL is refused before anything is written
        elif run.is_finished(identity):
            return self._told(run)
        run.make_folders()
        with Lease(run.path / LOCK).held() as lease, storage(self.output):
            run.claim(identity, self._details(checkpoint, materials), new_rows=new_rows)
            with Tracking(self.checkpoint, run) if self.config.track else nullcontext() as tracking:
                shards, before = self._shards(materials, run)
                report = self._screen(checkpoint, shards, lease, start)
                create_catalog(run.path, checkpoint.grid)
                if tracking:
                    tracking.wait()
                run.finish(sum(map(len, shards)) + before, {"stages": report})
        return "\n".join([*([told(report)] if report else []), self._told(run)])

    def _told(self, run: RunDirectory) -> str:
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
        """Cut the input; where rows were added, those that were not done before, and the number of the others."""
        size, additions = self.config.inference.rows_per_shard, len(run.read_record().get("additions", []))
        if not additions:
            return materials.shards(size), 0
        prefix = f"added-{additions:03d}"
        before = run.rows_by_id(name for name in run.committed() if not name.startswith(prefix))
        return materials.shards(size, prefix, before), sum(before["rows"].to_pylist())

    def _screen(
        self, checkpoint: Checkpoint, shards: list[Shard], lease: Lease, start: float
    ) -> dict[str, float | int | str]:
        """Do those shards that are not done; give where the time went."""
        done = RunDirectory(self.output).committed()
        shards = [shard for shard in shards if shard.name not in done]
        if not shards:
            return {}
        with ray_session():
            ready, progress = time.perf_counter(), Progress(sum(map(len, shards)), "rows")
            times = StageTimes(start)

            def tick() -> None:
                lease.check()
                progress.step(0)

            recipe = Recipe(
                checkpoint, self.config.inference, str(self.output), memory_of_process(self.config.inference)
            )
            crew = Crew(recipe, tick)
            for done, isolated in self._done(crew, shards):
                if done.failed:
                    raise StorageError(done.failed)
                times.add(done, isolated=isolated)
                progress.step(done.predictions + done.rejects, rejects=done.rejects)
            return times.record(min(crew.layout.predictors, len(shards)), ready, crew.began)

    @staticmethod
    def _done(crew: Crew, shards: list[Shard]) -> Iterator[tuple[Done, bool]]:
        """Do all shards, then by themselves those that died with their worker."""
        lost = []
        for shard, done in crew.work(shards):
            if done:
                yield done, False
            else:
                lost.append(shard)
        for _, done in crew.isolate(lost):
            yield done, True
