"""Rows that end their process: found among their neighbours, whatever they do to it; no Ray is needed for that."""

import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mat2spec.predict.isolation
from mat2spec.config import InferenceConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.materials.shards import Shard
from mat2spec.predict.isolation import CONFIRMATIONS, Fault, Process, TooManyFaultsError, find_faults, isolate
from mat2spec.predict.pipeline import Clock, Outcome, Recipe, Screener
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import RunDirectory

FAULT = Fault("graph", "WorkerDiedError", "its process was ended by SIGSEGV", died=True)


def rows_of(shard: Shard) -> Outcome:
    """An outcome that names its rows."""
    return Outcome(list(shard.rows), reject_table([]))  # type: ignore[arg-type]


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=8))))
def test_bisection_blames_the_culprits_and_no_other(case):
    count, culprits = case
    tried = []

    def compute(part: Shard) -> Outcome | Fault:
        tried.append(len(part))
        return FAULT if culprits & set(part.rows) else rows_of(part)

    outcomes, faults = find_faults(Shard("part-000000", ("table.parquet",), range(count), ()), compute, 8)
    assert faults.keys() == culprits
    assert [row for outcome in outcomes for row in outcome.predictions] == [
        row for row in range(count) if row not in culprits
    ]
    most = 1 + len(culprits) * (2 * int(np.ceil(np.log2(count + 1))) + CONFIRMATIONS)
    assert len(tried) <= most, "a culprit costs two tries for each halving, and those that confirm it"


def test_row_that_others_kill_twice_is_not_blamed():
    deaths = iter([FAULT, FAULT])
    outcomes, faults = find_faults(Shard("p", ("t",), range(1), ()), lambda part: next(deaths, rows_of(part)), 1)
    assert (len(outcomes), faults) == (1, {})


def test_more_faults_than_allowed_end_the_search():
    with pytest.raises(TooManyFaultsError, match="SIGSEGV"):
        find_faults(Shard("p", ("t",), range(100), ()), lambda part: FAULT, 3)


FAULTS = {
    1: ("segv", "WorkerDiedError"),
    4: ("hang", "TimeLimitError"),
    5: ("memory", "MemoryError"),
    8: ("kill", "WorkerDiedError"),
}
"""What some rows do, and what they are rejected for."""


def test_real_processes_die_of_some_rows_and_the_others_are_computed(materials, checkpoint, tmp_path, faults):
    table = materials.slice(0, 10)
    ids = table["material_id"].to_pylist()
    pq.write_table(table, tmp_path / "input.parquet")
    run = RunDirectory(tmp_path / "run")
    run.claim({}, {})
    (shard,) = MaterialsInput.open(tmp_path / "input.parquet").shards(10)
    recipe = Recipe(checkpoint, InferenceConfig(seconds_per_shard=30), str(run.path), 1_500_000_000)
    with faults({ids[row]: what for row, (what, _) in FAULTS.items()} | {ids[9]: "predict:segv"}):
        done, found = isolate(recipe, shard, 10)
        orphan = Process(recipe, 10)
        pipe = orphan._begin()
        pipe.send((shard.part(4, 5), 2))
        while pipe.recv() != ("stage", "graph"):
            pass
        pipe.close()
        orphan._process.join(60)
        assert orphan._process.exitcode == -signal.SIGALRM, "one that hangs ends by itself when its parent is gone"
    assert (done.failed, done.predictions, done.rejects, found) == ("", 5, 5, 5)
    rejects = {
        row["material_id"]: row for row in pq.read_table(run.path / "rejects" / "part-000000.parquet").to_pylist()
    }
    for row, (_, error_type) in FAULTS.items():
        assert (rejects[ids[row]]["stage"], rejects[ids[row]]["error_type"]) == ("graph", error_type)
        assert rejects[ids[row]]["error"].startswith(f"{ids[row]}: ")
        assert rejects[ids[row]]["source"].endswith(f"input.parquet, row {row}")
    assert rejects[ids[9]]["stage"] == "predict"
    kept = pq.read_table(run.path / "predictions" / "part-000000.parquet")["material_id"].to_pylist()
    assert kept == [name for i, name in enumerate(ids) if i not in {*FAULTS, 9}]


def test_input_that_is_gone_is_no_rows_fault(materials, checkpoint, tmp_path):
    pq.write_table(materials.slice(0, 4), tmp_path / "input.parquet")
    (shard,) = MaterialsInput.open(tmp_path / "input.parquet").shards(4)
    (tmp_path / "input.parquet").unlink()
    kind, text = mat2spec.predict.isolation._answer(
        Screener(Recipe(checkpoint, InferenceConfig(), str(tmp_path / "run"), None)), shard, Clock()
    )
    assert kind == "unreadable"
    assert "input.parquet: cannot be read (No such file or directory)" in text
