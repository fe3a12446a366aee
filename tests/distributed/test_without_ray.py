"""A screening of a few rows: subprocesses instead of Ray, with the same rows, rejects and record."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch

from mat2spec.config import ScreenConfig
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.shards.shard import Shard
from mat2spec.distributed.screening import inputs, run, without_ray
from mat2spec.distributed.screening.run import Screening
from mat2spec.distributed.screening.without_ray import MAX_ROWS, MAX_SHARDS, limits_without_ray, needs_ray
from mat2spec.predict.predictor import Predictor
from mat2spec.storage.run_directory import RunDirectory

ROWS = 12


@pytest.fixture(autouse=True)
def no_ray(monkeypatch) -> None:
    """Ray must not start, and there is no cluster."""

    def refuse(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for module in (run, inputs):
        monkeypatch.setattr(module, "ray_session", refuse)


@pytest.fixture
def screening(materials, checkpoint_directory, tmp_path):
    """Make a screening of the first rows, or of a folder of their structures."""
    pq.write_table(materials.slice(0, ROWS), tmp_path / "table.parquet")
    (tmp_path / "folder").mkdir()
    for crystal in read_crystals(materials.slice(0, ROWS)):
        crystal.to_structure().to(str(tmp_path / "folder" / f"{crystal.material_id}.vasp"), fmt="poscar")

    def make(name: str, rows_per_shard: int = 5) -> Screening:
        inference = {"rows_per_shard": rows_per_shard, "seconds_per_shard": 60}
        config = ScreenConfig(input=name, checkpoint="small", inference=inference, track=False)
        return Screening(config, tmp_path / name, checkpoint_directory, tmp_path / "run")

    return make


def shards(*rows: int) -> list[Shard]:
    return [Shard(f"part-{i:06d}", ("table",), range(count)) for i, count in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "needed"),
    [
        ((), False),
        ((MAX_ROWS,), False),
        ((MAX_ROWS, 1), True),
        ((1,) * MAX_SHARDS, False),
        ((1,) * (MAX_SHARDS + 1), True),
    ],
)
def test_ray_is_for_many_rows_and_shards(rows, needed):
    assert needs_ray(shards(*rows)) == needed


def test_few_rows_go_to_the_cluster_that_was_asked_for(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert needs_ray(shards(1))


def test_memory_of_a_subprocess_is_as_configured_or_a_part_of_what_is_free(monkeypatch):
    config = ScreenConfig(input="t", checkpoint="phdos")
    assert limits_without_ray(config.inference.model_copy(update={"memory_per_process": 3.0})).memory == 3e9
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for free, limit in ((10**9, without_ray.MIN_MEMORY), (10**11, 5 * 10**10)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: type("Memory", (), {"available": free}))
        assert limits_without_ray(config.inference).memory == limit


@pytest.mark.parametrize("name", ["table.parquet", "folder"])
def test_rows_are_those_of_the_predictor(screening, name, materials, checkpoint, tmp_path):
    summary = screening(name).run()
    assert not ray.is_initialized()
    assert f"{ROWS} rows in " in summary
    assert " without Ray, " in summary
    assert f"{ROWS} input rows: {ROWS} predictions, 0 rejects in {tmp_path / 'run'}" in summary
    crystals = {crystal.material_id: crystal for crystal in read_crystals(materials.slice(0, ROWS))}
    rows = pq.read_table(tmp_path / "run" / "predictions").to_pylist()
    assert {row["material_id"] for row in rows} == crystals.keys()
    expected = Predictor(checkpoint, torch.device("cpu")).predict_spectra(
        [crystals[row["material_id"]] for row in rows]
    )
    np.testing.assert_allclose([row["spectrum"] for row in rows], expected, atol=1e-5)
    stages = RunDirectory(tmp_path / "run").record["stages"]
    assert (stages["engine"], stages["rows"], stages["isolated_shards"]) == ("subprocesses", ROWS, 0)
    assert min(stages[f"{stage}_seconds"] for stage in ("graph", "predict")) > 0
    assert screening(name).run() == summary.splitlines()[-1], "a finished run is not done again"


def test_row_that_kills_its_process_is_a_reject_and_the_others_are_predicted(
    screening, materials, inject_faults, tmp_path
):
    ids = materials["material_id"].to_pylist()[:ROWS]
    with inject_faults({ids[3]: "segv"}):
        summary = screening("table.parquet").run()
    assert f"{ROWS} input rows: {ROWS - 1} predictions, 1 reject in {tmp_path / 'run'}" in summary
    (reject,) = pq.read_table(tmp_path / "run" / "rejects").to_pylist()
    assert (reject["material_id"], reject["error_type"]) == (ids[3], "WorkerDiedError")
