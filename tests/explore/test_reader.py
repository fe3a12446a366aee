"""Reading a run for the page: pages of rows, unfinished and empty runs, object stores, crystals, neighbors."""

import json
import shutil

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from mat2spec.data.materials.schema import read_crystals
from mat2spec.errors import QueryError, RunError
from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Selection
from mat2spec.explore.spectra import nearest_spectra, read_spectra
from mat2spec.storage.location import locate


def test_pages_join_to_all_rows_in_the_order_of_the_files(reader):
    pages = [
        reader.page(Selection(), ["material_id"], start, 100)["material_id"].to_pylist() for start in (0, 100, 200)
    ]
    assert [len(page) for page in pages] == [100, 100, 40]
    whole = reader.query("SELECT material_id FROM predictions")["material_id"].to_pylist()
    assert [row for page in pages for row in page] == whole


@pytest.mark.parametrize("way", ["asc", "desc"])
def test_sorted_pages_join_to_all_rows_also_where_values_are_equal(reader, way):
    pages = [
        reader.page(Selection(), ["material_id", "nsites"], s, 50, [("nsites", way)]).to_pylist()
        for s in range(0, 240, 50)
    ]
    rows = [row for page in pages for row in page]
    assert [row["nsites"] for row in rows] == sorted((row["nsites"] for row in rows), reverse=way == "desc")
    assert len({row["material_id"] for row in rows}) == 240


def test_page_sorted_by_a_column_that_does_not_exist_is_refused(reader):
    with pytest.raises(QueryError, match="not found"):
        reader.page(Selection(), ["material_id"], 0, 10, [('x" DESC; --', "asc")])


def test_query_that_takes_too_long_is_stopped(reader):
    endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7"
    with pytest.raises(QueryError, match=r"longer than 0.2 s"), reader.stream(endless, 0.2) as batches:
        batches.read_all()
    assert reader.count(Selection(text="true")) == 240


def test_unfinished_run_shows_what_is_done_and_grows(unfinished_run, small_run):
    reader = RunReader(unfinished_run)
    assert not reader.is_finished
    assert reader.count(Selection()) == 120
    for folder in ("rejects", "predictions"):
        shutil.copy(small_run / folder / "part-000001.parquet", unfinished_run / folder)
    assert reader.count(Selection()) == 240
    shutil.copy(small_run / "run.json", unfinished_run)
    reader.refresh()
    assert reader.is_finished


def test_run_without_a_shard_opens_and_shows_its_first_one(unfinished_run, small_run):
    for folder in ("predictions", "rejects"):
        (unfinished_run / folder / "part-000000.parquet").unlink()
    reader = RunReader(unfinished_run)
    assert not reader.has_results
    with pytest.raises(QueryError, match="no part of this run is finished yet"):
        reader.count(Selection())
    for folder in ("rejects", "predictions"):
        shutil.copy(small_run / folder / "part-000001.parquet", unfinished_run / folder)
    reader.refresh()
    assert reader.count(Selection()) == 120


def test_run_of_rejects_alone_has_no_rows(small_run, tmp_path):
    run = shutil.copytree(small_run, tmp_path / "run")
    for file in (run / "predictions").iterdir():
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"counts": {"input": 3, "predictions": 0, "rejects": 3}}))
    reader = RunReader(run)
    assert (reader.count(Selection()), reader.reject_count()) == (0, 3)
    assert len(reader.page(Selection(), ["material_id"], 0, 10)) == 0


def test_computed_spectra_that_come_later_are_seen_after_a_reload(small_run, tmp_path):
    run = shutil.copytree(small_run, tmp_path / "run")
    for folder in ("verified", "verification"):
        shutil.move(run / folder, tmp_path / folder)
    reader = RunReader(run)
    assert not reader.has_computed
    for folder in ("verified", "verification"):
        shutil.move(tmp_path / folder, run / folder)
    reader.refresh()
    assert reader.has_computed
    assert reader.count(Selection(computed=True)) == 2


