"""Shards on Ray Data: whatever happens to a process, each shard is committed once, or the job says why it stops."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import with_faults
from steps import Step

from mat2spec.config import InferenceConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits, ShardReport, StageTimer
from mat2spec.distributed.screening.runner import SeparateFeaturization, screening_limits, screening_runner
from mat2spec.distributed.session import ray_session
from mat2spec.distributed.shards.runner import ShardRunner, Workers
from mat2spec.errors import UnfinishedError
from mat2spec.predict.pipeline import ScreeningStep
from mat2spec.storage.run_directory import RunDirectory

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data's own, about its own settings

ROWS_PER_SHARD = 10

FAULT_LIMIT = 3

CRASHING = 40
"""Row of the materials whose graph ends its process."""


@pytest.fixture(scope="module", autouse=True)
def _ray(materials: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    faults = with_faults({materials["material_id"][CRASHING].as_py(): "segv"}, tmp_path_factory.mktemp("site"))
    faults["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parent}"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in faults.items():
            patch.setenv(name, value)
        with ray_session():
            yield


@pytest.fixture
def process(tmp_path):
    """Function that processes rows in shards of ten; returns the reports by shard, and the run directory."""

    def run(number: int, seconds: float = 60.0, **settings: object) -> dict[str, ShardReport]:
        step = Step(RunDirectory(tmp_path), ShardLimits(seconds, None, FAULT_LIMIT), **settings)
        step.run.make_folders()
        reports = list(ShardRunner(step, Workers(2, None, 1.0)).run(shards(number)))
        assert len({report.name for report in reports}) == len(reports), "one report for each shard"
        return {report.name: report for report in reports}

    return run


def shards(rows: int) -> list[Shard]:
    starts = range(0, rows, ROWS_PER_SHARD)
    return [
        Shard(f"part-{i:06d}", ("table.parquet",), range(start, start + ROWS_PER_SHARD), ())
        for i, start in enumerate(starts)
    ]


def ids(run: Path) -> list[int]:
    tables = [pq.read_table(file) for file in (run / "predictions").glob("*.parquet")]
    return sorted(int(name) for name in pa.concat_tables(tables)["material_id"].to_pylist())


def test_every_shard_is_committed_and_reported_once(process, tmp_path):
    reports = process(200)
    assert len(reports) == 20
    assert ids(tmp_path) == list(range(200))
    assert {report.results for report in reports.values()} == {ROWS_PER_SHARD}
    assert all(report.faults is None for report in reports.values())


def test_process_that_is_killed_from_outside_costs_no_row_and_no_isolation(process, tmp_path):
    reports = process(100, rows={35: "once"})
    assert (tmp_path / "35.killed").exists()
    assert ids(tmp_path) == list(range(100))
    assert all(report.faults is None for report in reports.values())


def test_rows_that_fail_are_rejected_and_all_others_computed(process, tmp_path):
    faults = {35: "kill", 57: "raise", 99: "hang"}
    reports = process(100, rows=faults, seconds=12.0)  # of which a row gets a tenth, also on a busy machine
    assert ids(tmp_path) == [row for row in range(100) if row not in faults]
    assert {name: report.faults for name, report in reports.items() if report.rejects} == {
        "part-000003": 1,
        "part-000005": 1,
        "part-000009": 1,
    }
    assert all(not report.faults for report in reports.values() if not report.rejects), "their neighbors have none"
    rejects = pa.concat_tables([pq.read_table(file) for file in (tmp_path / "rejects").glob("*.parquet")]).to_pylist()
    assert {row["source"].rsplit(" ")[-1]: row["error_type"] for row in rejects} == {
        "35": "WorkerDiedError",
        "57": "ZeroDivisionError",
        "99": "TimeLimitError",
    }


def test_neighbors_in_a_block_of_several_shards_are_not_isolated(process, tmp_path, monkeypatch):
    monkeypatch.setattr("mat2spec.distributed.shards.runner.MAX_BLOCKS", 2)
    reports = process(100, rows={35: "kill"})
    assert ids(tmp_path) == [row for row in range(100) if row != 35]
    isolated = {name for name, report in reports.items() if report.faults is not None}
    assert isolated & {f"part-{i:06d}" for i in range(5)} == {"part-000003"}, "the other block may share the process"


def test_job_whose_every_row_kills_its_process_stops_soon_and_says_so(process, tmp_path):
    with pytest.raises(UnfinishedError, match=r"part-\d{6}: 7 shards .*fault_limit"):
        process(1000, rows=dict.fromkeys(range(1000), "kill"))
    assert not list((tmp_path / "predictions").iterdir())


@pytest.mark.parametrize("fault", ["raise", "kill"])
def test_worker_that_cannot_start_stops_the_job_with_its_reason(process, fault):
    reason = {"raise": "MemoryError: the model is too large", "kill": "each process died"}[fault]
    with pytest.raises(UnfinishedError, match=f"no worker can be started: {reason}") as caught:
        process(100, start=fault)
    assert "\n" not in str(caught.value)


def test_graphs_built_in_tasks_of_their_own_give_the_same_spectra(materials, checkpoint, tmp_path):
    table = materials.slice(0, 60)
    pq.write_table(table, tmp_path / "input.parquet")
    parts = MaterialsInput.open(tmp_path / "input.parquet").shards(ROWS_PER_SHARD)
    missing = replace(parts[0], name="missing", files=(str(tmp_path / "gone.parquet"),))
    inference = InferenceConfig(predictors=1, separate_featurization=True)
    step = ScreeningStep(RunDirectory(tmp_path), screening_limits(inference), checkpoint)
    step.run.make_folders()
    runner = screening_runner(step, inference)
    assert isinstance(runner, SeparateFeaturization)
    reports = {report.name: report for report in runner.run(parts)}
    assert {name: report.rejects for name, report in reports.items() if report.rejects} == {"part-000004": 1}
    assert reports["part-000004"].faults == 1, "the task that builds its graphs dies, not the worker"
    pipeline = step.processor()
    for part in parts:
        expected = pipeline.compute(part, StageTimer()).results if part.name != "part-000004" else None
        written = pq.read_table(tmp_path / "predictions" / f"{part.name}.parquet")
        assert expected is None or written.equals(expected)
    with pytest.raises(UnfinishedError, match=r"gone.parquet: cannot be read"):
        list(runner.run([missing]))
