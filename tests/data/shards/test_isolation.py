"""Rows that kill their process are isolated from their neighbors, without Ray."""

import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mat2spec.data.shards.isolated_process
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.isolated_process import Fault, IsolatedProcess
from mat2spec.data.shards.isolation import CONFIRMATIONS, TooManyFaultsError, find_faults, isolate
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits, ShardTables, StageTimer
from mat2spec.predict.pipeline import ScreeningStep, ShardPipeline
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import RunDirectory

FAULT = Fault("graph", "WorkerDiedError", "its process was killed by SIGSEGV", died=True)


def tables_of(shard: Shard) -> ShardTables:
    """Results that contain nothing but the positions of the rows."""
    return ShardTables(list(shard.rows), reject_table([]))  # type: ignore[arg-type]


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=8))))
def test_bisection_finds_exactly_the_rows_that_fail(case):
    count, failing = case
    calls = []

    def compute(part: Shard) -> ShardTables | Fault:
        calls.append(len(part))
        return FAULT if failing & set(part.rows) else tables_of(part)

    results, faults = find_faults(Shard("part-000000", ("table.parquet",), range(count), ()), compute, 8)
    assert faults.keys() == failing
    computed = [row for tables in results for row in tables.results]
    assert computed == [row for row in range(count) if row not in failing]
    limit = 1 + len(failing) * (2 * int(np.ceil(np.log2(count + 1))) + CONFIRMATIONS)
    assert len(calls) <= limit, "a failing row costs two calls for each halving, and those that confirm it"


def test_row_whose_process_is_killed_twice_for_other_reasons_is_not_rejected():
    deaths = iter([FAULT, FAULT])
    results, faults = find_faults(Shard("p", ("t",), range(1), ()), lambda part: next(deaths, tables_of(part)), 1)
    assert (len(results), faults) == (1, {})


def test_more_faults_than_allowed_end_the_search():
    with pytest.raises(TooManyFaultsError, match="SIGSEGV"):
        find_faults(Shard("p", ("t",), range(100), ()), lambda part: FAULT, 3)


FAULTS = {
    1: ("segv", "WorkerDiedError"),
    4: ("hang", "TimeLimitError"),
    5: ("memory", "MemoryError"),
    8: ("kill", "WorkerDiedError"),
}
"""What some rows do to their process, by position, and the error type of their reject."""


def test_rows_that_kill_real_processes_are_rejected_and_the_others_computed(
    materials, checkpoint, tmp_path, inject_faults
):
    table = materials.slice(0, 10)
    ids = table["material_id"].to_pylist()
    pq.write_table(table, tmp_path / "input.parquet")
    run = RunDirectory(tmp_path / "run")
    run.claim({}, {})
    (shard,) = MaterialsInput.open(tmp_path / "input.parquet").shards(10)
    step = ScreeningStep(run, ShardLimits(30, 1_500_000_000, 100), checkpoint)
    with inject_faults({ids[row]: fault for row, (fault, _) in FAULTS.items()} | {ids[9]: "predict:segv"}):
        report = isolate(step, shard)
        orphan = IsolatedProcess(step, 10)
        pipe = orphan._start()
        pipe.send((shard.part(4, 5), 2))
        while pipe.recv() != ("stage", "graph"):
            pass
        pipe.close()
        orphan._process.join(60)
        assert orphan._process.exitcode == -signal.SIGALRM, (
            "a process that hangs kills itself even when its parent is gone"
        )
    assert (report.failed, report.results, report.rejects, report.faults) == ("", 5, 5, 5)
    rejects = {
        row["material_id"]: row for row in pq.read_table(run.path / "rejects" / "part-000000.parquet").to_pylist()
    }
    for row, (_, error_type) in FAULTS.items():
        assert (rejects[ids[row]]["stage"], rejects[ids[row]]["error_type"]) == ("graph", error_type)
        assert rejects[ids[row]]["error"].startswith(f"{ids[row]}: ")
        assert rejects[ids[row]]["source"].endswith(f"input.parquet, row {row}")
    assert rejects[ids[9]]["stage"] == "predict"
    predicted = pq.read_table(run.path / "predictions" / "part-000000.parquet")["material_id"].to_pylist()
    assert predicted == [name for i, name in enumerate(ids) if i not in {*FAULTS, 9}]


def test_missing_input_rejects_no_row(materials, checkpoint, tmp_path):
    pq.write_table(materials.slice(0, 4), tmp_path / "input.parquet")
    (shard,) = MaterialsInput.open(tmp_path / "input.parquet").shards(4)
    (tmp_path / "input.parquet").unlink()
    pipeline = ShardPipeline(checkpoint)
    kind, text = mat2spec.data.shards.isolated_process._answer(pipeline, shard, StageTimer(), "inference")
    assert kind == "unreadable"
    assert "input.parquet: cannot be read (No such file or directory)" in text
