"""A screening on Ray: every input row becomes one prediction or one reject, however often the job is interrupted."""

import sys
import time
from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

from mat2spec.distributed.session import check_session, ray_session  # before ray itself: sets how Ray starts
from mat2spec.storage.progress import Progress

# isort: split
from mat2spec.config import ScreenConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.isolation import checked, isolate
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardReport
from mat2spec.distributed.screening.inputs import INGEST, ScreeningInput, StructureInput, TableInput, find_input
from mat2spec.distributed.screening.tracking import Tracking
from mat2spec.distributed.screening.without_ray import limits_without_ray, needs_ray, prepare
from mat2spec.errors import ConfigError, counted
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.pipeline import ScreeningStep
from mat2spec.predict.predictor import spectrum_network
from mat2spec.predict.timing import StageTimes, summary
from mat2spec.provenance import environment
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import Location, storage_errors
from mat2spec.storage.lock import RunLock
from mat2spec.storage.run_directory import RunDirectory


class Plan(NamedTuple):
    """What is to be screened.

    Args:
        shards: The rows, divided.
        other_rows: Number of rows that are in no shard: done before rows were added, or rejected when they were read.
        ingestion: Line with the counts of an ingestion, if there was one.
    """

    shards: list[Shard]
    other_rows: int = 0
    ingestion: str = ""


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
            RunError: If the directory holds another run, cannot be written, or another job is working on it, or Ray
                cannot start or be joined.
            UnfinishedError: If the job had to stop; finished shards are kept.
        """
        start = time.perf_counter()
        checkpoint = Checkpoint.load(self.checkpoint)
        spectrum_network(checkpoint)  # refuses others before anything is written
        if checkpoint.note_on_names:
            print(checkpoint.note_on_names, file=sys.stderr)
        source = find_input(self.input, self.config, self.output)
        run = RunDirectory(self.output)
        identity, details = self._identity(checkpoint, source), self._details(checkpoint, source)
        new_rows = self.config.allow_new_rows
        plan = None
        if not run.check(identity, details, new_rows=new_rows):
            plan = self._plan_new(source)  # refuses a bad condition before anything is written
        elif run.is_finished(identity):
            return self._summary(run)
        check_session()
        if not (needs_ray(plan.shards) if plan else isinstance(source, StructureInput) and source.ingestion.needs_ray):
            prepare()
        run.make_folders()
        with RunLock(run.path, force_unlock=self.config.force_unlock), storage_errors(self.output):
            run.claim(identity, details, new_rows=new_rows)
            tracked = Tracking(checkpoint.card.training.mlflow_run_id, run) if self.config.track else nullcontext()
            with tracked as tracking, source.session():
                plan = plan or self._plan(checkpoint, source, run)
                stages = self._screen(checkpoint, plan.shards, start)
                create_catalog(run.path, checkpoint.grid)
                if tracking:
                    tracking.wait()
                run.finish(sum(map(len, plan.shards)) + plan.other_rows, {"stages": stages})
        return "\n".join(filter(None, [plan.ingestion, summary(stages) if stages else "", self._summary(run)]))

    def _summary(self, run: RunDirectory) -> str:
        counts = run.record["counts"]
        return (
            f"{counted(counts['input'], 'input row')}: {counted(counts['predictions'], 'prediction')}, "
            f"{counted(counts['rejects'], 'reject')} in {self.output}"
        )

    def _identity(self, checkpoint: Checkpoint, source: ScreeningInput) -> dict[str, Any]:
        """Everything that must stay the same when the run is resumed."""
        return {
            "checkpoint": checkpoint.fingerprint,
            **source.identity,
            "rows_per_shard": self.config.inference.rows_per_shard,
        }

    def _details(self, checkpoint: Checkpoint, source: ScreeningInput) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "checkpoint": {
                "name": checkpoint.card.name,
                "path": str(self.checkpoint),
                "weights": checkpoint.card.weights,
            },
            "grid": checkpoint.grid.to_json(),
            "input": {"path": str(self.input), **source.details},
            "versions": environment() | {name: version(name) for name in ("ray", "pyarrow", "duckdb", "spglib")},
        }

    def _plan_new(self, source: ScreeningInput) -> Plan | None:
        """Plan a new run, if the table exists already; else only check the condition on its rows.

        Raises:
            ConfigError: If the condition is not valid SQL, names an unknown column, or no row meets it.
        """
        if isinstance(source, TableInput):
            shards = source.materials.shards(self.config.inference.rows_per_shard)
            if not any(map(len, shards)):
                raise ConfigError(f"where: {self.config.where}: none of {source.materials.num_rows} rows meets it")
            return Plan(shards)
        source.check_condition()
        return None

    def _plan(self, checkpoint: Checkpoint, source: ScreeningInput, run: RunDirectory) -> Plan:
        """Divide the rows into shards, after structure files have become a table.

        When rows were added to the input of a run, only the new rows are divided.
        """
        if isinstance(source, TableInput):
            return self._divide(source.materials, run)
        materials, line = source.make_table(self.config)
        plan = self._divide(materials, run)
        rejects = source.commit_rejects(run, checkpoint, plan.shards[0])
        return plan._replace(other_rows=plan.other_rows + rejects, ingestion=line)

    def _divide(self, materials: MaterialsInput, run: RunDirectory) -> Plan:
        size = self.config.inference.rows_per_shard
        additions = len(run.record.get("additions", []))
        if not additions:
            return Plan(materials.shards(size))
        prefix = f"added-{additions:03d}"
        before = run.rows_by_id(name for name in run.committed() if not name.startswith((prefix, INGEST)))
        return Plan(materials.shards(size, prefix, before), sum(before["rows"].to_pylist()))

    def _screen(self, checkpoint: Checkpoint, shards: list[Shard], start: float) -> dict[str, float | int | str]:
        """Process the shards that are not done yet; return the stage times."""
        run = RunDirectory(self.output)
        committed = run.committed()
        missing = [shard for shard in shards if shard.name not in committed]
        if not missing:
            return {}
        rows = sum(map(len, shards))
        on_ray = needs_ray(missing)
        with ray_session() if on_ray else nullcontext():
            times = StageTimes(start, time.perf_counter(), on_ray=on_ray)
            with (
                Progress(rows, "row", initial=rows - sum(map(len, missing))) as progress,
                closing(self._process(checkpoint, missing, on_ray=on_ray)) as reports,
            ):
                for report in reports:
                    times.add(report)
                    progress.step(report.results + report.rejects, reject=report.rejects)
        return times.record()

    def _process(self, checkpoint: Checkpoint, shards: list[Shard], *, on_ray: bool) -> Generator[ShardReport]:
        """Process shards on Ray, which has started, or one after the other in subprocesses."""
        inference, run = self.config.inference, RunDirectory(self.output)
        if not on_ray:
            step = ScreeningStep(run, limits_without_ray(inference), checkpoint, inference.edges_per_batch)
            yield from checked((isolate(step, shard) for shard in shards), step.limits)
            return
        from mat2spec.distributed.screening.runner import screening_limits, screening_runner  # Ray Data takes a second

        step = ScreeningStep(run, screening_limits(inference), checkpoint, inference.edges_per_batch)
        with closing(screening_runner(step, inference).run(shards)) as reports:
            yield from reports
