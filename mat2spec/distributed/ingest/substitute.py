"""Candidates by ionic substitution on the cluster: made shard by shard, then told apart formula by formula."""

import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
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
from mat2spec.data.materials.shards import Shard, read_shard
from mat2spec.data.substitution.by_formula import Selection, count_parents, cut, group
from mat2spec.data.substitution.candidates import distinct, substitute_rows
from mat2spec.data.substitution.rules import Substituter
from mat2spec.errors import TableError
from mat2spec.provenance import environment
from mat2spec.storage.parquet_rows import read_parquet_rows
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import MATERIALS, REJECTS, RunDirectory

SHARDS_WITHOUT_RAY = 1
"""So few are done in this process in about the time that a Ray takes to start (12 s)."""

_STAGED = "staged"

_DONE_WITH_KNOWN = {"drop": "left out", "mark": "marked"}

Row = dict[str, Any]


def substitute(config: SubstituteConfig, input: Path, output: Path) -> str:
    """Make the candidates that are not yet made; give a line that says what the directory holds.

    Args:
        config: The settings.
        input: The parents: a materials table, or the directory of one that an ingestion wrote.
        output: The directory, absolute.

    Raises:
        TableError: If the table cannot be read, or is none.
        ConfigError: If pymatgen has no ion of an element.
        RunError: If the directory holds something else.
    """
    substituter = Substituter(config.element, config.threshold, config.largest_scaling, config.largest_formula)
    materials = MaterialsInput.open(input / MATERIALS if (input / MATERIALS).is_dir() else input)
    if not materials.tables:
        raise TableError(
            f"{input}: holds structure files, not a materials table; make one with ingest.py files {input} --output TABLE"
        )
    identity = {"input": materials.fingerprint} | config.model_dump(mode="json", exclude={"table", "output"})
    run = RunDirectory(output, MATERIALS)
    run.claim(
        identity, {"config": config.model_dump(mode="json"), "input": {"path": str(input)}, "versions": environment()}
    )
    if run.read_record()["status"] != "finished":
        _Substituting(config, substituter, run).of(materials.shards(config.rows_per_shard))
    shutil.rmtree(output / _STAGED, ignore_errors=True)
    counts = run.read_record()["counts"]
    return (
        f"{counts['input']} parents ({counts['parents_with_candidates']} with candidates, {counts['parents_without']} without, "
        f"{counts[REJECTS]} rejects): {counts[MATERIALS]} candidates in {output}; {counts['duplicates']} duplicates and "
        f"{counts['beyond_limit']} beyond the limit left out, {counts['known']} known ones {_DONE_WITH_KNOWN[config.known]}"
    )


@dataclass(frozen=True)
class _Substituting:
    """The steps from parents to candidates; each leaves files, so that a killed run goes on after the last one that is whole.

    made/ has the candidates of each shard of parents; grouped.parquet has them by formula, with the known structures of those formulas;
    distinct/ has what stays of each shard of formulas.
    """

    config: SubstituteConfig
    substituter: Substituter
    run: RunDirectory

    def of(self, shards: list[Shard]) -> None:
        staged = self.run.path / _STAGED
        made, kept = (RunDirectory(staged / name, MATERIALS) for name in ("made", "distinct"))
        for directory in (made, kept):
            directory.claim({}, {})
        times = [time.perf_counter()]
        on_ray = len(shards) > SHARDS_WITHOUT_RAY
        with ray_session() if on_ray else nullcontext():
            times.append(time.perf_counter())
            _do(
                [{"name": shard.name, "shard": shard.to_json()} for shard in shards],
                Make(made, self.substituter),
                made,
                on_ray,
            )
            times.append(time.perf_counter())
            grouped = staged / "grouped.parquet"
            if not grouped.exists():
                group(made.path / MATERIALS, grouped, self.config.rows_per_shard)
            times.append(time.perf_counter())
            formulas = list(cut(grouped, self.config.rows_per_shard))
            _do(formulas, Distinguish(grouped, kept), kept, on_ray)
        times.append(time.perf_counter())
        counts = self._place(made, kept, [row["name"] for row in formulas])
        times.append(time.perf_counter())
        counts["input"] = sum(map(len, shards))
        counts["parents_without"] = counts["input"] - counts["parents_with_candidates"] - counts[REJECTS]
        names = ("ray_start", "make", "group", "distinguish", "place")
        seconds = {
            f"{name}_seconds": round(end - start, 3) for name, (start, end) in zip(names, pairwise(times), strict=True)
        }
        self.run.finish(counts[MATERIALS] + counts[REJECTS], {"stages": seconds, "counts": counts})

    def _place(self, made: RunDirectory, kept: RunDirectory, names: list[str]) -> dict[str, int]:
        """Commit what is wanted of what stays, with the rejects; give the counts."""
        selection = Selection.of(kept.path / MATERIALS, self.config)
        rejects = sorted((made.path / REJECTS).glob("*.parquet"))
        done = self.run.committed()
        for i, name in enumerate(names):
            if name not in done:
                of_shards = [pq.read_table(file) for file in rejects[i :: len(names)]]
                table = selection.take(kept.path / MATERIALS / f"{name}.parquet")
                self.run.commit(name, table, pa.concat_tables([reject_table([]), *of_shards]))
        return selection.counts | {
            REJECTS: made.counts()[REJECTS],
            "parents_with_candidates": count_parents(made.path / MATERIALS),
        }


class Make:
    """Make the candidates of a shard of parents.

    Args:
        made: Where they go.
        substituter: What replaces what.
    """

    def __init__(self, made: RunDirectory, substituter: Substituter) -> None:
        self._made, self._substituter = made, substituter

    def __call__(self, row: Row) -> Row:
        candidates, rejects = substitute_rows(read_shard(Shard.from_json(row["shard"])), self._substituter)
        self._made.commit(row["name"], candidates, reject_table(rejects))
        return {"candidates": len(candidates) - candidates["parent_id"].null_count}


class Distinguish:
    """Leave one candidate of each structure in a shard of formulas.

    Args:
        grouped: Candidates and known structures in the order of their formulas.
        kept: Where those that stay go.
    """

    def __init__(self, grouped: Path, kept: RunDirectory) -> None:
        self._grouped, self._kept = grouped, kept

    def __call__(self, row: Row) -> Row:
        table = distinct(read_parquet_rows(str(self._grouped), range(row["start"], row["stop"])))
        self._kept.commit(row["name"], table, reject_table([]))
        return {"candidates": len(table)}


def _do(rows: list[Row], work: Callable[[Row], Row], directory: RunDirectory, on_ray: bool) -> None:
    """Do the shards that are not done."""
    done = directory.committed()
    todo = [row for row in rows if row["name"] not in done]
    progress = Progress(len(todo), "shards")
    results: Iterable[Row] = map(work, todo)
    if on_ray and todo:
        results = ray.data.from_items(todo, override_num_blocks=len(todo)).map(work).iter_rows()
    for result in results:
        progress.step(**result)
