"""Candidates by ionic substitution: make them shard by shard, then deduplicate them formula by formula."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.config.substitution import SubstituteConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits, ShardStep
from mat2spec.data.substitution.by_formula import CandidateSelection, count_parents, formula_shards, group_by_formula
from mat2spec.data.substitution.candidates import CandidateStep, DeduplicateStep
from mat2spec.data.substitution.rules import Substituter
from mat2spec.distributed.ingest.processing import process_shards
from mat2spec.distributed.session import ray_session
from mat2spec.errors import counted
from mat2spec.provenance import environment
from mat2spec.storage.progress import Progress
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory

SHARDS_WITHOUT_RAY = 1
"""Up to this many are done without Ray, in about the time that it takes to start (12 s)."""

_STAGED = "staged"

_KNOWN = {"drop": "left out", "mark": "marked"}


def substitute(config: SubstituteConfig, input: Path, output: Path) -> str:
    """Make the candidates that are not made yet; return a line with the counts.

    Args:
        config: The settings.
        input: The parents: a materials table, or the directory that an ingestion wrote.
        output: The output directory, absolute.

    Raises:
        TableError: If the input cannot be read, or is no materials table.
        ConfigError: If pymatgen has no ion of an element.
        RunError: If the directory holds something else.
    """
    substituter = Substituter(config.element, config.threshold, config.largest_scaling, config.largest_formula)
    materials = MaterialsInput.open(input / MATERIALS if (input / MATERIALS).is_dir() else input)
    materials.require_rows(input)
    identity = {"input": materials.fingerprint} | config.model_dump(mode="json", exclude={"table", "output", "limits"})
    details = {"config": config.model_dump(mode="json"), "input": {"path": str(input)}, "versions": environment()}
    run = RunDirectory(output, MATERIALS)
    run.claim(identity, details)
    if run.record["status"] != "finished":
        _Substitution(config, substituter, run, output / _STAGED).run_steps(materials.shards(config.rows_per_shard))
    shutil.rmtree(output / _STAGED, ignore_errors=True)
    return _summary(run.record["counts"], config, output)


def _summary(counts: dict[str, int], config: SubstituteConfig, output: Path) -> str:
    return (
        f"{counted(counts['input'], 'parent')} ({counts['parents_with_candidates']} with candidates, "
        f"{counts['parents_without']} without, {counted(counts[REJECTS], 'reject')}): "
        f"{counted(counts[MATERIALS], 'candidate')} in {output}; "
        f"{counted(counts['duplicates'], 'duplicate')} and {counts['beyond_limit']} beyond the limit left out, "
        f"{counted(counts['known'], 'known structure')} {_KNOWN[config.known]}"
    )


@dataclass(frozen=True)
class _Substitution:
    """The steps from parents to candidates. Each writes files, so that a killed run resumes after the last one written.

    In the folder `staged`: candidates/ has those of each shard of parents; grouped.parquet has them sorted by
    formula, with the known structures of those formulas; distinct/ has those of each shard of formulas that remain.
    """

    config: SubstituteConfig
    substituter: Substituter
    run: RunDirectory
    staged: Path

    @property
    def _candidates(self) -> Path:
        return self.staged / "candidates"

    @property
    def _distinct(self) -> Path:
        return self.staged / "distinct"

    def run_steps(self, shards: list[Shard]) -> None:
        """Do all steps, and finish the run."""
        limits = ShardLimits.from_config(self.config.limits, "limits")
        make = CandidateStep(RunDirectory(self._candidates, MATERIALS), limits, self.substituter)
        deduplicate = DeduplicateStep(RunDirectory(self._distinct, MATERIALS), limits)
        for step in (make, deduplicate):
            step.run.claim({}, {})
        grouped = self.staged / "grouped.parquet"
        seconds: dict[str, float] = {}
        with ExitStack() as stack:
            with _timed("ray_start", seconds):
                if len(shards) > SHARDS_WITHOUT_RAY:
                    stack.enter_context(ray_session())
            with _timed("make", seconds):
                _process(make, shards)
            with _timed("group", seconds):
                if not grouped.exists():
                    group_by_formula(self._candidates / MATERIALS, grouped, self.config.rows_per_shard)
            with _timed("deduplicate", seconds):
                formulas = formula_shards(grouped, self.config.rows_per_shard)
                _process(deduplicate, formulas)
        with _timed("finalize", seconds):
            counts = self._commit([shard.name for shard in formulas])
        counts["input"] = sum(map(len, shards))
        parents = counts["parents_with_candidates"] + make.run.counts()[REJECTS]
        counts["parents_without"] = counts["input"] - parents
        self.run.finish(counts[MATERIALS] + counts[REJECTS], {"stages": seconds, "counts": counts})

    def _commit(self, names: list[str]) -> dict[str, int]:
        """Commit the selected candidates, with the rejects spread over their shards; return the counts."""
        selection = CandidateSelection.from_folder(self._distinct / MATERIALS, self.config)
        rejects = [file for step in (self._candidates, self._distinct) for file in sorted((step / REJECTS).glob("*"))]
        committed = self.run.committed()
        for i, name in enumerate(names):
            if name in committed:
                continue
            table = selection.read(self._distinct / MATERIALS / f"{name}.parquet")
            some_rejects = [pq.read_table(file) for file in rejects[i :: len(names)]]
            self.run.commit(name, table, pa.concat_tables([reject_table([]), *some_rejects]))
        return selection.counts | {
            REJECTS: sum(pq.read_metadata(file).num_rows for file in rejects),
            "parents_with_candidates": count_parents(self._candidates / MATERIALS),
        }


def _process(step: ShardStep, shards: Sequence[Shard]) -> None:
    """Process the shards that are not in the directory of a step yet."""
    committed = step.run.committed()
    missing = [shard for shard in shards if shard.name not in committed]
    with (
        Progress(len(shards), "shard", initial=len(shards) - len(missing)) as progress,
        closing(process_shards(step, missing, SHARDS_WITHOUT_RAY)) as reports,
    ):
        for report in reports:
            progress.step(candidate=report.results, reject=report.rejects)


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Record the duration of the block as `STEP_seconds`."""
    start = time.perf_counter()
    yield
    seconds[f"{step}_seconds"] = round(time.perf_counter() - start, 3)
