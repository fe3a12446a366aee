"""mat2spec.open_run: a DuckDB connection to a run from any directory; and RUN/catalog.duckdb in DuckDB alone."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import fsspec
import pyarrow.parquet as pq
import pytest

import mat2spec
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import RunError
from mat2spec.query.catalog import run_query
from mat2spec.storage.rejects import REJECT_COLUMNS
from mat2spec.storage.run_directory import CATALOG, RunDirectory

COUNT = "SELECT count(*), count(dos_at(spectrum, 20)) FROM predictions"

ODD_NAME = "it's a run, [1-3] *?{x} 50% é"


def answer(path: os.PathLike[str] | str, sql: str = COUNT) -> tuple:
    """First row of an answer."""
    with mat2spec.open_run(path) as connection:
        return connection.sql(sql).fetchall()[0]


def test_run_opens_from_any_directory_with_views_and_macros(dft_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert answer(dft_run) == answer(os.path.relpath(dft_run)) == answer(dft_run.as_uri()) == (1522, 1522)
    assert answer(dft_run, "SELECT count(*), len(axis()) FROM rejects") == (3, len(PHDOS_GRID.points))


def test_relative_run_is_that_of_mat2spec_home(dft_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAT2SPEC_HOME", str(dft_run.parent))
    assert answer(dft_run.name) == (1522, 1522)


def test_connection_outlives_a_change_of_the_current_directory(dft_run, tmp_path, monkeypatch):
    monkeypatch.chdir(dft_run.parent)
    with mat2spec.open_run(dft_run.name) as connection:
        monkeypatch.chdir(tmp_path)
        assert connection.sql(COUNT).fetchall() == [(1522, 1522)]


@pytest.mark.parametrize("name", ["moved", ODD_NAME])
def test_moved_run_opens_and_reads_its_own_files(dft_run, tmp_path, monkeypatch, name):
    moved = Path(shutil.copytree(dft_run, tmp_path / "elsewhere" / name))
    monkeypatch.chdir(tmp_path)
    (moved / "predictions" / "part-000000.parquet").unlink()
    assert answer(moved) == (922, 922)


@pytest.mark.parametrize("name", ["run", "it's a run, [1-3] {x} é"])
def test_run_in_an_object_store_opens(dft_run, name):
    fsspec.filesystem("memory").put(str(dft_run), f"/{name}", recursive=True)
    assert answer(f"memory://{name}") == (1522, 1522)


def test_unfinished_run_opens_once_a_shard_is_done_and_grows(dft_run, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.claim({}, {"grid": PHDOS_GRID.to_json()})
    shards = [pq.read_table(file) for file in sorted((dft_run / "predictions").iterdir())]
    with pytest.raises(RunError, match=f"^{run.path}: no part of this run is finished yet; open it again"):
        mat2spec.open_run(run.path)
    run.commit("part-000000", shards[0], REJECT_COLUMNS.empty_table())
    with mat2spec.open_run(run.path) as connection:
        assert connection.sql(COUNT).fetchall() == [(600, 600)]
        run.commit("part-000001", shards[1], REJECT_COLUMNS.empty_table())
        assert connection.sql(COUNT).fetchall() == [(1200, 1200)]


def test_ingestion_opens_with_its_materials(dft_run, tmp_path):
    ingestion = RunDirectory(tmp_path / "ingestion", "materials")
    ingestion.claim({}, {})
    rows = pq.read_table(dft_run / "predictions" / "part-000000.parquet", columns=["material_id", "nsites"])
    ingestion.commit("part-000000", rows, REJECT_COLUMNS.empty_table())
    assert answer(ingestion.path, "SELECT count(*) FROM materials") == (600,)


def test_two_runs_open_at_once_and_can_be_joined(dft_run, edos_run):
    with mat2spec.open_run(dft_run) as phonons, mat2spec.open_run(edos_run) as electrons:
        assert electrons.sql("SELECT count(*) FROM predictions").fetchall() == [(471,)]
        gaps = electrons.sql("SELECT material_id, is_metal FROM predictions").to_arrow_table()  # noqa: F841 - DuckDB reads it by name
        ((shared,),) = phonons.sql("SELECT count(*) FROM predictions JOIN gaps USING (material_id)").fetchall()
    ids = [
        set(run_query(run, "SELECT material_id FROM predictions")["material_id"].to_pylist())
        for run in (dft_run, edos_run)
    ]
    assert shared == len(ids[0] & ids[1]) > 0


def test_answer_becomes_a_data_frame(dft_run, monkeypatch):
    with mat2spec.open_run(dft_run) as connection:
        few = connection.sql("SELECT material_id, nsites FROM predictions ORDER BY material_id LIMIT 3")
        rows = few.fetchall()
        assert list(few.df().itertuples(index=False, name=None)) == rows
        assert few.to_arrow_table().to_pylist() == [{"material_id": name, "nsites": sites} for name, sites in rows]
        if importlib.util.find_spec("polars"):
            assert few.pl().rows() == rows


def test_polars_that_is_not_installed_is_named_in_one_line(dft_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with mat2spec.open_run(dft_run) as connection, pytest.raises(ModuleNotFoundError, match="polars") as caught:
        connection.sql("SELECT 1").pl()
    assert "\n" not in str(caught.value)


def test_own_tables_are_in_memory_and_the_run_stays_as_it_is(dft_run):
    before = {path: path.read_bytes() for path in dft_run.rglob("*") if path.is_file()}
    with mat2spec.open_run(dft_run) as connection:
        connection.sql("CREATE TABLE stiff AS SELECT * FROM predictions WHERE mean_frequency > 400")
        assert connection.sql("SELECT count(*) > 0 FROM stiff").fetchall() == [(True,)]
        connection.sql("DROP VIEW predictions")
    assert {path: path.read_bytes() for path in dft_run.rglob("*") if path.is_file()} == before
    assert answer(dft_run) == (1522, 1522)


@pytest.mark.parametrize("record", [None, "{", "{}", '{"name": "a training"}'])
def test_folder_that_holds_no_run_is_refused_in_one_line(tmp_path, record):
    if record:
        (tmp_path / "run.json").write_text(record)
    with pytest.raises(RunError, match=f"^{tmp_path}") as caught:
        mat2spec.open_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_file_is_refused_in_one_line(dft_run, tmp_path):
    run = Path(shutil.copytree(dft_run, tmp_path / "run"))
    (run / "predictions" / "part-000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=rf"^{run}: cannot be read \(.*part-000001") as caught:
        mat2spec.open_run(run)
    assert "\n" not in str(caught.value)


def test_catalog_opens_in_duckdb_alone_from_any_directory(dft_run, tmp_path, monkeypatch):
    """By the one line that docs/query.md gives; without it DuckDB finds no file."""
    run = Path(shutil.copytree(dft_run, tmp_path / "moved"))
    monkeypatch.chdir(tmp_path)
    with duckdb.connect(f"moved/{CATALOG}", read_only=True) as connection:
        with pytest.raises(duckdb.IOException, match="No files found"):
            connection.sql(COUNT)
        connection.execute("SET file_search_path = 'moved'")
        assert connection.sql(COUNT).fetchall() == [(1522, 1522)]
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{run / CATALOG}' AS mine (READ_ONLY); SET file_search_path = '{run}'")
        assert connection.sql("SELECT count(*) FROM mine.predictions").fetchall() == [(1522,)]


def test_import_loads_neither_duckdb_nor_torch():
    code = (
        "import sys, mat2spec; mat2spec.open_run; print(*({'duckdb', 'torch', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
