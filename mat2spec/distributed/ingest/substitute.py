"""Candidates by ionic substitution, on Ray: make them shard by shard, then deduplicate them formula by formula."""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts
from mat2spec.storage.progress import Progress

# isort: split
import ray.data

from mat2spec.config.substitution import SubstituteConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.shard import Shard, read_shard
from mat2spec.data.substitution.by_formula import CandidateSelection, count_parents, formula_shards, group_by_formula
from mat2spec.data.substitution.candidates import remove_duplicates, substitute_rows
from mat2spec.data.substitution.rules import Substituter
from mat2spec.errors import TableError, counted
from mat2spec.provenance import environment
from mat2spec.storage.parquet_rows import read_parquet_rows
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory

SHARDS_WITHOUT_RAY = 1
"""Up to this many are done in this process, in about the time that Ray takes to start (12 s)."""

_STAGED = "staged"

_KNOWN = {"drop": "left out", "mark": "marked"}

Row = dict[str, Any]


def substitute(config: SubstituteConfig, input: Path, output: Path) -> str:
    """Make the candidates that are not made yet; return a line with the counts.

    Args:
        config: The settings.
        input: The parents: a materials table, or the directory that an ingestion wrote.
        output: The output directory, absolute.

    Raises:
        TableError: If the input cannot be read, or is not a table.
        ConfigError: If pymatgen has no ion of an element.
        RunError: If the directory holds something else.
    """
    substituter = Substituter(config.element, config.threshold, config.largest_scaling, config.largest_formula)
    materials = MaterialsInput.open(input / MATERIALS if (input / MATERIALS).is_dir() else input)
    if not materials.tables:
        raise TableError(
            f"{input}: holds structure files, not a materials table; "
            f"make a table with `mat2spec ingest files {input} --output TABLE` first"
        )
    identity = {"input": materials.fingerprint} | config.model_dump(mode="json", exclude={"table", "output"})
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
        candidates = RunDirectory(self._candidates, MATERIALS)
        distinct = RunDirectory(self._distinct, MATERIALS)
        for directory in (candidates, distinct):
            directory.claim({}, {})
        grouped = self.staged / "grouped.parquet"
        on_ray = len(shards) > SHARDS_WITHOUT_RAY
        seconds: dict[str, float] = {}
        with ExitStack() as stack:
            with _timed("ray_start", seconds):
                if on_ray:
                    stack.enter_context(ray_session())
            with _timed("make", seconds):
                rows = [{"name": shard.name, "shard": shard.to_json()} for shard in shards]
                _map_shards(rows, MakeCandidates(candidates, self.substituter), candidates, on_ray)
            with _timed("group", seconds):
                if not grouped.exists():
                    group_by_formula(self._candidates / MATERIALS, grouped, self.config.rows_per_shard)
            with _timed("deduplicate", seconds):
                formulas = list(formula_shards(grouped, self.config.rows_per_shard))
                _map_shards(formulas, Deduplicate(grouped, distinct), distinct, on_ray)
        with _timed("finalize", seconds):
            counts = self._commit([row["name"] for row in formulas])
        counts["input"] = sum(map(len, shards))
        counts["parents_without"] = counts["input"] - counts["parents_with_candidates"] - counts[REJECTS]
        self.run.finish(counts[MATERIALS] + counts[REJECTS], {"stages": seconds, "counts": counts})

    def _commit(self, names: list[str]) -> dict[str, int]:
        """Commit the selected candidates, with the rejects spread over their shards; return the counts."""
        selection = CandidateSelection.from_folder(self._distinct / MATERIALS, self.config)
        rejects = sorted((self._candidates / REJECTS).glob("*.parquet"))
        committed = self.run.committed()
        for i, name in enumerate(names):
            if name in committed:
                continue
            table = selection.read(self._distinct / MATERIALS / f"{name}.parquet")
            some_rejects = [pq.read_table(file) for file in rejects[i :: len(names)]]
            self.run.commit(name, table, pa.concat_tables([reject_table([]), *some_rejects]))
        return selection.counts | {
            REJECTS: RunDirectory(self._candidates, MATERIALS).counts()[REJECTS],
            "parents_with_candidates": count_parents(self._candidates / MATERIALS),
        }


class MakeCandidates:
    """Makes the candidates of a shard of parents.

    Args:
        output: Where they are written.
        substituter: The substitution rules.
    """

    def __init__(self, output: RunDirectory, substituter: Substituter) -> None:
        self._output = output
        self._substituter = substituter

    def __call__(self, row: Row) -> Row:
        candidates, rejects = substitute_rows(read_shard(Shard.from_json(row["shard"])), self._substituter)
        self._output.commit(row["name"], candidates, reject_table(rejects))
        return {"candidate": len(candidates) - candidates["parent_id"].null_count}


class Deduplicate:
    """Keeps one candidate of each structure in a shard of formulas.

    Args:
        grouped: Candidates and known structures, sorted by formula.
        distinct: Where the remaining ones are written.
    """

    def __init__(self, grouped: Path, distinct: RunDirectory) -> None:
        self._grouped = grouped
        self._distinct = distinct

    def __call__(self, row: Row) -> Row:
        table = remove_duplicates(read_parquet_rows(str(self._grouped), range(row["start"], row["stop"])))
        self._distinct.commit(row["name"], table, reject_table([]))
        return {"candidate": len(table)}


def _map_shards(rows: list[Row], step: Callable[[Row], Row], directory: RunDirectory, on_ray: bool) -> None:
    """Apply a step to the shards that are not in its directory yet."""
    committed = directory.committed()
    missing = [row for row in rows if row["name"] not in committed]
    results: Iterable[Row] = map(step, missing)
    if on_ray and missing:
        results = ray.data.from_items(missing, override_num_blocks=len(missing)).map(step).iter_rows()
    with Progress(len(rows), "shard", initial=len(rows) - len(missing)) as progress:
        for result in results:
            progress.step(**result)


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Record the duration of the block as `STEP_seconds`."""
    start = time.perf_counter()
    yield
    seconds[f"{step}_seconds"] = round(time.perf_counter() - start, 3)