def test_shards_with_different_columns_are_one_table(small_run, tmp_path):
    """Rows that were added later can have further columns."""
    run = shutil.copytree(small_run, tmp_path / "run")
    second = run / "predictions" / "part-000001.parquet"
    table = pq.read_table(second)
    pq.write_table(table.drop_columns(["max_frequency"]).append_column("note", table["formula_pretty"]), second)
    reader = RunReader(run)
    counts = reader.query("SELECT count(note) AS notes, count(*) AS rows FROM predictions").to_pylist()
    assert counts == [{"notes": 120, "rows": 240}]


def test_spectra_come_with_error_and_computed_spectrum(reader):
    rows = reader.query("SELECT * FROM predictions LIMIT 3").to_pylist()
    spectra = read_spectra(reader, [row["material_id"] for row in rows[::-1]])
    assert [one.material_id for one in spectra] == [row["material_id"] for row in rows[::-1]]
    assert [one.computed is None for one in spectra] == [True, False, False]
    np.testing.assert_allclose(spectra[2].computed, spectra[2].predicted[::-1])
    assert [one.spread for one in spectra] == pytest.approx([0.001] * 3)


def test_nearest_spectra_are_those_of_the_largest_cosine(reader):
    rows = reader.query("SELECT material_id, spectrum FROM predictions").to_pylist()
    spectra = np.array([row["spectrum"] for row in rows], np.float64)
    units = spectra / np.linalg.norm(spectra, axis=1)[:, None]
    cosines = units @ units[5]
    cosines[5] = -1
    expected = [rows[i]["material_id"] for i in np.argsort(-cosines)[:10]]
    nearest = nearest_spectra(reader, rows[5]["material_id"])
    assert nearest["material_id"].to_pylist() == expected
    np.testing.assert_allclose(nearest["cosine_distance"].to_numpy(), 1 - np.sort(cosines)[::-1][:10], atol=1e-5)


def test_crystals_come_from_the_input_of_the_run(reader, small_run):
    inputs = {row.material_id: row for row in read_crystals(pq.read_table(small_run.parent / "materials.parquet"))}
    some = list(inputs)[100:103]
    crystals = reader.crystals([*some, "nowhere"])
    assert {name: crystal.content_hash for name, crystal in crystals.items()} == {
        name: inputs[name].content_hash for name in some
    }


def test_input_that_is_gone_is_named(small_run, tmp_path):
    run = shutil.copytree(small_run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"input": {"path": "/nowhere/table.parquet"}}))
    with pytest.raises(RunError, match="its input can no longer be read"):
        RunReader(run).crystals(["mp-149"])


@pytest.fixture(scope="module")
def store() -> dict[str, str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    yield {"AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()), "AWS_DEFAULT_REGION": "us-east-1"}
    server.stop()


@pytest.mark.filterwarnings("default")  # of the packages that speak to the store
@pytest.mark.usefixtures("no_store_of_before")
def test_run_in_an_object_store_is_read_and_nothing_beside_it(small_run, store, monkeypatch):
    for name, value in (store | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="lake")
    client.put_object(Bucket="lake", Key="secret.txt", Body=b"secret")
    for file in small_run.glob("*/*.parquet"):
        client.put_object(Bucket="lake", Key=f"runs/a/{file.relative_to(small_run)}", Body=file.read_bytes())
    client.put_object(Bucket="lake", Key="runs/a/run.json", Body=(small_run / "run.json").read_bytes())
    reader = RunReader(locate("s3://lake/runs/a"))
    assert reader.count(Selection(text="true")) == 240
    assert reader.page(Selection(), ["material_id"], 200, 100)["material_id"].to_pylist()
    for sql in ("SELECT * FROM read_text('s3://lake/secret.txt')", "SELECT * FROM read_text('/etc/passwd')"):
        with pytest.raises(QueryError, match="not of this run"):
            reader.query(sql)
