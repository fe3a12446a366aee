"""The stages of a screening in this process, without Ray: every row becomes a prediction or a reject."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

import mat2spec.predict.featurized
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.step import StageTimer, process_shard
from mat2spec.model import edge_loops
from mat2spec.predict.featurized import FeaturizedShard, featurize, read_rows
from mat2spec.predict.pipeline import STAGES, ShardPipeline
from mat2spec.predict.predictor import Predictor
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure import empty_space_loops
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import primitive_nsites

SAME_SPECTRUM = 1e-5
"""[states per cm⁻¹ per atom] Rounding of float32 sums, which depends on how crystals are batched."""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore the number of torch threads, which the stages set for their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def screen(checkpoint, tmp_path):
    """Function that screens a table in shards and returns predictions, rejects and the counts of the reports."""

    def run_stages(table: pa.Table, rows_per_shard: int = 50) -> tuple[pa.Table, pa.Table, Counter]:
        pq.write_table(table, tmp_path / "input.parquet")
        run = RunDirectory(tmp_path / "run")
        run.claim({}, {})
        pipeline = ShardPipeline(checkpoint)
        counts = Counter()
        for shard in MaterialsInput.open(tmp_path / "input.parquet").shards(rows_per_shard):
            report = process_shard(pipeline, run, shard)
            assert not report.failed
            assert min(report.seconds[stage] for stage in STAGES) > 0
            counts.update(predictions=report.results, rejects=report.rejects)
        return read(run.path / "predictions"), read(run.path / "rejects"), counts

    return run_stages


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])


def test_code_is_loaded_before_the_first_row(checkpoint, monkeypatch):
    """Compiled loops take a second to load; of a single row's time limit, that may be most."""
    called = Counter()

    def count(module: ModuleType, name: str) -> None:
        loop = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arrays: [called.update([name]), loop(*arrays)][1])

    count(edge_loops, "weighted_sum")
    count(empty_space_loops, "largest_inverses")
    ShardPipeline(checkpoint)
    assert called.keys() == {"weighted_sum", "largest_inverses"}


@pytest.mark.parametrize("rows_per_shard", [1, 50, 1000])
def test_every_row_becomes_a_prediction_or_a_reject_with_its_reason(screen, table_with_bad_rows, rows_per_shard):
    table, reasons = table_with_bad_rows
    predictions, rejects, counts = screen(table, rows_per_shard)
    assert (counts["predictions"], counts["rejects"]) == (len(predictions), len(rejects)) == (200, len(reasons))
    by_id = {row["material_id"]: row for row in rejects.to_pylist()}
    assert by_id.keys() == reasons.keys()
    for material_id, (stage, error_type, part) in reasons.items():
        row = by_id[material_id]
        assert (row["stage"], row["error_type"]) == (stage, error_type)
        assert part in row["error"]
        assert "\n" not in row["error"]
        assert row["source"].startswith("/")
    good = table.filter(
        pa.array([name not in reasons or name == "mp-1000" for name in table["material_id"].to_pylist()])
    )
    assert predictions["material_id"].to_pylist() == list(dict.fromkeys(good["material_id"].to_pylist()))


def test_spectra_are_those_of_the_predictor(screen, table_with_bad_rows, checkpoint):
    predictions, _, _ = screen(table_with_bad_rows[0])
    rows = {
        crystal.material_id: crystal
        for crystal in read_crystals(table_with_bad_rows[0])
        if isinstance(crystal, Crystal)
    }
    first = [rows[name] for name in predictions["material_id"].to_pylist() if name != "mp-1000"]
    expected = Predictor(checkpoint, torch.device("cpu")).predict_spectra(first)
    others = predictions.filter(pc.not_equal(predictions["material_id"], "mp-1000"))
    np.testing.assert_allclose(others["spectrum"].to_pylist(), expected, atol=SAME_SPECTRUM)
    assert others["nsites_primitive"].to_pylist() == [primitive_nsites(crystal) for crystal in first]


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint8()])
def test_sites_of_the_primitive_cell_are_those_of_the_input_where_it_has_them(screen, materials, kind, monkeypatch):
    counted = []
    count = mat2spec.predict.featurized.primitive_nsites
    monkeypatch.setattr(
        mat2spec.predict.featurized, "primitive_nsites", lambda crystal: counted.append(crystal) or count(crystal)
    )
    table = materials.slice(0, 3).append_column("nsites_primitive", pa.array([40, None, 41], kind))
    predictions, _, _ = screen(table)
    (crystal,) = counted
    assert crystal.material_id == table["material_id"][1].as_py()
    assert predictions["nsites_primitive"].to_pylist() == [40, count(crystal), 41]
    assert predictions.schema.field("nsites_primitive").type == pa.int32()
    assert "input_nsites_primitive" not in predictions.schema.names


