"""Ingestions without Ray: files that kill their process, limits, object stores, and a table that replaces another."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.config import ReadingConfig
from mat2spec.data.ingest.listing import list_sources
from mat2spec.data.shards.step import ShardLimits
from mat2spec.distributed.ingest import files
from mat2spec.distributed.ingest.files import Ingestion
from mat2spec.errors import RunError, TableError, UnfinishedError
from mat2spec.storage.location import Location, locate
from mat2spec.storage.run_directory import RunDirectory, read_parquet

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own

LIMITS = ShardLimits(600.0, None, 3, "limits")


@pytest.fixture
def folder(real_crystals, tmp_path) -> Path:
    """Nine POSCAR files, m0 to m8; m7 has the content of m0, and m8 that of m1."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(9):
        real_crystals[i % 7].to_structure().to(str(folder / f"m{i}.vasp"), fmt="poscar")
    return folder


@pytest.fixture
def store():
    """An empty object store in memory."""
    yield "memory://lake"
    fsspec.filesystem("memory").rm("/lake", recursive=True)


def ingestion(folder: Path, output: Location, limits: ShardLimits = LIMITS, rows_per_shard: int = 4) -> Ingestion:
    return Ingestion(list_sources([str(folder)]), output, ReadingConfig(), rows_per_shard, limits)


def rows(output: Location, kind: str = "materials") -> list[dict]:
    files = sorted((output / kind).glob("*.parquet"), key=str)
    return pa.concat_tables([read_parquet(file) for file in files]).to_pylist()


def ids(output: Location) -> list[str]:
    return [row["material_id"] for row in rows(output)]


def test_files_that_kill_their_process_are_rejects_and_all_others_are_read(folder, tmp_path, inject_faults):
    with inject_faults({"m1": "read:segv", "m4": "read:hang", "m6": "read:raise"}):
        line = ingestion(folder, tmp_path / "out", LIMITS._replace(seconds=20.0)).run({})
    assert line.startswith("9 structures in 9 files: 6 rows (1 with the content of another), 3 rejects in ")
    assert ids(tmp_path / "out") == ["m0", "m2", "m3", "m5", "m7", "m8"]
    rejects = {row["material_id"]: row for row in rows(tmp_path / "out", "rejects")}
    expected = {"m1": "WorkerDiedError", "m4": "TimeLimitError", "m6": "ZeroDivisionError"}
    assert {name: row["error_type"] for name, row in rejects.items()} == expected
    for name, row in rejects.items():
        assert (row["source"], row["stage"]) == (str(folder / f"{name}.vasp"), "read")
        assert row["error"].startswith(f"{name}: ")
    assert "limits.seconds_per_shard" in rejects["m4"]["error"]


def test_more_files_that_kill_their_process_than_allowed_end_the_job_which_can_be_resumed(
    folder, tmp_path, inject_faults
):
    with (
        inject_faults(dict.fromkeys(("m1", "m2", "m5", "m6"), "read:raise")),
        pytest.raises(UnfinishedError, match=r"more than 3 rows .*limits\.fault_limit"),
    ):
        ingestion(folder, tmp_path / "out").run({})
    with inject_faults({}):
        ingestion(folder, tmp_path / "out").run({})
    assert len(ids(tmp_path / "out")) + len(rows(tmp_path / "out", "rejects")) == 9


def test_ingestion_into_an_object_store_is_that_into_a_folder(folder, store, tmp_path):
    lines = [ingestion(folder, output).run({}) for output in (tmp_path / "out", locate(f"{store}/out"))]
    assert lines[0].split(" in /")[0] == lines[1].split(" in memory")[0]
    assert rows(locate(f"{store}/out")) == rows(tmp_path / "out")
    names = {file.name for file in locate(f"{store}/out").iterdir()}
    assert names == {"materials", "rejects", "run.json", "catalog.duckdb"}


@pytest.mark.parametrize(
    "content", [b"material_id,cif\n", pa.table({"material_id": pa.array([], pa.string()), "cif": []})]
)
def test_files_without_any_structure_are_refused_and_leave_nothing(tmp_path, content):
    file = tmp_path / ("t.csv" if isinstance(content, bytes) else "t.parquet")
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        pq.write_table(content, file)
    with pytest.raises(TableError, match=rf"{file}: holds no structure"):
        ingestion(file, tmp_path / "out").run({})
    assert not (tmp_path / "out").exists()


def test_further_columns_of_any_name_and_type_reach_the_table(real_crystals, tmp_path):
    """Of the repeated ids the first row remains, though a column is called as DuckDB's number of the row."""
    crystals = [crystal.to_row() | {"file_row_number": 0, "MATERIAL_ID": "same"} for crystal in real_crystals[:3]]
    folder = tmp_path / "in[1]" / "material_id=x"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist([*crystals, crystals[0]]).append_column(
        "note", pa.array(list("abcd"), pa.string_view())
    )
    pq.write_table(table, folder / "t.parquet")
    ingestion(folder.parent, tmp_path / "out[1]", rows_per_shard=2).run({})
    assert [(row["material_id"], row["note"], row["MATERIAL_ID"]) for row in rows(tmp_path / "out[1]")] == [
        (row["material_id"], note, "same") for row, note in zip(crystals, "abc", strict=True)
    ]
    (reject,) = rows(tmp_path / "out[1]", "rejects")
    assert (reject["material_id"], reject["error_type"]) == (crystals[0]["material_id"], "TableError")


def test_finished_ingestion_reads_nothing_again(folder, tmp_path, monkeypatch):
    line = ingestion(folder, tmp_path / "out").run({})
    monkeypatch.setattr(files, "process_shards", None)
    assert ingestion(folder, tmp_path / "out").run({}) == line
    (folder / "m9.vasp").write_text((folder / "m0.vasp").read_text())
    with pytest.raises(RunError, match="holds another run"):
        ingestion(folder, tmp_path / "out").run({})


@pytest.mark.parametrize("killed_after", ["note", "record", "nothing"])
def test_table_of_another_listing_is_replaced_as_a_whole_also_after_a_kill(folder, tmp_path, monkeypatch, killed_after):
    output = tmp_path / "out"
    ingestion(folder, output).run({})
    (folder / "m0.vasp").unlink()
    other = ingestion(folder, output)

    def interrupted(path: Path) -> None:
        if killed_after == "record":
            (path / "run.json").unlink()
        raise KeyboardInterrupt

    if killed_after != "nothing":
        with monkeypatch.context() as patch:
            patch.setattr(files, "remove_tree", interrupted)
            with pytest.raises(KeyboardInterrupt):
                other.discard_other()
        again = ingestion(folder, output)
        again.discard_other()
    else:
        other.discard_other()
    assert not output.exists()
    ingestion(folder, output).run({})
    assert ids(output) == [f"m{i}" for i in range(1, 9)]
    before = RunDirectory(output, "materials").record
    ingestion(folder, output).discard_other()
    assert RunDirectory(output, "materials").record == before, "the same listing keeps its table"