def test_column_of_that_name_that_holds_no_integers_is_one_of_the_users(screen, materials):
    table = materials.slice(0, 3).append_column("nsites_primitive", pa.array(["few", "some", "many"]))
    predictions, _, _ = screen(table)
    assert predictions["input_nsites_primitive"].to_pylist() == ["few", "some", "many"]
    assert predictions.schema.field("nsites_primitive").type == pa.int32()


def test_shard_with_nothing_but_rejects_still_has_both_files(screen, table_with_bad_rows, contract):
    table, reasons = table_with_bad_rows
    bad = table.filter(pa.array([name in reasons and name != "mp-1000" for name in table["material_id"].to_pylist()]))
    predictions, rejects, _ = screen(bad)
    assert (len(predictions), len(rejects)) == (0, len(reasons) - 1)
    assert predictions.schema.names == [*contract, *table.column_names[6:-1], "input_spectrum"], (
        "the same columns as in every other file"
    )
    assert {name: predictions.schema.field(name).type for name in contract} == contract


@pytest.mark.parametrize("stage", ["build_graph", "primitive_nsites"])
def test_error_of_any_kind_in_a_stage_rejects_that_row_only(screen, materials, monkeypatch, stage):
    original = getattr(mat2spec.predict.featurized, stage)

    def crashes(crystal, *rest):
        if crystal.material_id == "mp-1000":
            raise ZeroDivisionError("an unexpected\nerror")
        return original(crystal, *rest)

    monkeypatch.setattr(mat2spec.predict.featurized, stage, crashes)
    predictions, rejects, _ = screen(materials.slice(0, 10))
    (row,) = rejects.to_pylist()
    assert len(predictions) == 9
    assert (row["material_id"], row["error_type"]) == ("mp-1000", "ZeroDivisionError")
    assert row["error"] == "mp-1000: an unexpected error"


@pytest.mark.parametrize("count", [0, 1, 60])
def test_flat_arrays_between_processes_change_nothing(checkpoint, table_with_bad_rows, tmp_path, count):
    table = table_with_bad_rows[0]
    pq.write_table(table.slice(0, count), tmp_path / "input.parquet")
    (shard,) = MaterialsInput.open(tmp_path / "input.parquet").shards(100)
    timer = StageTimer()
    featurized = featurize(read_rows(shard, timer), checkpoint.card.config.graph, timer)
    timer.stop()
    arrays = featurized.to_table(timer)
    assert len(arrays) == 1
    sent = pa.ipc.open_stream(_through_ipc(pa.concat_tables([arrays, arrays]))).read_all().slice(1, 1)
    later = StageTimer()
    received = FeaturizedShard.from_table(sent, later)
    assert later.seconds == timer.seconds
    assert received.inputs.equals(featurized.inputs)
    assert (received.nsites_primitive, received.sources) == (featurized.nsites_primitive, featurized.sources)
    assert received.rejects == featurized.rejects
    assert [crystal.material_id for crystal in received.crystals] == [c.material_id for c in featurized.crystals]
    for graph, original in zip(received.graphs, featurized.graphs, strict=True):
        for name in ("atomic_numbers", "edge_index", "distances", "vectors"):
            np.testing.assert_array_equal(getattr(graph, name), getattr(original, name))
            assert getattr(graph, name).dtype == getattr(original, name).dtype
    pipeline = ShardPipeline(checkpoint)
    assert pipeline.predict(received, later).results.equals(pipeline.compute(shard, StageTimer()).results)


def _through_ipc(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
